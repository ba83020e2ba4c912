"""Look after the house: how it is, who works, what is stuck, who did what."""

import json
import socket
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from genonaut.api.requests_schedules import PauseRequest
from genonaut.api.routes import operations, schedules
from genonaut.api.routes import thumbnails as thumbnail_routes
from genonaut.api.web import charts, lists
from genonaut.api.web.checking import check
from genonaut.api.web.visitor import FormDep, PageRoute, Visitor, VisitorDep
from genonaut.domain import audit, health, run_history, runs
from genonaut.domain.lifecycle import Status
from genonaut.domain.schedules import pause_of_all, public_pause
from genonaut.domain.users import Role
from genonaut.worker.queues import GENERATION, QUEUES
from genonaut.worker.tasks.thumbnails import NAME as BACKFILL

router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)

_PAGE = 50
_LATELY = 8
_STALE = 100
_LOOPBACK_S = 0.2


def answer_body(response: Response) -> dict[str, Any]:
    """Read an answer of the API."""
    found: dict[str, Any] = json.loads(bytes(response.body))
    return found


@router.get("")
def overview(visitor: VisitorDep) -> Response:
    """Show at a glance whether all is well and, if not, what is not."""
    whole = answer_body(operations.read_health(visitor.caller))
    stale = answer_body(operations.read_stale(visitor.caller, limit=1))
    with visitor.look(Role.AUDITOR) as view:
        queues = health.queues(view.session, QUEUES, job_queue=GENERATION)
        hours = run_history.by_hour(view.session)
        failed = runs.list_runs(view.session, statuses=(Status.FAILED,), limit=_LATELY)
        shown = [runs.public(run) for run in failed]
    return visitor.show(
        "console/overview.html",
        view,
        active="overview",
        health=whole,
        stale=sum(stale["counts"].values()),
        running=sum(queue.running for queue in queues),
        waiting=sum(queue.pending for queue in queues),
        oldest_s=max((queue.oldest_due_s or 0 for queue in queues), default=0),
        free_mb=next((one["value"] for one in whole["checks"] if one["name"] == "disk"), None),
        chart=charts.by_hour(hours),
        by_task=charts.by_task(hours),
        failed_today=sum(hour.failed for hour in hours),
        failed=shown,
    )


@router.get("/workers")
def workers(visitor: VisitorDep) -> Response:
    """Show what waits in each queue, and who works."""
    with visitor.look(Role.AUDITOR) as view:
        queues = [
            queue.public() for queue in health.queues(view.session, QUEUES, job_queue=GENERATION)
        ]
        processes = [process.public() for process in health.processes(view.session)]
        at_work = health.at_work(view.session)
        paused = pause_of_all(view.session)
        pause = public_pause(paused) if paused else None
    return visitor.show(
        "console/workers.html",
        view,
        active="workers",
        queues=queues,
        processes=processes,
        at_work=at_work,
        pause=pause,
        flower=_flower(visitor),
    )


def _flower(visitor: Visitor) -> str | None:
    """Give where Flower is: on this machine alone, so only to who looks from there, if it runs."""
    host, port = visitor.request.url.hostname, visitor.services.settings.flower_port
    if host not in {"127.0.0.1", "localhost"}:
        return None
    try:
        socket.create_connection(("127.0.0.1", port), timeout=_LOOPBACK_S).close()
    except OSError:
        return None
    return f"http://{host}:{port}/"


@router.post("/pause")
def pause_all(form: FormDep) -> Response:
    """Let every schedule rest."""
    schedules.pause_all(
        form.visitor.caller, check(PauseRequest, {"reason": form.get("reason") or None})
    )
    return form.visitor.lead("/console/schedules", "All schedules rest.")


@router.post("/resume")
def resume_all(form: FormDep) -> Response:
    """End the pause of all."""
    schedules.resume_all(form.visitor.caller)
    return form.visitor.lead("/console/schedules", "The schedules go on.")


@router.get("/stale")
def stale(visitor: VisitorDep) -> Response:
    """Show what is stuck now and why, and what was mended last."""
    found = answer_body(operations.read_stale(visitor.caller, limit=_STALE))
    with visitor.look(Role.AUDITOR) as view:
        pass
    return visitor.show("console/stale.html", view, active="stale", found=found)


@router.get("/thumbnails")
def thumbnails(visitor: VisitorDep) -> Response:
    """Show where the thumbnails stand, and offer to make what there is to make."""
    found = answer_body(thumbnail_routes.read_state(visitor.caller))
    with visitor.look(Role.AUDITOR) as view:
        lately = runs.list_runs(view.session, tasks=[BACKFILL], limit=_LATELY)
        recent = [runs.public(run) for run in lately]
    return visitor.show(
        "console/thumbnails.html",
        view,
        active="thumbnails",
        found=found,
        recent=recent,
        task=BACKFILL,
        states=[(state, found[state]) for state in ("missing", "outdated", "failed")],
    )


@router.get("/audit")
def who_did_what(request: Request, visitor: VisitorDep) -> Response:
    """List acts, newest first; those on one thing if asked."""
    target = lists.asked(request, "target")
    with visitor.look(Role.AUDITOR) as view:
        rows = audit.entries(
            view.session, target=target or None, before=lists.before(request), limit=_PAGE + 1
        )
        rows, following = lists.split(request, rows, _PAGE)
        entries = [audit.public(row) for row in rows]
    return visitor.show(
        "console/audit.html",
        view,
        active="audit",
        entries=entries,
        target=target,
        following=following,
    )
