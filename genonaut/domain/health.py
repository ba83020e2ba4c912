"""Say how the whole is: what waits, who works, what is late; nothing is asked of Celery."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, String, case, cast, func, literal, null, select, union_all
from sqlalchemy.orm import Session

from genonaut.db.models import GenerationJob, Heartbeat, Schedule, TaskRun
from genonaut.domain import schedule_clock
from genonaut.domain.lifecycle import UNFINISHED, Status
from genonaut.domain.schedule_clock import Look

SILENT_AFTER_S = 60.0
"""A worker or beat that has not been seen for this long counts as gone."""
BEAT_SILENT_S = 45.0
"""One that hangs must be seen within a minute; it reports every few seconds."""
UNPUBLISHED_AFTER_S = 30.0
LATE_AFTER_S = 60.0
"""A schedule that has been due for longer, and may fire, is late."""


@dataclass(frozen=True, slots=True)
class QueueState:
    """What waits in a queue and what is worked on; ages in seconds, None when there is nothing.

    ``due`` are the pending rows that a worker might take now, ``oldest_due_s`` says for how long
    the first of them might have been. ``unpublished`` of them have had no message at the broker
    for half a minute: nobody publishes, or Redis is away.
    ``claimed_s`` ago a row of this queue was last begun, as far as unfinished rows tell.
    """

    queue: str
    pending: int
    due: int
    running: int
    unpublished: int
    oldest_due_s: float | None
    claimed_s: float | None

    def is_stalled(self, after_s: float) -> bool:
        """Whether work is there, nobody does it, and it has been so for ``after_s`` seconds.

        A worker may be connected and not consume: its sign of life says nothing about work.
        """
        if self.running or self.oldest_due_s is None:
            return False
        return self.oldest_due_s > after_s

    def public(self) -> dict[str, Any]:
        """Give it ready for JSON."""
        return {
            "queue": self.queue,
            "pending": self.pending,
            "due": self.due,
            "running": self.running,
            "unpublished": self.unpublished,
            "oldest_due_s": _rounded(self.oldest_due_s),
            "claimed_s": _rounded(self.claimed_s),
        }


@dataclass(frozen=True, slots=True)
class ProcessState:
    """A worker or beat that reports."""

    name: str
    kind: str
    seen_s: float
    up_s: float
    info: dict[str, Any]

    @property
    def is_alive(self) -> bool:
        """Whether it was seen lately."""
        return self.seen_s < SILENT_AFTER_S

    def serves(self, queue: str) -> bool:
        """Whether it takes work from the queue."""
        return queue in self.info.get("queues", [])

    def public(self) -> dict[str, Any]:
        """Give it ready for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "alive": self.is_alive,
            "seen_s": _rounded(self.seen_s),
            "up_s": _rounded(self.up_s),
            "queues": self.info.get("queues", []),
            "concurrency": self.info.get("concurrency"),
            "pid": self.info.get("pid"),
        }


@dataclass(frozen=True, slots=True)
class Lateness:
    """How late what may fire is: ``late_s`` the one longest due, named ``first`` if that counts.

    ``count`` of them are late.
    """

    late_s: float = 0.0
    count: int = 0
    first: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What must not be passed; seconds and MiB."""

    oldest_due_s: float
    stalled_s: float
    free_mb: int


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that is well or not; ``value`` and ``limit`` in ``unit``, where there are any."""

    name: str
    ok: bool
    detail: str
    value: float | None = None
    limit: float | None = None
    unit: str | None = None

    def public(self) -> dict[str, Any]:
        """Give it ready for JSON."""
        return {
            "name": self.name,
            "ok": self.ok,
            "detail": self.detail,
            "value": _rounded(self.value),
            "limit": self.limit,
            "unit": self.unit,
        }


def judge(
    states: list[QueueState],
    alive: list[ProcessState],
    *,
    late: Lateness,
    limits: Limits,
) -> list[Check]:
    """Say of each part whether it is well; ``alive`` are all processes that report."""
    checks = [_beat(alive), _schedules(late)]
    for state in states:
        serving = [p for p in alive if p.is_alive and p.serves(state.queue)]
        many = f"{len(serving)} alive" if serving else "none alive that serves it"
        checks.append(Check(f"workers.{state.queue}", bool(serving), many))
        checks.append(_waiting(state, limits))
    unpublished = sum(state.unpublished for state in states)
    found = f"{unpublished} rows wait for a message" if unpublished else "every due row has one"
    checks.append(Check("messages", unpublished == 0, found, unpublished, 0, "rows"))
    return checks


def disk(free_mb: int, limits: Limits) -> Check:
    """Say whether there is room for more pictures."""
    room = f"{free_mb} MiB free where pictures are kept"
    return Check("disk", free_mb >= limits.free_mb, room, free_mb, limits.free_mb, "MiB")


def broken_disk(why: str) -> Check:
    """Say why nobody knows."""
    return Check("disk", ok=False, detail=why)


def _beat(alive: list[ProcessState]) -> Check:
    ages = [process.seen_s for process in alive if process.kind == "beat"]
    if not ages:
        return Check("beat", ok=False, detail="not running; no schedule fires")
    age_s = min(ages)
    detail = f"its loop went round {age_s:.0f} s ago"
    return Check("beat", age_s < BEAT_SILENT_S, detail, age_s, BEAT_SILENT_S, "s")


