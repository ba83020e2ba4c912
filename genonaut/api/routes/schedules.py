"""Show when tasks run by themselves; make, edit, pause, resume, try and remove schedules."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import AfterValidator
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_schedules as answers
from genonaut.api import pagination, preconditions, repeats, triggering
from genonaut.api.answers import POSTING, READING, problems
from genonaut.api.deps import CallerDep
from genonaut.api.pagination import LimitParam
from genonaut.api.preconditions import ETAG, IfMatchHeader
from genonaut.api.repeats import KeyHeader
from genonaut.api.requests import storable
from genonaut.api.requests_schedules import (
    PauseRequest,
    ScheduleRequest,
    ScheduleRunRequest,
    TermsRequest,
    TimingRequest,
)
from genonaut.api.triggering import ACCEPTED, Made
from genonaut.core.errors import InvalidInputError
from genonaut.db.models import Schedule
from genonaut.domain import health, runs, schedule_clock, schedules, users
from genonaut.domain.schedule_clock import Look
from genonaut.domain.schedules import Terms
from genonaut.domain.users import Principal, Role
from genonaut.worker import task as tasks
from genonaut.worker.reckoning import checked, due_after, reckon_after, timing_of
from genonaut.worker.schedule import Timing, preview
from genonaut.worker.task import UnknownTaskError

router = APIRouter(prefix="/admin", tags=["schedules"])

SCHEDULES = "/api/v1/admin/schedules"


def _name(value: str) -> str:
    try:
        schedules.check_name(value)
    except InvalidInputError as error:
        raise ValueError(str(error)) from error
    return value


Name = Annotated[
    str,
    Path(max_length=100, description="As `GET /admin/schedules` lists it."),
    AfterValidator(_name),
]
Count = Annotated[int, Query(ge=1, le=100, description="How many due times.")]

_ONE: dict[int | str, dict[str, Any]] = {200: {"model": answers.Schedule, "headers": ETAG}}
_ALL: dict[int | str, dict[str, Any]] = {200: {"model": answers.PauseOfAll}}
_NOT_EDITS = {"version", "created_at", "updated_at", "next_due_at", "last_due_at"}


@router.get(
    "/schedules",
    operation_id="listSchedules",
    responses={200: {"model": answers.SchedulePage}, **READING, **problems(403)},
)
def list_schedules(
    request: Request,
    caller: CallerDep,
    task: Annotated[
        list[Annotated[str, AfterValidator(storable)]] | None,
        Query(max_length=50, description="Of any of these only."),
    ] = None,
    limit: LimitParam = 50,
    cursor: Annotated[
        str | None,
        Query(max_length=100, description="`next_cursor` of the page before."),
        AfterValidator(lambda value: value if value is None else storable(value)),
    ] = None,
) -> Response:
    """List schedules by name, and say whether all are paused."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        rows = schedules.list_schedules(session, tasks=task or (), after=cursor, limit=limit + 1)
        all_paused = schedules.pause_of_all(session)
        seen = schedule_clock.look(session)
    return pagination.page(
        request,
        rows,
        limit,
        lambda row: _shown(row, seen),
        cursor_of=lambda row: row.name,
        paused=schedules.public_pause(all_paused) if all_paused else None,
    )


@router.post(
    "/schedules",
    status_code=201,
    operation_id="createSchedule",
    responses={
        201: {
            "model": answers.Schedule,
            "headers": {
                **ETAG,
                "Location": {"description": "The schedule.", "schema": {"type": "string"}},
            },
        },
        **POSTING,
        **problems(409),
    },
)
def create(body: ScheduleRequest, caller: CallerDep) -> Response:
    """Make a schedule; it is due after now."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        schedules.check_name(body.name)
        seen = schedule_clock.look(session)
        terms, next_due_at = _reckoned(body, seen.now)
        row = schedules.create(session, body.name, terms, next_due_at=next_due_at)
        _audit(session, who, "schedule.create", row.name, {"after": terms.public()})
        return _answer(row, seen, 201, Location=f"{SCHEDULES}/{row.name}")


@router.post(
    "/schedules/preview",
    operation_id="previewTiming",
    responses={200: {"model": answers.Preview}, **POSTING},
)
def preview_timing(body: TimingRequest, caller: CallerDep, n: Count = 10) -> Response:
    """Say when a cron or an interval that is not stored would be due next."""
    timing = body.to_timing()
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        now = schedule_clock.look(session).now
    return _preview(timing, now, n)


@router.get(
    "/schedules/{name}",
    operation_id="readSchedule",
    responses={**_ONE, **READING, **problems(403, 404)},
)
def read(name: Name, caller: CallerDep) -> Response:
    """Read one; its `ETag` is what a change wants as `If-Match`."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        return _answer(schedules.one(session, name), schedule_clock.look(session))


