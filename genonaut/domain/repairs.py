"""Find rows that are stuck and move them on, a rule at a time; keep the record of it.

A rule says which rows are stale, since when, what becomes of one, and how. The same rule answers
what is stale now (:func:`look`) and moves it on (:func:`sweep`), so that what is shown is what
would be done. The rules are in ``domain/reaping.py`` and ``domain/run_reaping.py``.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeAlias, TypeVar

import structlog
from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, literal, select
from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.db.models import Base, Repair
from genonaut.db.session import savepoint
from genonaut.domain.lifecycle import Status

log = structlog.get_logger(__name__)

BATCH = 200
FORGET_AFTER = timedelta(days=30)
MESSAGE_LOST = "message_lost"
UNPUBLISHED = "unpublished"
"""What a row is whose message the broker had lost, and one that it never had a message for."""

_REFUSED_FOR_ONE_ROW = {"40001", "40P01"}  # serialization failure, deadlock: known at once

Row = TypeVar("Row", bound=Base)
Conditions: TypeAlias = tuple[ColumnElement[bool], ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """When a row counts as stuck; times in seconds.

    ``run_limits_s`` are the hard limits of the tasks there are, under every name they have.
    """

    lease_grace_s: float
    stuck_grace_s: float
    job_limit_s: float
    run_limits_s: Mapping[str, float]
    unknown_after_s: float
    retry_backoff_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a stale row, and why."""

    becomes: Status
    why: str


@dataclass(frozen=True, slots=True)
class Stale:
    """A row that is stuck: by which rule, for how long, seconds, why, and what becomes of it.

    ``id`` is None for something that has no row, such as a key in Redis.
    """

    rule: str
    kind: str
    id: int | None
    what: str
    stale_s: float
    why: str
    becomes: str
    worker: str | None = None

    @property
    def full_name(self) -> str:
        """Name its rule among all, ``kind.rule``."""
        return f"{self.kind}.{self.rule}"

    def public(self) -> dict[str, Any]:
        """Give what auditors see, ready for JSON."""
        return {
            "rule": self.rule,
            "kind": self.kind,
            "id": self.id,
            "what": self.what,
            "worker": self.worker,
            "stale_s": round(self.stale_s, 1),
            "why": self.why,
            "becomes": self.becomes,
        }


@dataclass(frozen=True, slots=True)
class Rule(Generic[Row]):
    """One way of being stuck.

    Args:
        name: what the record calls it.
        kind: as in the events of these rows.
        model: their table.
        is_stale: what holds for a stale row; indexed, so that finding none is cheap.
        since: when it became stale.
        judge: what becomes of one, and why.
        act: moves one on, and gives the state it is in then; may raise ConflictError.
        what: names one for people.
        give_back: moves on at once those that become pending, and gives their ids; many are lost
            together when a machine dies.
        takes_from_holders: whether it waits until holders could renew their leases after an outage.
    """

    name: str
    kind: str
    model: type[Row]
    is_stale: Callable[[Limits], Conditions]
    since: Callable[[Limits], ColumnElement[Any]]
    judge: Callable[[Row, Limits], Verdict]
    act: Callable[[Session, Row, Conditions, Verdict, Limits], Status]
    what: Callable[[Row], str]
    give_back: Callable[[Session, list[Row], Conditions], list[int]] | None = None
    takes_from_holders: bool = False

    @property
    def full_name(self) -> str:
        """Name the rule among all, ``kind.rule``."""
        return f"{self.kind}.{self.name}"

    def finds_any(self, limits: Limits) -> ColumnElement[bool]:
        """Say whether anything is stale."""
        return select(literal(1)).select_from(self.model).where(*self.is_stale(limits)).exists()

    def found(self, limits: Limits, *, after: int = 0) -> Select[Any]:
        """Select the stale rows after the id ``after``, oldest first, and how long they are."""
        model: Any = self.model
        stale_s = func.extract("epoch", func.now() - self.since(limits))
        return (
            select(model, stale_s)
            .where(*self.is_stale(limits), *((model.id > after,) if after else ()))
            .order_by(model.id)
        )

    def describe(self, row: Row, stale_s: float | None, limits: Limits) -> Stale:
        """Say of a stale row what there is to say."""
        verdict = self.judge(row, limits)
        subject: Any = row
        return Stale(
            rule=self.name,
            kind=self.kind,
            id=subject.id,
            what=self.what(row),
            stale_s=max(0.0, float(stale_s or 0)),
            why=verdict.why,
            becomes=verdict.becomes,
            worker=subject.worker,
        )


