"""Say whether the process lives, may be given requests, and how the whole is."""

from collections.abc import Callable
from typing import Any

from anyio import create_task_group, move_on_after, to_thread
from fastapi import APIRouter
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import JSONResponse, Response

from genonaut.api import answers
from genonaut.api.deps import Services, ServicesDep
from genonaut.db.versions import Standing, standing
from genonaut.domain import heartbeats
from genonaut.worker.queues import GENERATION

router = APIRouter(tags=["health"])

_SILENT_AFTER_S = 60
_TIME_LIMIT_S = 2.5
_SILENT = {"ok": False, "detail": "does not answer"}
_UNREADY: dict[int | str, dict[str, Any]] = {
    503: {"model": answers.Health, "description": "Something it needs is not there."}
}

Check = Callable[[Services], str]


@router.head("/livez", include_in_schema=False)
@router.get("/livez", operation_id="livez", responses={200: {"model": answers.Alive}})
async def livez() -> Response:
    """Answer; nothing else is touched."""
    return JSONResponse({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz", operation_id="readyz", responses={200: {"model": answers.Health}, **_UNREADY}
)
async def readyz(services: ServicesDep) -> Response:
    """Say whether database, migrations and Redis are as they should be."""
    found = await _run_all(_NEEDED, services)
    ready = all(check["ok"] for check in found.values())
    return JSONResponse(
        {"status": "ok" if ready else "down", "checks": found}, 200 if ready else 503
    )


@router.head("/health", include_in_schema=False)
@router.get(
    "/health", operation_id="health", responses={200: {"model": answers.Health}, **_UNREADY}
)
async def health(services: ServicesDep) -> Response:
    """Summarise: `down` without the database, `degraded` when another part is missing."""
    found = await _run_all({**_NEEDED, **_WANTED}, services)
    if not found["database"]["ok"]:
        status = "down"
    else:
        status = "ok" if all(check["ok"] for check in found.values()) else "degraded"
    return JSONResponse({"status": status, "checks": found}, 503 if status == "down" else 200)


class _Wrong(Exception):  # noqa: N818 - the outcome of a check, not an error
    """Say in public words what is wrong."""


async def _run_all(checks: dict[str, Check], services: Services) -> dict[str, dict[str, Any]]:
    """Run checks side by side, in threads requests do not use; what hangs is given up."""
    found: dict[str, dict[str, Any]] = {name: {**_SILENT} for name in checks}

    async def run(name: str, check: Check) -> None:
        found[name] = await to_thread.run_sync(
            _run, check, services, limiter=services.health_threads, abandon_on_cancel=True
        )

    with move_on_after(_TIME_LIMIT_S):
        async with create_task_group() as group:
            for name, check in checks.items():
                group.start_soon(run, name, check)
    return found


def _run(check: Check, services: Services) -> dict[str, Any]:
    try:
        return {"ok": True, "detail": check(services)}
    except _Wrong as wrong:
        return {"ok": False, "detail": str(wrong)}
    except SQLAlchemyError:
        return {**_SILENT}


def _database(services: Services) -> str:
    with services.database.transaction() as session:
        session.execute(select(1))
    return "answers"


def _migrations(services: Services) -> str:
    with services.database.transaction() as session:
        found = standing(session.connection())
    if found is Standing.BEHIND:
        raise _Wrong("the database is not at the newest revision; run the migrations")
    # An upgrade migrates first and restarts later: meanwhile the old program goes on serving.
    return "up to date" if found is Standing.CURRENT else "the database is newer than this version"


def _redis(services: Services) -> str:
    if not services.publisher.ping():
        raise _Wrong("does not answer")
    return "answers"


def _workers(services: Services) -> str:
    with services.database.transaction() as session:
        ages = heartbeats.ages(session, kind="worker", queue=GENERATION)
    alive = sum(age_s < _SILENT_AFTER_S for age_s in ages.values())
    if not alive:
        raise _Wrong("none that draws has been seen for a minute")
    return f"{alive} at work"


def _comfyui(services: Services) -> str:
    if services.options.get(wait_s=1) is None:
        raise _Wrong("no server answers; jobs wait")
    return "answers"


_NEEDED: dict[str, Check] = {"database": _database, "migrations": _migrations, "redis": _redis}
_WANTED: dict[str, Check] = {"workers": _workers, "comfyui": _comfyui}