@router.put(
    "/schedules/{name}",
    operation_id="editSchedule",
    responses={**_ONE, **POSTING, **problems(404, 412, 428)},
)
def edit(
    name: Name, body: TermsRequest, caller: CallerDep, if_match: IfMatchHeader = None
) -> Response:
    """Replace what it runs and when. One from the code is then an operator's until it is put back.

    It is due after now if its timing changes; else when it was.
    """
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        row = schedules.one(session, name, hold=True)
        preconditions.check(if_match, row.version)
        before = schedules.public(row)
        seen = schedule_clock.look(session)
        terms, next_due_at = _reckoned(body, seen.now)
        row = schedules.change(session, name, terms, version=row.version, next_due_at=next_due_at)
        _audit(session, who, "schedule.edit", name, _changes(before, row))
        return _answer(row, seen)


@router.delete(
    "/schedules/{name}",
    status_code=204,
    operation_id="removeSchedule",
    responses={204: {"description": "It is gone; its runs stay."}, **POSTING}
    | problems(404, 409, 412, 428),
)
def remove(name: Name, caller: CallerDep, if_match: IfMatchHeader = None) -> Response:
    """Remove one. What the code declares can be paused, not removed."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        row = schedules.one(session, name, hold=True)
        preconditions.check(if_match, row.version)
        before = Terms.of(row).public()
        schedules.remove(session, name, version=row.version)
        _audit(session, who, "schedule.remove", name, {"before": before})
    return Response(status_code=204)


@router.post(
    "/schedules/{name}/pause",
    operation_id="pauseSchedule",
    responses={**_ONE, **POSTING, **problems(404)},
)
def pause(name: Name, caller: CallerDep, body: PauseRequest | None = None) -> Response:
    """Let one rest; again: with a new reason and end."""
    asked = body or PauseRequest()
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        before = schedules.public(schedules.one(session, name, hold=True))
        seen = schedule_clock.look(session)
        row = schedules.pause(
            session,
            name,
            actor=who.username,
            now=seen.now,
            reason=asked.reason,
            until=asked.until,
        )
        _audit(session, who, "schedule.pause", name, _changes(before, row))
        return _answer(row, seen)


@router.post(
    "/schedules/{name}/resume",
    operation_id="resumeSchedule",
    responses={**_ONE, **POSTING, **problems(404)},
)
def resume(name: Name, caller: CallerDep) -> Response:
    """End its pause; it is due after now. One that is not paused is left as it is."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        before = schedules.public(schedules.one(session, name, hold=True))
        seen = schedule_clock.look(session)
        row = schedules.resume(session, name, reckon_after(seen.now))
        _audit(session, who, "schedule.resume", name, _changes(before, row))
        return _answer(row, seen)