def cancel_is_left(model: Any) -> Conditions:
    """Say which rows nobody is left to cancel; the one who had them gave them back."""
    return (model.status == Status.PENDING, model.cancel_requested_at.is_not(None))


def judge_left(_: Base, __: Limits) -> Verdict:
    """Cancel what :func:`cancel_is_left` finds."""
    return Verdict(Status.CANCELLED, "its cancel was requested, and no worker has it")


def lease_has_ended(model: Any, limits: Limits) -> Conditions:
    """Say which rows' workers are gone: they did not renew their lease, and its grace is over."""
    return (
        model.status == Status.RUNNING,
        model.lease_expires_at < func.now() - timedelta(seconds=limits.lease_grace_s),
    )


def judge_lost(row: Any, *, goes_on: bool) -> Verdict:
    """Cancel what was to be cancelled; of the rest, try again what ``goes_on``, else fail it."""
    lost = f"worker {row.worker} lost, attempt {row.attempt} of {row.max_attempts}"
    if row.cancel_requested_at is not None:
        return Verdict(Status.CANCELLED, lost)
    if goes_on:
        return Verdict(Status.PENDING, lost)
    return Verdict(Status.FAILED, f"{lost}; no attempts are left")


DUE_AGAIN: dict[str, Any] = {
    "available_at": func.now(),
    "dispatched_at": None,
    "dispatch_epoch": None,
}
"""Columns of a row that is given back, to be published and claimed anew."""


def queued(model: Any) -> ColumnElement[Any]:
    """Give the progress of a row that is given back since its worker is lost; says that."""
    why = func.format(
        "worker %s lost, attempt %s of %s", model.worker, model.attempt, model.max_attempts
    )
    return func.jsonb_build_object("phase", "queued", "reason", why)


def is_overtime(model: Any, ends_at: ColumnElement[Any]) -> Conditions:
    """Say which rows a worker holds on to, though the task should have been killed long ago."""
    return (
        model.status == Status.RUNNING,
        model.lease_expires_at >= func.now(),
        ends_at < func.now(),
    )


def overtime(row: Any, limit_s: float) -> str:
    """Say why such a row is taken away."""
    return f"worker {row.worker} did not end it at its limit of {limit_s:.0f} seconds"


@dataclass(frozen=True, slots=True)
class Swept:
    """What one batch did; ``last_id`` is where the next goes on, None when this was the last."""

    done: tuple[Stale, ...]
    last_id: int | None


def look(session: Session, rule: Rule[Any], limits: Limits, *, limit: int) -> list[Stale]:
    """List what the rule finds stale, oldest first; nothing is changed."""
    rows = session.execute(rule.found(limits).limit(limit)).all()
    return [rule.describe(row, stale_s, limits) for row, stale_s in rows]


def question(asked: Mapping[str, ColumnElement[bool]]) -> Select[Any]:
    """Ask several things in one statement, for :func:`answer`; build it once, and ask it often."""
    columns: list[Any] = [condition.label(name) for name, condition in asked.items()]
    return select(*columns)


def answer(connection: Connection | Session, asked: Select[Any], **values: Any) -> frozenset[str]:
    """Give the names of what is so; ``values`` are those of the question's parameters."""
    found = connection.execute(asked, values).one()
    return frozenset(name for name, is_so in found._mapping.items() if is_so)


def count(session: Session, rule: Rule[Any], limits: Limits) -> int:
    """Count what the rule finds stale."""
    model: Any = rule.model
    stale = select(model.id).where(*rule.is_stale(limits))
    return session.scalars(select(func.count()).select_from(stale.subquery())).one()


def sweep(
    session: Session, rule: Rule[Any], limits: Limits, *, after: int = 0, limit: int = BATCH
) -> Swept:
    """Move on a batch of what the rule finds stale, and put it on record.

    Safe in several processes at once: a row that another works on is left to it, and one that has
    moved meanwhile, or that the database refuses, does not stop the others. Calling it again with
    ``last_id`` passes those by.
    """
    model: Any = rule.model
    rows = session.execute(
        rule.found(limits, after=after).limit(limit).with_for_update(of=model, skip_locked=True)
    ).all()
    when = rule.is_stale(limits)
    stale = {row.id: rule.describe(row, stale_s, limits) for row, stale_s in rows}
    became: dict[int, str] = dict.fromkeys(
        _give_back(session, rule, [row for row, _ in rows], when, limits), Status.PENDING
    )
    for row, _ in rows:
        if row.id not in became:
            with _or_skip(session, rule, row.id):
                became[row.id] = rule.act(session, row, when, rule.judge(row, limits), limits)
    done = [replace(stale[row_id], becomes=became[row_id]) for row_id in stale if row_id in became]
    for one in done:
        log.warning(
            "reaped", rule=one.rule, kind=one.kind, id=one.id, why=one.why, became=one.becomes
        )
    record(session, done)
    return Swept(tuple(done), rows[-1][0].id if len(rows) == limit else None)


