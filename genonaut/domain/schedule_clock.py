"""Find what is due, and move a schedule on to its next due time, whoever else tries.

The time is a value, read from the database's clock with :func:`look`: machines may disagree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ARRAY,
    DateTime,
    Select,
    Text,
    case,
    cast,
    func,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.orm import Session

from genonaut.db.models import Schedule, SchedulePause
from genonaut.domain.schedules import Reckon, resume_all, resumed, write

_MAY_FIRE = (Schedule.paused_at.is_(None), Schedule.next_due_at.is_not(None))
_ALL_PAUSED = select(SchedulePause.id).exists()
_SHOW_LIFE = text("SELECT 1")
_GIVE_UP_WHEN_FROZEN = text("SET LOCAL idle_in_transaction_session_timeout = '10s'")


@dataclass(frozen=True, slots=True)
class Look:
    """What a glance at the schedules shows.

    ``next_due_at`` is the earliest due time of all that may fire, passed or to come; ``resume_at``
    when the first pause ends.
    """

    now: datetime
    next_due_at: datetime | None
    resume_at: datetime | None

    @property
    def late_s(self) -> float:
        """For how long something has been due."""
        if self.next_due_at is None:
            return 0.0
        return max(0.0, (self.now - self.next_due_at).total_seconds())


@dataclass(frozen=True, slots=True)
class Shown:
    """What a view of all schedules shows of one."""

    name: str
    version: int
    task: str
    cron: str | None
    every_s: int | None
    paused_at: datetime | None
    next_due_at: datetime
    last_due_at: datetime | None


@dataclass(frozen=True, slots=True)
class Step:
    """How a schedule that was due at ``due_at`` moves on."""

    name: str
    due_at: datetime
    last_due_at: datetime
    next_due_at: datetime


def _looking() -> Select[Any]:
    earliest = select(func.min(Schedule.next_due_at)).where(*_MAY_FIRE).scalar_subquery()
    ends = select(func.min(Schedule.paused_until)).where(Schedule.paused_until.is_not(None))
    end_of_all = select(SchedulePause.until)
    return select(
        func.clock_timestamp(),
        case((~_ALL_PAUSED, earliest)),
        func.least(ends.scalar_subquery(), end_of_all.scalar_subquery()),
    )


_LOOKING = _looking()


def look(session: Session) -> Look:
    """Read the clock and what is next: one statement, whose cost the number of rows is not."""
    return Look(*session.execute(_LOOKING).one())


def give_up_when_frozen(session: Session) -> None:
    """Have PostgreSQL end this transaction if its process stops for some seconds.

    What it holds would be kept from the beat that takes over.
    """
    session.execute(_GIVE_UP_WHEN_FROZEN)


def show_life(session: Session) -> None:
    """Say to PostgreSQL that this process goes on, while it reckons."""
    session.execute(_SHOW_LIFE)


def count(session: Session) -> dict[str, int]:
    """Count the schedules, and those paused and disabled among them."""
    row = session.execute(
        select(
            func.count().label("schedules"),
            func.count(Schedule.paused_at).label("paused"),
            func.count(Schedule.disabled_reason).label("disabled"),
        )
    ).one()
    return dict(row._mapping)


def to_show(session: Session) -> list[Shown]:
    """List every schedule that is not disabled, by name."""
    rows = session.execute(
        select(
            Schedule.name,
            Schedule.version,
            Schedule.task,
            Schedule.cron,
            Schedule.every_s,
            Schedule.paused_at,
            Schedule.next_due_at,
            Schedule.last_due_at,
        )
        .where(Schedule.next_due_at.is_not(None))
        .order_by(Schedule.name)
    )
    return [Shown(**row._mapping) for row in rows]


def due(
    session: Session, now: datetime, *, limit: int, after: tuple[datetime, str] | None = None
) -> list[Schedule]:
    """Hold what is due, the longest due first, unless someone else holds it.

    ``after`` is the ``(next_due_at, name)`` of the last one seen.
    """
    position = tuple_(Schedule.next_due_at, Schedule.name)
    query = select(Schedule).where(*_MAY_FIRE, Schedule.next_due_at <= now, ~_ALL_PAUSED)
    if after is not None:
        query = query.where(position > after)
    return list(
        session.scalars(
            query.order_by(Schedule.next_due_at, Schedule.name)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .execution_options(populate_existing=True)
        )
    )


def advance(session: Session, steps: Sequence[Step]) -> set[str]:
    """Move schedules on from their due times; give the names of those that were still there.

    One that was moved already, by whomever, or that is paused is left alone. Only who is told its
    name may start it: of two who try at once, one is.
    """
    times = ARRAY(DateTime(True))
    taken = func.unnest(
        cast([step.name for step in steps], ARRAY(Text)),
        cast([step.due_at for step in steps], times),
        cast([step.last_due_at for step in steps], times),
        cast([step.next_due_at for step in steps], times),
    ).table_valued("name", "due_at", "last_due_at", "next_due_at")
    step = taken.render_derived(name="step")
    moved = session.scalars(
        update(Schedule)
        .where(Schedule.name == step.c.name, Schedule.next_due_at == step.c.due_at, *_MAY_FIRE)
        .values(next_due_at=step.c.next_due_at, last_due_at=step.c.last_due_at)
        .execution_options(synchronize_session=False)
        .returning(Schedule.name)
    )
    return set(moved)


def disable(session: Session, name: str, *, due_at: datetime, reason: str) -> bool:
    """Take a schedule that cannot be run out of the running; false when it was changed meanwhile.

    ``due_at`` is when it was due.
    """
    values: dict[str, Any] = {"next_due_at": None, "disabled_reason": reason}
    return write(session, name, [Schedule.next_due_at == due_at], **values) is not None


def end_pauses(session: Session, now: datetime, reckon: Reckon, *, limit: int) -> list[str]:
    """Resume what was paused until ``now`` or earlier; give the names, ``*`` for the pause of all.

    At most ``limit`` at once; what someone else holds is left for later.
    """
    ended = []
    over = select(SchedulePause.id).where(SchedulePause.until <= now).with_for_update()
    if session.scalar(over) is not None:
        resume_all(session, reckon, now=now)
        ended.append("*")
    rows = session.scalars(
        select(Schedule)
        .where(Schedule.paused_until <= now)
        .order_by(Schedule.paused_until)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .execution_options(populate_existing=True)
    ).all()
    for row in rows:
        write(session, row.name, (), **resumed(row, reckon))
        ended.append(row.name)
    return ended
