"""Runs of maintenance tasks: take them in, show where they stand, cancel and repeat them.

A run is a row of its own with the same states, claims and leases as a job. What a task is, which
queue it has and whether its runs may overlap is the catalogue's knowledge; here it is a value.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import uuid4

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased, defer

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.core.events import Event
from genonaut.core.text import storable
from genonaut.db.models import TaskRun
from genonaut.db.session import add_event, savepoint
from genonaut.domain.lifecycle import FINAL, UNFINISHED, Machine, Status

MAX_REASON = 2000
WAITING_FOR_CHILDREN = "waiting_for_children"
"""The phase of a run that has given itself back until those it started have ended."""

_TRIES = 5


class Overlap(StrEnum):
    """What becomes of a run that is asked for while another of its task and key is unfinished."""

    SKIP = "skip"
    WAIT = "wait"
    ALLOW = "allow"


class Trigger(StrEnum):
    """What made a run begin."""

    MANUAL = "manual"
    SCHEDULE = "schedule"
    API = "api"
    CLI = "cli"
    SYSTEM = "system"


class AlreadyRunningError(ConflictError):
    """Another run of this task is unfinished, with other parameters."""

    code = "already_running"

    def __init__(self, message: str, *, run_id: int) -> None:
        super().__init__(message)
        self.run_id = run_id


@dataclass(frozen=True, slots=True)
class NewRun:
    """A validated request for a run.

    ``overlap_key`` tells which runs of the task must not overlap; it counts unless ``overlap`` is
    ``allow``. ``schedule`` and ``due_at`` come together; ``covers`` are the due times passed over
    before ``due_at``, oldest first. ``available_at`` is when the run may begin; None: at once.
    """

    task: str
    queue: str
    trigger: Trigger
    params: dict[str, Any] = field(default_factory=dict)
    overlap: Overlap = Overlap.SKIP
    overlap_key: str = ""
    dry_run: bool = False
    max_attempts: int = 4
    actor: str | None = None
    reason: str | None = None
    schedule: str | None = None
    due_at: datetime | None = None
    covers: tuple[datetime, ...] = ()
    available_at: datetime | None = None
    parent_id: int | None = None
    retry_of: int | None = None
    checkpoint: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request: ``is_new`` is false when a run that stands for it was found."""

    run: TaskRun
    is_new: bool


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def public(run: TaskRun) -> dict[str, Any]:
    """Give what auditors and operators see, ready for JSON; the same for API, sockets, events."""
    return {
        "id": run.id,
        "task": run.task,
        "status": run.status,
        "version": run.version,
        "params": run.params,
        "dry_run": run.dry_run,
        "trigger": run.trigger,
        "actor": run.actor,
        "reason": run.reason,
        "schedule": run.schedule,
        "due_at": _iso(run.due_at),
        "covers": run.covers or [],
        "queue": run.queue,
        "held_back": run.held_back,
        "progress": run.progress,
        "result": run.result,
        "failed_items": run.failed_items,
        "error": (
            {"code": run.error_code, "message": run.error_message} if run.error_code else None
        ),
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "worker": run.worker,
        "cancel_requested": run.cancel_requested_at is not None,
        "has_checkpoint": run.checkpoint is not None,
        "parent_id": run.parent_id,
        "retry_of": run.retry_of,
        "celery_task_id": run.celery_task_id,
        "available_at": _iso(run.available_at),
        "created_at": _iso(run.created_at),
        "updated_at": _iso(run.updated_at),
        "started_at": _iso(run.started_at),
        "completed_at": _iso(run.completed_at),
    }


def describe(run: TaskRun) -> Event:
    """Tell of a change to everyone who may watch the run."""
    return Event(
        kind="run",
        id=run.id,
        version=run.version,
        topics=(f"run:{run.id}", "admin"),
        row=public(run),
        final=run.status in FINAL,
    )


RUNS: Machine[TaskRun] = Machine(TaskRun, describe, claimable=(~TaskRun.held_back,))


def trigger(session: Session, request: NewRun) -> Taken:
    """Store a run as ``pending``, or find the unfinished one that stands for it.

    With ``skip``, a second request while a run of the same key is unfinished gives that run when
    it asks for the same, and is refused when it asks for something else; one that comes from a
    schedule is stored as ``skipped``. With ``wait``, one more run is held back until the first
    has ended, and stands for every further request of the same. ``allow`` stores it always. A due
    time of a schedule has one run, whoever asks for it again.

    Raises: AlreadyRunningError: what is unfinished does not stand for this request.
    """
    values = _values(request)
    for _ in range(_TRIES):
        run = _insert(session, values)
        if run is None and request.overlap is Overlap.WAIT:
            run = _insert(session, {**values, "held_back": True})
        if run is not None:
            return Taken(run, is_new=True)
        found = _stands_for(session, request)
        if found is not None:
            return Taken(found, is_new=False)
        other = _unfinished(session, request)
        if other is not None:
            return _settle(session, request, other)
    raise ConflictError("runs of this task come and go too fast; try again")