def _schedules(late: Lateness) -> Check:
    detail = "none is late"
    if late.count:
        detail = f"late: {late.count}, the first ({late.first}) for {late.late_s:.0f} s"
    return Check("schedules", late.count == 0, detail, late.late_s, LATE_AFTER_S, "s")


def _waiting(state: QueueState, limits: Limits) -> Check:
    name = f"queue.{state.queue}"
    if state.oldest_due_s is None:
        return Check(name, ok=True, detail="nothing waits", limit=limits.oldest_due_s, unit="s")
    detail = f"{state.due} wait, the first for {state.oldest_due_s:.0f} s"
    ok = state.oldest_due_s <= limits.oldest_due_s
    if state.is_stalled(limits.stalled_s):
        ok, detail = False, f"{detail}, and nobody works"
    return Check(name, ok, detail, state.oldest_due_s, limits.oldest_due_s, "s")


def queues(session: Session, names: tuple[str, ...], *, job_queue: str) -> list[QueueState]:
    """Give the state of each queue, in this order; jobs wait in ``job_queue``."""
    rows = union_all(
        _unfinished(GenerationJob, literal(job_queue, String), literal(value=False)),
        _unfinished(TaskRun, TaskRun.queue, TaskRun.held_back),
    ).subquery()
    pending = rows.c.status == Status.PENDING
    due = pending & rows.c.is_due
    found = session.execute(
        select(
            rows.c.queue,
            func.count().filter(pending).label("pending"),
            func.count().filter(due).label("due"),
            func.count().filter(rows.c.status == Status.RUNNING).label("running"),
            func.count()
            .filter(due, rows.c.dispatched_at.is_(None), rows.c.age_s > UNPUBLISHED_AFTER_S)
            .label("unpublished"),
            func.max(rows.c.age_s).filter(due).label("oldest_due_s"),
            func.min(rows.c.started_s).label("claimed_s"),
        ).group_by(rows.c.queue)
    )
    states = {
        row.queue: QueueState(
            row.queue,
            row.pending,
            row.due,
            row.running,
            row.unpublished,
            _seconds(row.oldest_due_s),
            _seconds(row.claimed_s),
        )
        for row in found
    }
    empty = {name: QueueState(name, 0, 0, 0, 0, None, None) for name in names}
    return list({**empty, **states}.values())


def _unfinished(model: Any, queue: Any, held_back: Any) -> Select[Any]:
    free = model.cancel_requested_at.is_(None) & ~held_back
    return select(
        queue.label("queue"),
        model.status.label("status"),
        model.dispatched_at.label("dispatched_at"),
        (free & (model.available_at <= func.now())).label("is_due"),
        func.extract("epoch", func.now() - model.available_at).label("age_s"),
        case(
            (
                model.status == Status.RUNNING,
                func.extract("epoch", func.now() - model.started_at),
            )
        ).label("started_s"),
    ).where(model.status.in_(sorted(UNFINISHED)))


def lateness(session: Session) -> Lateness:
    """Say how late schedules are, but for those that are paused or disabled."""
    seen = schedule_clock.look(session)
    if seen.late_s <= LATE_AFTER_S:
        return Lateness(seen.late_s)
    is_late = (
        Schedule.paused_at.is_(None),
        Schedule.next_due_at < seen.now - timedelta(seconds=LATE_AFTER_S),
    )
    count = session.scalars(select(func.count()).select_from(Schedule).where(*is_late)).one()
    first = session.scalar(
        select(Schedule.name).where(*is_late).order_by(Schedule.next_due_at, Schedule.name).limit(1)
    )
    return Lateness(seen.late_s, count, first)


def late_s(row: Schedule, seen: Look) -> float:
    """Say for how long a schedule has been due that may fire; of another: 0."""
    may_fire = row.paused_at is None and seen.next_due_at is not None
    if not may_fire or row.next_due_at is None:
        return 0.0
    return max(0.0, round((seen.now - row.next_due_at).total_seconds(), 1))


@dataclass(frozen=True, slots=True)
class AtWork:
    """A job or a run that a worker works on; of a job, nothing that is its user's alone."""

    kind: str
    id: int
    task: str | None
    worker: str | None
    started_at: datetime | None


def at_work(session: Session, *, limit: int = 100) -> list[AtWork]:
    """List what is worked on, by worker."""
    jobs = select(
        literal("job").label("kind"),
        GenerationJob.id,
        cast(null(), String).label("task"),
        GenerationJob.worker.label("worker"),
        GenerationJob.started_at,
    ).where(GenerationJob.status == Status.RUNNING)
    runs = select(
        literal("run"), TaskRun.id, TaskRun.task, TaskRun.worker, TaskRun.started_at
    ).where(TaskRun.status == Status.RUNNING)
    found = session.execute(union_all(jobs, runs).order_by("worker", "kind", "id").limit(limit))
    return [AtWork(*row) for row in found]


def processes(session: Session) -> list[ProcessState]:
    """Give the workers and beats that report, the longest silent last."""
    age_s = func.extract("epoch", func.now() - Heartbeat.seen_at)
    up_s = func.extract("epoch", func.now() - Heartbeat.started_at)
    rows = session.execute(
        select(Heartbeat.name, Heartbeat.kind, Heartbeat.info, age_s, up_s).order_by(
            Heartbeat.seen_at.desc(), Heartbeat.name
        )
    )
    return [
        ProcessState(name, kind, float(seen), float(up), info)
        for name, kind, info, seen, up in rows
    ]


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
