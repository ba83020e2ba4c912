"""Show auditors what waits, who works and whether all is well."""

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_health as answers
from genonaut.api.answers import READING, problems
from genonaut.api.deps import CallerDep
from genonaut.clients.storage import Storage
from genonaut.core.errors import GenonautError
from genonaut.domain import health, repairs
from genonaut.domain.health import Check, Limits
from genonaut.domain.users import Role
from genonaut.worker import repair
from genonaut.worker.dispatch import current_epoch
from genonaut.worker.queues import GENERATION, QUEUES

router = APIRouter(prefix="/admin", tags=["operations"])


@router.get(
    "/queues",
    operation_id="listQueues",
    responses={200: {"model": answers.QueueList}, **READING, **problems(403)},
)
def list_queues(caller: CallerDep) -> Response:
    """Show each queue: what waits, for how long, and what is worked on."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        states = health.queues(session, QUEUES, job_queue=GENERATION)
    return JSONResponse({"items": [state.public() for state in states]})


@router.get(
    "/workers",
    operation_id="listWorkers",
    responses={200: {"model": answers.ProcessList}, **READING, **problems(403)},
)
def list_workers(caller: CallerDep) -> Response:
    """Show the workers and beats that report."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        found = health.processes(session)
    return JSONResponse({"items": [process.public() for process in found]})


@router.get(
    "/health",
    operation_id="readWholeHealth",
    responses={200: {"model": answers.WholeHealth}, **READING, **problems(403)},
)
def read_health(caller: CallerDep) -> Response:
    """Say of each part whether it is well; what is asked is the database, never Celery."""
    settings = caller.services.settings
    limits = Limits(
        oldest_due_s=settings.health_oldest_due_s,
        stalled_s=settings.health_stalled_s,
        free_mb=settings.storage_min_free_mb,
    )
    with caller.transaction(role=Role.AUDITOR):
        pass  # before the disk is asked, which may take its time
    disk = _disk(caller.services.storage, limits)
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        states = health.queues(session, QUEUES, job_queue=GENERATION)
        processes = health.processes(session)
        late = health.lateness(session)
    checks = health.judge(states, processes, late=late, limits=limits)
    checks += [disk] if disk else []
    status = "ok" if all(check.ok for check in checks) else "red"
    return JSONResponse({"status": status, "checks": [check.public() for check in checks]})


def _disk(storage: Storage, limits: Limits) -> Check | None:
    """Judge where pictures are kept; None for a store without a limit."""
    try:
        free = storage.free_bytes()
    except GenonautError as error:
        return health.broken_disk(str(error))
    return None if free is None else health.disk(free // 2**20, limits)


@router.get(
    "/stale",
    operation_id="readStale",
    responses={200: {"model": answers.StaleReport}, **READING, **problems(403)},
)
def read_stale(
    caller: CallerDep,
    limit: Annotated[int, Query(ge=1, le=500, description="Rows of each rule, and acts.")] = 50,
) -> Response:
    """Show what is stuck now and why, what will become of it, and what was done last.

    The workers mend within seconds what they find; what stays here has no worker to mend it.
    """
    settings = caller.services.settings
    with caller.transaction(role=Role.AUDITOR):
        pass  # before Redis is asked, in no transaction
    epoch = current_epoch(settings)
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        found = repair.look(session, settings, epoch=epoch, limit=limit)
        recent = [repairs.public(act) for act in repairs.recent(session, limit=limit)]
    items = [stale.public() for stale in found.items]
    return JSONResponse({"counts": found.counts, "items": items, "recent": recent})
