"""Start what is due: one run per due time, whoever tries, how often and how late.

A schedule moves on and its run is stored in one transaction, so neither is there without the
other. What was due while nothing could start it is accounted for by the first run after that, in
``covers``.
"""

import hashlib
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, GenonautError
from genonaut.db.models import Schedule
from genonaut.db.session import Database, savepoint
from genonaut.domain import runs, schedule_clock, schedule_defaults, schedules
from genonaut.domain.runs import NewRun, Trigger
from genonaut.domain.schedule_clock import Step
from genonaut.domain.schedules import Missed, Terms
from genonaut.worker import defaults, discovery, task
from genonaut.worker.reckoning import reckon_after, timing_of
from genonaut.worker.schedule import due_times, next_due

log = structlog.get_logger(__name__)

ACTOR = "beat"
BATCH = 100
SHOW_LIFE_S = 1.0
MAX_COVERED = 10_000
"""What was passed over is put on one run up to so many due times; more make another."""


def synchronise(database: Database) -> schedule_defaults.Changes:
    """Bring the schedules that the code declares into the database."""
    discovery.load()
    with database.transaction() as session:
        schedule_clock.give_up_when_frozen(session)
        now = schedule_clock.look(session).now
        changes = schedule_defaults.synchronise(session, defaults.declared(), reckon_after(now))
    log.info("schedules_synchronised", added=changes.added, changed=changes.changed)
    for name, reason in changes.disabled.items():
        log.warning("schedule_disabled", schedule=name, reason=reason)
    return changes


def end_pauses(database: Database, now: datetime) -> int:
    """Resume what was paused until ``now``; give how many."""
    discovery.load()
    with database.transaction() as session:
        schedule_clock.give_up_when_frozen(session)
        ended = schedule_clock.end_pauses(session, now, reckon_after(now), limit=BATCH)
    if ended:
        log.info("schedules_resumed", names=ended)
    return len(ended)


def fire_due(database: Database, now: datetime, *, for_s: float = float("inf")) -> int:
    """Start all that is due at ``now``, the longest due first; give how many runs were stored.

    A batch is a transaction. A schedule that cannot be run is disabled and does not keep the
    others; one that the database refuses is left for the next pass. After ``for_s`` seconds the
    rest is left too.

    Raises: OperationalError: PostgreSQL is away; what was committed stays.
    """
    discovery.load()
    ends_at = time.monotonic() + for_s
    after: tuple[datetime, str] | None = None
    fired = 0
    while time.monotonic() < ends_at:
        with database.transaction() as session:
            schedule_clock.give_up_when_frozen(session)
            rows = schedule_clock.due(session, now, limit=BATCH, after=after)
            if not rows:
                break
            after = (rows[-1].next_due_at or now, rows[-1].name)
            in_batch = _fire_together(session, rows, now)
        fired += in_batch
    return fired


def _fire_together(session: Session, rows: Sequence[Schedule], now: datetime) -> int:
    try:
        with savepoint(session):
            return _start(session, rows, now)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # noqa: BLE001 - of any kind: what is wrong with which, is seen now
        log.info("batch_fired_one_by_one", reason=schedules.because(error)[:200])
    return sum(_fire_alone(session, row, now) for row in rows)


def _fire_alone(session: Session, row: Schedule, now: datetime) -> int:
    try:
        with savepoint(session):
            return _start(session, [row], now)
    except (OperationalError, InterfaceError):
        raise
    except (SQLAlchemyError, ConflictError) as error:
        log.warning("schedule_not_fired", schedule=row.name, reason=str(error)[:500])
    except GenonautError as error:
        _disable(session, row, error)
    except Exception as error:
        # Of the task's own code, such as its overlap key: it must not keep the others.
        log.exception("schedule_not_fired", schedule=row.name)
        _disable(session, row, error)
    return 0


def _disable(session: Session, row: Schedule, error: Exception) -> None:
    reason = schedules.because(error)
    if schedule_clock.disable(session, row.name, due_at=_due_at(row), reason=reason):
        log.warning("schedule_disabled", schedule=row.name, reason=reason)


def _start(session: Session, rows: Sequence[Schedule], now: datetime) -> int:
    """Move schedules on and store the runs of those that were still there to be moved."""
    steps: list[Step] = []
    passed: list[tuple[datetime, ...]] = []
    shown_at = time.monotonic()
    for row in rows:
        # A week of minutes is ten thousand steps, and a hundred such rows take longer than idling.
        if time.monotonic() - shown_at > SHOW_LIFE_S:
            schedule_clock.show_life(session)
            shown_at = time.monotonic()
        timing = timing_of(Terms.of(row))
        *before, last = due_times(timing, _due_at(row), now, limit=MAX_COVERED)
        steps.append(Step(row.name, _due_at(row), last, next_due(timing, last)))
        passed.append(tuple(before))
    moved = schedule_clock.advance(session, steps)
    for row, step, covers in zip(rows, steps, passed, strict=True):
        if row.name in moved:
            _store(session, row, step.last_due_at, covers, now)
    return len(moved)


def _due_at(row: Schedule) -> datetime:
    if row.next_due_at is None:
        raise ConflictError(f"{row.name} is disabled")
    return row.next_due_at


def _store(
    session: Session, row: Schedule, due_at: datetime, covers: tuple[datetime, ...], now: datetime
) -> None:
    terms = Terms.of(row)
    request = _request(row.name, terms, due_at, covers, now)
    late_s = (now - due_at).total_seconds()
    if terms.missed is Missed.SKIP and late_s > terms.late_limit_s:
        reason = f"{late_s:.0f} s late, over the limit of {terms.late_limit_s} s"
        runs.skip(session, request, reason=reason)
    else:
        runs.trigger(session, request)


def _request(
    name: str, terms: Terms, due_at: datetime, passed: tuple[datetime, ...], now: datetime
) -> NewRun:
    definition = task.find(terms.task)
    begins_at = due_at + jitter(name, due_at, terms.jitter_s)
    return definition.request(
        definition.validate(terms.params),
        trigger=Trigger.SCHEDULE,
        overlap=terms.overlap,
        actor=ACTOR,
        schedule=name,
        due_at=due_at,
        covers=passed,
        available_at=begins_at if begins_at > now else None,
    )


def jitter(name: str, due_at: datetime, jitter_s: int) -> timedelta:
    """Give the delay of one run: below ``jitter_s``, evenly spread, always the same for it."""
    key = f"{name} {due_at.timestamp():.0f}".encode()
    number = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big")
    return timedelta(seconds=jitter_s * number / 2**64)