def _values(request: NewRun) -> dict[str, Any]:
    return {
        "task": request.task,
        "queue": request.queue,
        "params": request.params,
        "dry_run": request.dry_run,
        "trigger": request.trigger,
        "actor": request.actor,
        "reason": storable(request.reason)[:MAX_REASON] if request.reason else None,
        "schedule": request.schedule,
        "due_at": request.due_at,
        "covers": [moment.isoformat() for moment in request.covers] or None,
        "overlap_key": None if request.overlap is Overlap.ALLOW else request.overlap_key,
        "parent_id": request.parent_id,
        "retry_of": request.retry_of,
        "checkpoint": request.checkpoint,
        "max_attempts": request.max_attempts,
        "celery_task_id": str(uuid4()),
        "progress": {"phase": "queued"},
        **({"available_at": request.available_at} if request.available_at else {}),
    }


def _insert(session: Session, values: dict[str, Any]) -> TaskRun | None:
    """Store a run and tell of it; None when a unique index forbids it."""
    run = _store(session, values)
    if run is not None:
        add_event(session, describe(run))
    return run


def _store(session: Session, values: dict[str, Any]) -> TaskRun | None:
    return session.scalars(
        insert(TaskRun)
        .values(**values)
        .on_conflict_do_nothing()
        .returning(TaskRun)
        .execution_options(populate_existing=True)
    ).one_or_none()


def _same_key(request: NewRun) -> tuple[ColumnElement[bool], ...]:
    return (
        TaskRun.task == request.task,
        TaskRun.overlap_key == request.overlap_key,
        TaskRun.status.in_(UNFINISHED),
    )


def _of_due_time(request: NewRun) -> Select[TaskRun]:
    return select(TaskRun).where(
        TaskRun.schedule == request.schedule, TaskRun.due_at == request.due_at
    )


def _stands_for(session: Session, request: NewRun) -> TaskRun | None:
    """Find the run of this due time, or the unfinished one that was asked for the same."""
    if request.schedule is not None:
        return session.scalars(_of_due_time(request)).one_or_none()
    found = session.scalars(
        select(TaskRun)
        .where(*_same_key(request))
        # One that has begun may have passed what a later request wants done.
        .order_by(TaskRun.held_back.desc(), TaskRun.id.desc())
        .limit(1)
    ).one_or_none()
    if found is None or found.params != request.params or found.dry_run != request.dry_run:
        return None
    return found


def _unfinished(session: Session, request: NewRun) -> TaskRun | None:
    return session.scalars(
        select(TaskRun).where(*_same_key(request)).order_by(TaskRun.id.desc()).limit(1)
    ).one_or_none()


def _settle(session: Session, request: NewRun, other: TaskRun) -> Taken:
    if request.schedule is None:
        raise AlreadyRunningError(
            f"run {other.id} of {request.task} is {other.status} with other parameters",
            run_id=other.id,
        )
    run = skip(session, request, reason=f"run {other.id} was still {other.status}")
    return Taken(run, is_new=True)


def skip(session: Session, request: NewRun, *, reason: str) -> TaskRun:
    """Record a due time at which nothing was run, and why; one that has its run keeps it."""
    run = _store(session, _values(replace(request, overlap=Overlap.ALLOW, reason=reason)))
    if run is None:
        return session.scalars(_of_due_time(request)).one()
    return RUNS.move(session, run.id, Status.SKIPPED, progress={"phase": "skipped"})


def one(session: Session, run_id: int, *, keep: bool = False) -> TaskRun:
    """Give a run; with ``keep``, it is not removed before the transaction ends.

    Raises: NotFoundError: there is no such run.
    """
    lock = {"read": True, "key_share": True} if keep else None
    run = session.get(TaskRun, run_id, with_for_update=lock)
    if run is None:
        raise NotFoundError("there is no such run")
    return run