@router.post(
    "/schedules/{name}/run",
    status_code=202,
    operation_id="runSchedule",
    responses={**ACCEPTED, **POSTING, **problems(404, 409)},
)
def run(
    name: Name,
    request: Request,
    caller: CallerDep,
    body: ScheduleRunRequest | None = None,
    key: KeyHeader = None,
) -> Response:
    """Have its task run now with its parameters, paused or not; when it is due stays as it is."""
    asked = body or ScheduleRunRequest()
    with caller.transaction(role=Role.OPERATOR) as (session, who):

        def make() -> Made:
            terms = Terms.of(schedules.one(session, name))
            wanted = tasks.find(terms.task)
            new = wanted.request(
                wanted.validate(terms.params),
                trigger=triggering.of(request, caller),
                dry_run=asked.dry_run,
                overlap=terms.overlap,
                actor=who.username,
                reason=asked.reason,
            )
            taken = runs.trigger(session, new)
            target = f"schedule:{name}"
            told = {"run_id": taken.run.id, "dry_run": asked.dry_run}
            return triggering.accepted(session, who, "schedule.run", taken, target=target, **told)

        asked_for = {"schedule": name, **asked.model_dump()}
        return repeats.once(session, who, key, act="schedule.run", asked=asked_for, make=make)


@router.get(
    "/schedules/{name}/preview",
    operation_id="previewSchedule",
    responses={200: {"model": answers.Preview}, **READING, **problems(403, 404)},
)
def preview_one(name: Name, caller: CallerDep, n: Count = 10) -> Response:
    """Say when it is due next, if it is not paused."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        timing = timing_of(Terms.of(schedules.one(session, name)))
        now = schedule_clock.look(session).now
    return _preview(timing, now, n)


@router.post("/pause", operation_id="pauseSchedules", responses={**_ALL, **POSTING})
def pause_all(caller: CallerDep, body: PauseRequest | None = None) -> Response:
    """Let every schedule rest, whatever is made or resumed meanwhile."""
    asked = body or PauseRequest()
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        before = _pause_of_all(session)
        now = schedule_clock.look(session).now
        schedules.pause_all(
            session, actor=who.username, now=now, reason=asked.reason, until=asked.until
        )
        after = _pause_of_all(session)
        changes = {"changes": {"paused": {"before": before, "after": after}}}
        _audit(session, who, "schedules.pause", "*", changes)
    return JSONResponse({"paused": after})


@router.post("/resume", operation_id="resumeSchedules", responses={**_ALL, **POSTING})
def resume_all(caller: CallerDep) -> Response:
    """End the pause of all; those paused by themselves stay so. What passed is not made up for."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        before = _pause_of_all(session)
        now = schedule_clock.look(session).now
        schedules.resume_all(session, reckon_after(now), now=now)
        changes = {"changes": {"paused": {"before": before, "after": None}} if before else {}}
        _audit(session, who, "schedules.resume", "*", changes)
    return JSONResponse({"paused": None})


def _reckoned(body: TermsRequest, now: datetime) -> tuple[Terms, datetime]:
    """Give terms in their usual form, and the first due time.

    Raises: InvalidInputError: naming the field.
    """
    try:
        terms = checked(body.to_terms())
    except UnknownTaskError as error:
        raise InvalidInputError(f"task: {error}", field="task", code=error.code) from error
    return terms, due_after(terms, now)


def _shown(row: Schedule, seen: Look) -> dict[str, Any]:
    return {**schedules.public(row), "late_s": health.late_s(row, seen)}


def _answer(row: Schedule, seen: Look, status: int = 200, **headers: str) -> Response:
    headers = {**preconditions.etag(row.version), **headers}
    return JSONResponse(_shown(row, seen), status, headers=headers)


def _preview(timing: Timing, now: datetime, n: int) -> Response:
    items = [
        {"due_at": one.due_at.isoformat(), "local": one.local.isoformat(), "mark": one.mark}
        for one in preview(timing, now, n)
    ]
    return JSONResponse({"timezone": timing.timezone, "items": items})


def _pause_of_all(session: Session) -> dict[str, Any] | None:
    found = schedules.pause_of_all(session)
    return schedules.public_pause(found) if found else None


def _changes(before: dict[str, Any], row: Schedule) -> dict[str, Any]:
    after = schedules.public(row)
    return {
        "changes": {
            name: {"before": before[name], "after": value}
            for name, value in after.items()
            if name not in _NOT_EDITS and before[name] != value
        }
    }


def _audit(session: Session, who: Principal, act: str, name: str, details: dict[str, Any]) -> None:
    users.audit(session, who, act, f"schedule:{name}", details)
