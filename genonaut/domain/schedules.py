"""Schedules: what they are, and what operators do to them.

When a schedule is due is reckoned by the worker, which knows the tasks and the calendar: it gives
due times as values, or as a :data:`Reckon`. Nothing that is done here makes up for a due time that
has passed: what is made, changed in its timing or resumed is due after now.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

from sqlalchemy import ARRAY, ColumnElement, DateTime, Text, cast, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, GenonautError, InvalidInputError, NotFoundError
from genonaut.core.text import storable
from genonaut.db.models import Schedule, SchedulePause
from genonaut.domain.runs import MAX_REASON, Overlap

MAX_CRON = 255
MAX_JITTER_S = 24 * 3600
MAX_LATE_S = 366 * 24 * 3600

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class Missed(StrEnum):
    """What becomes of due times at which nothing could be started."""

    RUN_ONCE = "run_once"
    SKIP = "skip"


class Source(StrEnum):
    """Who made a schedule."""

    CODE = "code"
    OPERATOR = "operator"


class StaleVersionError(ConflictError):
    """It was changed meanwhile; look at it again."""

    code = "stale_version"
    http_status = 412


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a schedule runs, and when: all that the code declares and an operator may edit.

    ``overlap`` None leaves it to the task. With ``missed`` as ``skip``, nothing is run for a due
    time that is over ``late_limit_s`` late. ``jitter_s`` is by how much a run may begin later.
    """

    task: str
    params: dict[str, Any] = field(default_factory=dict)
    cron: str | None = None
    every_s: int | None = None
    anchor_at: datetime | None = None
    timezone: str = "UTC"
    overlap: Overlap | None = None
    missed: Missed = Missed.RUN_ONCE
    late_limit_s: int = 300
    jitter_s: int = 0

    @classmethod
    def of(cls, row: Schedule) -> Self:
        """Give those of a row."""
        return cls(
            task=row.task,
            params=row.params,
            cron=row.cron,
            every_s=row.every_s,
            anchor_at=row.anchor_at,
            timezone=row.timezone,
            overlap=Overlap(row.overlap) if row.overlap else None,
            missed=Missed(row.missed),
            late_limit_s=row.late_limit_s,
            jitter_s=row.jitter_s,
        )

    @property
    def timing(self) -> tuple[Any, ...]:
        """What decides when it is due."""
        return (self.cron, self.every_s, self.anchor_at, self.timezone)

    def columns(self) -> dict[str, Any]:
        """Give the columns of a row."""
        return {
            "task": self.task,
            "params": self.params,
            "cron": self.cron,
            "every_s": self.every_s,
            "anchor_at": self.anchor_at,
            "timezone": self.timezone,
            "overlap": self.overlap,
            "missed": self.missed,
            "late_limit_s": self.late_limit_s,
            "jitter_s": self.jitter_s,
        }

    def public(self) -> dict[str, Any]:
        """Give them ready for JSON."""
        return {**self.columns(), "anchor_at": _iso(self.anchor_at)}

    def check(self) -> None:
        """Check what needs neither the calendar nor the task.

        Raises: InvalidInputError: naming the field.
        """
        if self.cron is not None and len(self.cron) > MAX_CRON:
            raise InvalidInputError(f"a cron has at most {MAX_CRON} characters", field="cron")
        if not 0 <= self.late_limit_s <= MAX_LATE_S:
            raise InvalidInputError(f"late_limit_s is 0 to {MAX_LATE_S}", field="late_limit_s")
        if not 0 <= self.jitter_s <= MAX_JITTER_S:
            raise InvalidInputError(f"jitter_s is 0 to {MAX_JITTER_S}", field="jitter_s")


Reckon = Callable[[Terms], datetime]
"""Gives the first due time after now; raises GenonautError for what cannot be run."""


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def public(row: Schedule) -> dict[str, Any]:
    """Give what auditors and operators see, ready for JSON.

    ``last_due_at`` is None for one that never ran; ``next_due_at`` while it is disabled or paused.
    """
    return {
        "name": row.name,
        **Terms.of(row).public(),
        "last_due_at": _iso(row.last_due_at),
        "next_due_at": _iso(row.next_due_at) if row.paused_at is None else None,
        "disabled_reason": row.disabled_reason,
        "paused": (
            {
                "at": _iso(row.paused_at),
                "by": row.paused_by,
                "reason": row.pause_reason,
                "until": _iso(row.paused_until),
            }
            if row.paused_at
            else None
        ),
        "source": row.source,
        "code_default": row.code_default,
        "is_edited": row.is_edited,
        "version": row.version,
        "created_at": _iso(row.created_at),
        "updated_at": _iso(row.updated_at),
    }


