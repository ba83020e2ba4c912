"""Start what is due: one run per due time, whoever tries, how often and how late.

A schedule moves on and its run is stored in one transaction, so neither is there without the
other. What was due while nothing could start it is accounted for by the first run after that, in
``covers``.
"""

import hashlib
import time
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, GenonautError
from genonaut.db.models import Schedule
from genonaut.db.session import Database, savepoint
from genonaut.domain import runs, schedule_clock, schedule_defaults, schedules
from genonaut.domain.runs import NewRun, Trigger
from genonaut.domain.schedules import Missed, Terms
from genonaut.worker import defaults, discovery, task
from genonaut.worker.reckoning import reckon_after, timing_of
from genonaut.worker.schedule import due_times, next_due

log = structlog.get_logger(__name__)

ACTOR = "beat"
BATCH = 100
MAX_COVERED = 10_000
"""What was passed over is put on one run up to so many due times; more make another."""


def synchronise(database: Database) -> schedule_defaults.Changes:
    """Bring the schedules that the code declares into the database."""
    discovery.load()
    with database.transaction() as session:
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
            rows = schedule_clock.due(session, now, limit=BATCH, after=after)
            if not rows:
                break
            seen = [(row.next_due_at, row.name) for row in rows]
            in_batch = sum(
                _fire(session, row, due_at, now)
                for row, (due_at, _) in zip(rows, seen, strict=True)
                if due_at is not None
            )
        fired += in_batch
        at, name = seen[-1]
        after = (at or now, name)
    return fired


def _fire(session: Session, row: Schedule, due_at: datetime, now: datetime) -> bool:
    try:
        with savepoint(session):
            return _start(session, row, due_at, now)
    except (OperationalError, InterfaceError):
        raise
    except (SQLAlchemyError, ConflictError) as error:
        log.warning("schedule_not_fired", schedule=row.name, reason=str(error)[:500])
        return False
    except GenonautError as error:
        _disable(session, row, due_at, error)
    except Exception as error:
        # Of the task's own code, such as its overlap key: it must not keep the others.
        log.exception("schedule_not_fired", schedule=row.name)
        _disable(session, row, due_at, error)
    return False


def _disable(session: Session, row: Schedule, due_at: datetime, error: Exception) -> None:
    reason = schedules.because(error)
    if schedule_clock.disable(session, row.name, due_at=due_at, reason=reason):
        log.warning("schedule_disabled", schedule=row.name, reason=reason)


def _start(session: Session, row: Schedule, first: datetime, now: datetime) -> bool:
    terms = Terms.of(row)
    timing = timing_of(terms)
    *passed, due_at = due_times(timing, first, now, limit=MAX_COVERED)
    if not schedule_clock.advance(
        session,
        row.name,
        due_at=first,
        last_due_at=due_at,
        next_due_at=next_due(timing, due_at),
    ):
        return False
    request = _request(row.name, terms, due_at, tuple(passed), now)
    late_s = (now - due_at).total_seconds()
    if terms.missed is Missed.SKIP and late_s > terms.late_limit_s:
        reason = f"{late_s:.0f} s late, over the limit of {terms.late_limit_s} s"
        runs.skip(session, request, reason=reason)
    else:
        runs.trigger(session, request)
    return True


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
