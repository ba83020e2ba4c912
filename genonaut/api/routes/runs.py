"""Show runs of tasks, cancel and repeat them, and show who did."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_admin as answers
from genonaut.api import pagination, repeats, triggering
from genonaut.api.answers import CHANGING, READING, problems
from genonaut.api.deps import MAX_ID, CallerDep, Id
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.repeats import KeyHeader
from genonaut.api.requests import storable
from genonaut.api.triggering import ACCEPTED, Made
from genonaut.core.errors import ConflictError
from genonaut.db.models import RunFailure
from genonaut.domain import audit, run_history, runs, users
from genonaut.domain.lifecycle import Status
from genonaut.domain.users import Role
from genonaut.worker import task as tasks

router = APIRouter(prefix="/admin")

Name = Annotated[str, AfterValidator(storable)]

_FAILED_SHOWN = 100


@router.get(
    "/runs",
    tags=["tasks"],
    operation_id="listRuns",
    responses={200: {"model": answers.RunPage}, **READING, **problems(403)},
)
def list_runs(
    request: Request,
    caller: CallerDep,
    task: Annotated[
        list[Name] | None, Query(max_length=50, description="Any of these, as they were named.")
    ] = None,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    schedule: Annotated[Name | None, Query(description="Of this schedule only.")] = None,
    parent_id: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="Started by this run only.")
    ] = None,
    retry_of: Annotated[
        int | None, Query(ge=1, le=MAX_ID, description="Repeats of this run only.")
    ] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List everyone's runs, newest first."""
    before = pagination.decode(cursor)
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        found = runs.list_runs(
            session,
            tasks=task or (),
            statuses=status or (),
            schedule=schedule,
            parent_id=parent_id,
            retry_of=retry_of,
            before=before,
            limit=limit + 1,
        )
    return pagination.page(request, found, limit, runs.public)


@router.get(
    "/runs/{run_id}",
    tags=["tasks"],
    operation_id="readRun",
    responses={200: {"model": answers.RunDetails}, **READING, **problems(403, 404)},
)
def read(run_id: Id, caller: CallerDep) -> Response:
    """Read a run, with what it logged last and what it could not do."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        run = runs.one(session, run_id)
        failed = run_history.failures(session, run_id, limit=_FAILED_SHOWN)
    shown = {"log_tail": run.log_tail, "failed": [_failed(item) for item in failed]}
    return JSONResponse({**runs.public(run), **shown})


@router.get(
    "/runs/{run_id}/failures",
    tags=["tasks"],
    operation_id="listRunFailures",
    responses={200: {"model": answers.FailedItemPage}, **READING, **problems(403, 404)},
)
def list_failures(
    run_id: Id,
    request: Request,
    caller: CallerDep,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List the items a run could not do, in the order they failed."""
    after = pagination.decode(cursor) or 0
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        runs.one(session, run_id)
        items = run_history.failures(session, run_id, after=after, limit=limit + 1)
    return pagination.page(request, items, limit, _failed)


@router.post(
    "/runs/{run_id}/cancel",
    tags=["tasks"],
    operation_id="cancelRun",
    responses={
        200: {"model": answers.Run, "description": "The run is cancelled."},
        202: {"model": answers.Run, "description": "It will stop at its next progress."},
        **CHANGING,
        **problems(404, 409),
    },
)
def cancel(run_id: Id, caller: CallerDep) -> Response:
    """Cancel a run: at once while it waits, shortly while it runs. Asking twice is harmless."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        run = runs.request_cancel(session, run_id)
        users.audit(session, who, "run.cancel", f"run:{run_id}", {"task": run.task})
    return JSONResponse(runs.public(run), 200 if run.status == Status.CANCELLED else 202)


@router.post(
    "/runs/{run_id}/retry",
    tags=["tasks"],
    status_code=202,
    operation_id="retryRun",
    responses={**ACCEPTED, **CHANGING, **problems(404, 409)},
)
def retry(run_id: Id, request: Request, caller: CallerDep, key: KeyHeader = None) -> Response:
    """Repeat a failed or cancelled run as a new one, which goes on from where it stopped."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):

        def make() -> Made:
            old = runs.one(session, run_id)
            wanted = tasks.find(old.task)
            asked = wanted.request(
                wanted.validate(old.params),
                trigger=triggering.of(request, caller),
                dry_run=old.dry_run,
                actor=who.username,
                reason=old.reason,
            )
            taken = runs.again(session, run_id, asked)
            return triggering.accepted(session, who, "run.retry", taken, retry_of=run_id)

        asked_for = {"run_id": run_id}
        return repeats.once(session, who, key, act="run.retry", asked=asked_for, make=make)


@router.post(
    "/runs/{run_id}/retry-failed",
    tags=["tasks"],
    status_code=202,
    operation_id="retryFailedItems",
    responses={**ACCEPTED, **CHANGING, **problems(404, 409)},
)
def retry_failed(
    run_id: Id, request: Request, caller: CallerDep, key: KeyHeader = None
) -> Response:
    """Try the items that a run could not do once more, and only those, in a run of their own."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):

        def make() -> Made:
            old = runs.one(session, run_id)
            wanted = tasks.find(old.task)
            asked = wanted.request(
                wanted.validate_failed(old.params, run_id),
                trigger=triggering.of(request, caller),
                actor=who.username,
                reason=f"what run {run_id} could not do",
            )
            if not old.failed_items:
                raise ConflictError("the run could do everything", code="nothing_failed")
            taken = runs.trigger(session, asked)
            return triggering.accepted(session, who, "run.retry_failed", taken, failed_in=run_id)

        asked_for = {"run_id": run_id}
        return repeats.once(session, who, key, act="run.retry_failed", asked=asked_for, make=make)


@router.get(
    "/audit",
    tags=["audit"],
    operation_id="listAudit",
    responses={200: {"model": answers.AuditPage}, **READING, **problems(403)},
)
def list_audit(
    request: Request,
    caller: CallerDep,
    target: Annotated[Name | None, Query(description="On this only, such as `run:42`.")] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List who did what, newest first."""
    before = pagination.decode(cursor)
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        found = audit.entries(session, target=target, before=before, limit=limit + 1)
    return pagination.page(request, found, limit, audit.public)


def _failed(item: RunFailure) -> dict[str, Any]:
    return {
        "id": item.id,
        "ref": item.ref,
        "error": item.error,
        "created_at": item.created_at.isoformat(),
    }