def check_name(name: str) -> None:
    """Check that a schedule may have this name.

    Raises: InvalidInputError: it has other characters than a URL's path segment takes, or too many.
    """
    if not _NAME.fullmatch(name):
        raise InvalidInputError(
            "a name has 1 to 100 of a-z, 0-9, '.', '_' and '-', and begins with a letter or digit",
            field="name",
        )


def one(session: Session, name: str, *, hold: bool = False) -> Schedule:
    """Give a schedule; with ``hold``, nobody else changes it before the transaction ends.

    Raises: NotFoundError: there is no such schedule.
    """
    query = select(Schedule).where(Schedule.name == name)
    query = query.with_for_update() if hold else query
    row = session.scalars(query.execution_options(populate_existing=True)).one_or_none()
    if row is None:
        raise NotFoundError("there is no such schedule")
    return row


def list_schedules(
    session: Session, *, tasks: Sequence[str] = (), after: str | None = None, limit: int = 100
) -> list[Schedule]:
    """List schedules by name, after the name ``after``."""
    query = select(Schedule)
    if tasks:
        query = query.where(Schedule.task.in_(tasks))
    if after is not None:
        query = query.where(Schedule.name > after)
    return list(session.scalars(query.order_by(Schedule.name).limit(limit)))


def create(session: Session, name: str, terms: Terms, *, next_due_at: datetime) -> Schedule:
    """Store an operator's schedule.

    Raises:
        InvalidInputError: the name or a value is wrong.
        ConflictError: the name is taken.
    """
    check_name(name)
    terms.check()
    row = insert_new(session, name, terms, source=Source.OPERATOR, next_due_at=next_due_at)
    if row is None:
        raise ConflictError(f"there is a schedule {name} already", code="name_taken")
    return row


def insert_new(session: Session, name: str, terms: Terms, **values: Any) -> Schedule | None:
    """Store a schedule; None when the name is taken."""
    return session.scalars(
        insert(Schedule)
        .values(name=name, **terms.columns(), **values)
        .on_conflict_do_nothing()
        .returning(Schedule)
        .execution_options(populate_existing=True)
    ).one_or_none()


def write(
    session: Session, name: str, when: Sequence[ColumnElement[bool]], **values: Any
) -> Schedule | None:
    """Change a row that ``when`` holds for, as a new version; None where it does not."""
    return session.scalars(
        update(Schedule)
        .where(Schedule.name == name, *when)
        .values(version=Schedule.version + 1, updated_at=func.now(), **values)
        .returning(Schedule)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).one_or_none()


def change(
    session: Session, name: str, terms: Terms, *, version: int, next_due_at: datetime
) -> Schedule:
    """Store an operator's edit, made on ``version``.

    ``next_due_at`` counts if the timing is another, or if the schedule was disabled. A schedule
    that the code has given up becomes the operator's own; one that is put back to what the code
    says follows the code again.

    Raises:
        InvalidInputError: a value is wrong.
        NotFoundError: there is no such schedule.
        StaleVersionError: it was changed since.
    """
    terms.check()
    row = one(session, name)
    values = terms.columns()
    if row.code_default is None:
        values |= {"source": Source.OPERATOR, "is_edited": False}
    else:
        values["is_edited"] = terms.public() != row.code_default
    if row.next_due_at is None or Terms.of(row).timing != terms.timing:
        values |= {"next_due_at": next_due_at, "disabled_reason": None}
    if row.version != version:
        raise StaleVersionError
    changed = write(session, name, [Schedule.version == version], **values)
    if changed is None:
        raise StaleVersionError
    return changed


def remove(session: Session, name: str, *, version: int | None = None) -> None:
    """Remove an operator's schedule; its runs stay.

    Raises:
        NotFoundError: there is no such schedule.
        ConflictError: the code declares it, and would bring it back.
        StaleVersionError: it was changed since ``version``.
    """
    row = one(session, name)
    if row.code_default is not None:
        raise ConflictError(
            f"{name} is declared in the code, which would bring it back: pause it instead",
            code="declared_in_code",
        )
    removed = session.execute(
        delete(Schedule)
        .where(Schedule.name == name, Schedule.version == (version or row.version))
        .execution_options(synchronize_session=False)
        .returning(Schedule.name)
    )
    if removed.first() is None:
        raise StaleVersionError