def list_runs(
    session: Session,
    *,
    tasks: Sequence[str] = (),
    except_task: str | None = None,
    statuses: Sequence[str] = (),
    schedule: str | None = None,
    parent_id: int | None = None,
    retry_of: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[TaskRun]:
    """List runs, newest first, older than the id ``before``; without their log lines."""
    query = select(TaskRun).options(defer(TaskRun.log_tail))
    if tasks:
        query = query.where(TaskRun.task.in_(tasks))
    if except_task is not None:  # not "one of all others": that is read whole, then sorted
        query = query.where(TaskRun.task != except_task)
    if statuses:
        query = query.where(TaskRun.status.in_(statuses))
    for column, wanted in (
        (TaskRun.schedule, schedule),
        (TaskRun.parent_id, parent_id),
        (TaskRun.retry_of, retry_of),
    ):
        if wanted is not None:
            query = query.where(column == wanted)
    if before is not None:
        query = query.where(TaskRun.id < before)
    return list(session.scalars(query.order_by(TaskRun.id.desc()).limit(limit)))


def request_cancel(session: Session, run_id: int) -> TaskRun:
    """Cancel a run and those it started: at once while pending, at the next progress while running.

    Once this is committed the run can only end as ``cancelled``. Asking again is harmless.

    Raises:
        NotFoundError: there is no such run.
        ConflictError: it has already ended otherwise.
    """
    cancel_children(session, run_id)
    run = RUNS.note(
        session,
        run_id,
        (TaskRun.status.in_(UNFINISHED), TaskRun.cancel_requested_at.is_(None)),
        cancel_requested_at=func.now(),
    )
    if run is None:
        run = one(session, run_id)
        if run.status in FINAL and run.status != Status.CANCELLED:
            raise ConflictError(f"the run has already {run.status}", code=f"already_{run.status}")
        return run
    if run.status == Status.PENDING:
        return close_cancelled(session, run)
    return run


def close_cancelled(session: Session, run: TaskRun) -> TaskRun:
    """End a pending run as ``cancelled``; what waited behind it may begin."""
    cancel_children(session, run.id)
    ended = RUNS.move(
        session, run.id, Status.CANCELLED, progress={**run.progress, "phase": "cancelled"}
    )
    let_next_begin(session, ended)
    return ended


def again(session: Session, run_id: int, request: NewRun) -> Taken:
    """Repeat an ended run as a new one, which goes on from its checkpoint if it has one.

    ``request`` says how the task is run now; what is done is what the old run was asked to do.

    Raises:
        NotFoundError: there is no such run.
        ConflictError: it is unfinished, or another run of its task is.
    """
    old = one(session, run_id, keep=True)
    if old.status not in {Status.FAILED, Status.CANCELLED}:
        raise ConflictError(f"only a failed or cancelled run is retried; this one is {old.status}")
    return trigger(
        session,
        replace(request, dry_run=old.dry_run, retry_of=old.id, checkpoint=old.checkpoint),
    )


def cancel_children(session: Session, run_id: int) -> None:
    """Cancel what a run has started; before its own row is locked, as theirs are locked first."""
    for child_id in session.scalars(_unfinished_children(run_id).with_for_update()).all():
        request_cancel(session, child_id)


def _unfinished_children(run_id: int) -> Select[int]:
    return (
        select(TaskRun.id)
        .where(TaskRun.parent_id == run_id, TaskRun.status.in_(UNFINISHED))
        .order_by(TaskRun.id)
    )


def wake(session: Session, run_id: int, *, in_s: float = 0) -> None:
    """Let a run that waits for those it started go on, if all of them have ended."""
    # Two that end at the same moment do not see each other: here one waits for the other's commit.
    session.execute(select(TaskRun.id).where(TaskRun.id == run_id).with_for_update(key_share=True))
    waits = TaskRun.progress["phase"].astext == WAITING_FOR_CHILDREN
    if session.scalar(_unfinished_children(run_id).limit(1)) is None:
        available_at = func.now() + timedelta(seconds=in_s)
        RUNS.note(
            session, run_id, (TaskRun.status == Status.PENDING, waits), available_at=available_at
        )


def let_next_begin(session: Session, ended: TaskRun) -> TaskRun | None:
    """Let the run held back behind ``ended`` begin, None if there is none; tell its family.

    Its parent may go on, and what it started is cancelled if it was.
    """
    if ended.status == Status.CANCELLED:  # it may have started some since that was asked for
        cancel_children(session, ended.id)
    if ended.parent_id is not None:
        wake(session, ended.parent_id)
    if ended.overlap_key is None or ended.held_back:
        return None
    waiting = session.scalar(
        select(TaskRun.id).where(
            TaskRun.task == ended.task,
            TaskRun.overlap_key == ended.overlap_key,
            TaskRun.status == Status.PENDING,
            TaskRun.held_back,
        )
    )
    return begin_held_back(session, waiting) if waiting is not None else None


def is_busy() -> ColumnElement[bool]:
    """Give the condition that a run of the row's task and key is active."""
    active = aliased(TaskRun)
    return (
        select(active.id)
        .where(
            active.task == TaskRun.task,
            active.overlap_key == TaskRun.overlap_key,
            active.status.in_(UNFINISHED),
            ~active.held_back,
        )
        .exists()
    )


def begin_held_back(session: Session, run_id: int) -> TaskRun | None:
    """Let a held-back run begin, unless a run of its key is active still or again."""
    try:
        with savepoint(session):
            return RUNS.note(
                session,
                run_id,
                (TaskRun.status == Status.PENDING, TaskRun.held_back.expression, ~is_busy()),
                held_back=False,
                available_at=func.now(),
            )
    except IntegrityError:  # another run of the key was stored at this moment
        return None