def _give_back(
    session: Session, rule: Rule[Any], rows: list[Any], when: Conditions, limits: Limits
) -> list[int]:
    """Move on together what becomes pending; nothing, if the database refuses one of them."""
    if rule.give_back is None:
        return []
    pending = [row for row in rows if rule.judge(row, limits).becomes is Status.PENDING]
    if len(pending) < 2:
        return []
    moved: list[int] = []
    with _or_skip(session, rule, None):
        moved += rule.give_back(session, pending, when)
    return moved


@contextmanager
def _or_skip(session: Session, rule: Rule[Any], row_id: int | None) -> Iterator[None]:
    """Give the block a savepoint; a row that has moved, or that the database refuses, is left."""
    try:
        with savepoint(session):
            yield
    except (ConflictError, NotFoundError):
        log.info("reap_skipped", rule=rule.name, kind=rule.kind, id=row_id)
    except DBAPIError as error:
        if not _is_about_one_row(error):
            raise
        log.exception("reap_failed", rule=rule.name, kind=rule.kind, id=row_id)
    except SQLAlchemyError:
        raise
    except Exception:  # a mistake of ours about one row must not keep all others from help
        log.exception("reap_failed", rule=rule.name, kind=rule.kind, id=row_id)


def _is_about_one_row(error: DBAPIError) -> bool:
    """Whether the connection serves on; whoever waited for our lock as we for its may have won."""
    if error.connection_invalidated:
        return False
    code = getattr(error.orig, "pgcode", None)
    return code in _REFUSED_FOR_ONE_ROW or not isinstance(error, OperationalError)


def record(session: Session, done: Sequence[Stale], *, at: datetime | None = None) -> None:
    """Put on record what was done, now or at the moment that is given."""
    if done:
        session.execute(
            insert(Repair),
            [
                {
                    "rule": stale.rule,
                    "kind": stale.kind,
                    "row_id": stale.id,
                    "worker": stale.worker,
                    "became": stale.becomes,
                    "why": stale.why,
                    **({} if at is None else {"at": at}),
                }
                for stale in done
            ],
        )


def record_count(
    session: Session, rule: str, kind: str, number: int, *, became: str, why: str
) -> None:
    """Put on record what was done to ``number`` things at once; nothing for none."""
    if number:
        values = {"rule": rule, "kind": kind, "count": number, "became": became, "why": why}
        session.execute(insert(Repair).values(**values))


def recent(session: Session, *, limit: int) -> list[Repair]:
    """List what was done last, newest first."""
    return list(session.scalars(select(Repair).order_by(Repair.id.desc()).limit(limit)))


def told_of(session: Session, kind: str, row_id: int) -> list[Repair]:
    """List what was done to one row, oldest first."""
    query = select(Repair).where(Repair.kind == kind, Repair.row_id == row_id)
    return list(session.scalars(query.order_by(Repair.id)))


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was done after one record, up to ``through``, the last one there is; counts by name."""

    through: int
    counts: dict[str, int]


def since(session: Session, through: int) -> Ledger:
    """Count what was done after the record ``through``, by ``kind.rule``."""
    rows = session.execute(
        select(Repair.kind, Repair.rule, func.sum(Repair.count), func.max(Repair.id))
        .where(Repair.id > through)
        .group_by(Repair.kind, Repair.rule)
        .order_by(Repair.kind, Repair.rule)
    ).all()
    return Ledger(
        max((last for *_, last in rows), default=through),
        {f"{kind}.{rule}": int(number) for kind, rule, number, _ in rows},
    )


def by_name(stale: Iterable[Stale]) -> dict[str, int]:
    """Count what is stale by ``kind.rule``."""
    counts: dict[str, int] = {}
    for one in stale:
        counts[one.full_name] = counts.get(one.full_name, 0) + 1
    return dict(sorted(counts.items()))


def public(repair: Repair) -> dict[str, Any]:
    """Give what auditors see of a record, ready for JSON."""
    return {
        "at": repair.at.isoformat(),
        "rule": repair.rule,
        "kind": repair.kind,
        "id": repair.row_id,
        "count": repair.count,
        "worker": repair.worker,
        "became": repair.became,
        "why": repair.why,
    }


def forget_old(session: Session) -> None:
    """Drop records older than a month."""
    session.execute(delete(Repair).where(Repair.at < func.now() - FORGET_AFTER))