def pause(
    session: Session,
    name: str,
    *,
    actor: str,
    now: datetime,
    reason: str | None = None,
    until: datetime | None = None,
) -> Schedule:
    """Let a schedule rest, for good or ``until`` then; again: with a new reason and end.

    Raises:
        InvalidInputError: ``until`` is not after ``now``.
        NotFoundError: there is no such schedule.
    """
    row = write(
        session,
        name,
        (),
        paused_at=func.coalesce(Schedule.paused_at, func.now()),
        paused_by=actor,
        pause_reason=_reason(reason),
        paused_until=_end(until, now),
    )
    if row is None:
        raise NotFoundError("there is no such schedule")
    return row


def resume(session: Session, name: str, reckon: Reckon) -> Schedule:
    """End a pause; a schedule that is not paused is left as it is.

    Raises:
        NotFoundError: there is no such schedule.
        StaleVersionError: it was changed at this moment.
    """
    row = one(session, name)
    if row.paused_at is None:
        return row
    changed = write(session, name, [Schedule.version == row.version], **resumed(row, reckon))
    if changed is None:
        raise StaleVersionError
    return changed


def resumed(row: Schedule, reckon: Reckon) -> dict[str, Any]:
    """Give the columns of ``row`` with its pause ended; one that is disabled stays so."""
    ended = {"paused_at": None, "paused_by": None, "pause_reason": None, "paused_until": None}
    return ended if row.disabled_reason is not None else {**ended, **judged(Terms.of(row), reckon)}


def judged(terms: Terms, reckon: Reckon) -> dict[str, Any]:
    """Give the columns that say when ``terms`` are due, or why they cannot be run."""
    try:
        return {"next_due_at": reckon(terms), "disabled_reason": None}
    except GenonautError as error:
        return {"next_due_at": None, "disabled_reason": because(error)}


def because(error: Exception) -> str:
    """Give the reason to store."""
    return storable(str(error) or type(error).__name__)[:MAX_REASON]


def pause_all(
    session: Session,
    *,
    actor: str,
    now: datetime,
    reason: str | None = None,
    until: datetime | None = None,
) -> SchedulePause:
    """Let every schedule rest, whatever is made or resumed meanwhile.

    Raises: InvalidInputError: ``until`` is not after ``now``.
    """
    values = {"paused_by": actor, "reason": _reason(reason), "until": _end(until, now)}
    return session.scalars(
        insert(SchedulePause)
        .values(**values)
        .on_conflict_do_update(index_elements=["id"], set_=values)
        .returning(SchedulePause)
        .execution_options(populate_existing=True)
    ).one()


def pause_of_all(session: Session) -> SchedulePause | None:
    """Give the pause of all schedules, if it is on."""
    return session.scalars(
        select(SchedulePause).execution_options(populate_existing=True)
    ).one_or_none()


def public_pause(pause: SchedulePause) -> dict[str, Any]:
    """Give the pause of all schedules ready for JSON, like that of one."""
    return {
        "at": _iso(pause.paused_at),
        "by": pause.paused_by,
        "reason": pause.reason,
        "until": _iso(pause.until),
    }


def resume_all(session: Session, reckon: Reckon, *, now: datetime) -> bool:
    """End the pause of all schedules; false when there was none.

    Those paused by themselves stay so.
    """
    ended = session.execute(delete(SchedulePause).returning(SchedulePause.id))
    if ended.first() is None:
        return False
    passed = session.scalars(
        select(Schedule)
        .where(Schedule.paused_at.is_(None), Schedule.next_due_at <= now)
        .order_by(Schedule.name)  # the order of all who lock several
        .with_for_update()
    ).all()
    times: dict[str, datetime] = {}
    for row in passed:
        verdict = judged(Terms.of(row), reckon)
        if verdict["next_due_at"] is None:
            write(session, row.name, (), **verdict)
        else:
            times[row.name] = verdict["next_due_at"]
    _set_next(session, times)
    return True


def _set_next(session: Session, times: dict[str, datetime]) -> None:
    unnested = func.unnest(
        cast(list(times), ARRAY(Text)), cast(list(times.values()), ARRAY(DateTime(True)))
    ).table_valued("name", "at")
    wanted = unnested.render_derived(name="wanted")
    session.execute(
        update(Schedule)
        .where(Schedule.name == wanted.c.name)
        .values(next_due_at=wanted.c.at)
        .execution_options(synchronize_session=False)
    )


def _reason(reason: str | None) -> str | None:
    return storable(reason)[:MAX_REASON] if reason else None


def _end(until: datetime | None, now: datetime) -> datetime | None:
    if until is not None and (until.tzinfo is None or until <= now):
        raise InvalidInputError("until is a time to come, with its zone", field="until")
    return until
