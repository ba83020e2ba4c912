"""Remove what is past its age, a batch at a time, and never what something else still needs.

A :class:`Rule` says which rows of a table go, and by which moment of theirs; all there are are in
``domain/retention_rules.py``. A batch is one short transaction: it locks the oldest rows that
nobody else holds, looks again which of them may go, and deletes those. Rows that stay are passed
over, so that a batch reads no more rows than it may lock.

A run goes only after every run that names it, as the one that started it or that it repeats. The
one that names is always the younger, so runs go youngest first, and a chain of them in one walk.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from time import monotonic
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Select,
    Tuple,
    and_,
    cast,
    delete,
    func,
    or_,
    select,
    text,
    true,
    tuple_,
)
from sqlalchemy.dialects.postgresql import array
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import InstrumentedAttribute, Session

from genonaut.db.models import Base
from genonaut.domain.users import audit

MAX_BATCH = 1000
MAX_COUNTED = 1_000_000
"""Counting stops here: it is for people, and must not take longer than a statement may."""

# What is found by an index takes milliseconds, however many rows there are. Whoever waits for a row
# need not wait for the disk too: a batch that a crash takes back is removed once more.
_SHORT = text(
    "SET LOCAL statement_timeout = '150ms'; SET LOCAL lock_timeout = '100ms';"
    " SET LOCAL idle_in_transaction_session_timeout = '2s';"
    " SET LOCAL synchronous_commit = off;"
    " SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off;"
    " SET LOCAL enable_mergejoin = off"
)
_OUT_OF_TIME = {"57014", "55P03"}  # query_canceled, lock_not_available

# How long a batch may have held its locks when it begins its next statement. With that statement
# it is below half a second, which is what whoever waits for a row can be expected to wait.
_HOLD_S = 0.2


class SlowBatchError(Exception):
    """A batch held its locks too long, and is to be undone."""


class Kind(StrEnum):
    """What is removed, as operators know it."""

    READ_NOTIFICATIONS = "read_notifications"
    UNREAD_NOTIFICATIONS = "unread_notifications"
    DELIVERIES = "deliveries"
    TIMELINES = "timelines"
    RUNS = "runs"
    AUDIT = "audit"
    TOKENS = "tokens"
    SESSIONS = "sessions"
    IDEMPOTENCY_KEYS = "idempotency_keys"
    WEBHOOK_RECEIPTS = "webhook_receipts"


Cursor = tuple[Any, ...]
"""The place of a row in its rule's order."""

Keys = Sequence[Any]

Condition = Callable[["Rule", Keys | None], ColumnElement[bool]]
"""Gives what holds for a row that stays; of use for the rows with these keys, None: for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Which rows go.

    Args:
        kind: what they are called.
        model: their table.
        at: the moment that their age counts from; a row without one stays.
        age: how old they become.
        when: what else must hold, as the index on ``at`` has it.
        unless: what keeps a row that is old enough.
        named_by: columns of the table itself that name another of its rows, which then stays.
        kept_by: columns of other tables that name one, which then stays; an alias of the table
            itself is another one, and what it names goes in the walk after.
        parts: rows that belong to one and go with it, by the column that names it.
        is_audited: whether each batch is told of in the audit log.
    """

    kind: Kind
    model: type[Base]
    at: ColumnElement[Any] | InstrumentedAttribute[Any]
    age: timedelta
    when: tuple[ColumnElement[bool], ...] = ()
    unless: Condition | None = None
    named_by: tuple[InstrumentedAttribute[Any], ...] = ()
    kept_by: tuple[InstrumentedAttribute[Any], ...] = ()
    parts: Mapping[str, InstrumentedAttribute[Any]] = field(default_factory=dict)
    is_audited: bool = False

    @property
    def is_old(self) -> ColumnElement[bool]:
        """The condition that a row is past its age, which an index answers."""
        return and_(self.at < func.now() - self.age, *self.when)

    @property
    def columns(self) -> tuple[ColumnElement[Any], ...]:
        """The table's primary key."""
        return tuple(self.model.__table__.primary_key)

    @property
    def key(self) -> ColumnElement[Any]:
        """What tells its rows apart."""
        key: ColumnElement[Any] = _one(self.columns, tuple_)
        return key

    @property
    def order(self) -> tuple[Any, ...]:
        """In which order they go: the oldest first, but those that name others before these."""
        return self.columns if self.named_by else (self.at, *self.columns)


@dataclass(frozen=True, slots=True)
class Step:
    """What a batch removed, by kind, whether it was the last, and where the next one begins."""

    removed: dict[str, int]
    is_last: bool
    after: Cursor | None = None


def _one(parts: Sequence[Any], join: Callable[..., Any]) -> Any:
    return parts[0] if len(parts) == 1 else join(*parts)


def _goes(rule: Rule) -> ColumnElement[bool]:
    goes = rule.is_old if rule.unless is None else and_(rule.is_old, ~rule.unless(rule, None))
    for column in rule.kept_by:
        goes = and_(goes, ~select(column).where(column == rule.key).exists())
    if not rule.named_by:
        return goes
    names = func.unnest(array(list(rule.named_by))).label("key")
    is_naming = or_(*(column.is_not(None) for column in rule.named_by))
    # What a row that stays names, and what that names, and so on.
    named = select(names).where(goes.is_not(true()), is_naming).cte(recursive=True)
    named = named.union(select(names).join(named, named.c.key == rule.key))
    return and_(goes, ~select(named.c.key).where(named.c.key == rule.key).exists())


def _going(session: Session, rule: Rule, keys: Keys) -> list[Any]:
    """Give those of some locked old rows that go."""
    going = set(keys)
    if rule.unless is not None:
        stays = select(rule.key).where(among(rule.key, keys), rule.unless(rule, keys))
        going -= set(session.scalars(stays))
    for column in rule.kept_by:
        going -= set(session.scalars(select(column).where(among(column, keys))))
    if rule.named_by:
        is_naming = or_(*(among(column, keys) for column in rule.named_by))
        found = session.execute(select(rule.key, *rule.named_by).where(is_naming))
        names = {row[0]: row[1:] for row in found}
        staying = [key for key in names if key not in going]
        while staying:
            kept = going.intersection(names.get(staying.pop(), ()))
            going -= kept
            staying += kept
    return [key for key in keys if key in going]


def among(key: Any, keys: Keys) -> ColumnElement[bool]:
    """Say that a key is one of some."""
    # One value, where a list of a thousand takes longer to write down than to look up.
    if isinstance(key, Tuple):
        return key.in_(keys)
    return key == func.any(cast(list(keys), ARRAY(key.type)))  # type: ignore[no-any-return]


def count(session: Session, rule: Rule) -> dict[str, int]:
    """Count what would go by a rule now, at most :data:`MAX_COUNTED` rows, and their parts."""
    going = select(rule.key.label("key")).where(_goes(rule)).limit(MAX_COUNTED).subquery()
    found = {rule.kind.value: session.scalars(select(func.count()).select_from(going)).one()}
    for kind, owner in rule.parts.items():
        parts = select(func.count()).select_from(owner.class_).join(going, owner == going.c.key)
        found[kind] = session.scalars(parts).one()
    return found


def begin(session: Session, rule: Rule) -> Cursor | None:
    """Give where a walk over what is old begins; None: at the first row."""
    if not rule.named_by:
        return None
    # Rows that are not old lie before it; a batch, which has little time, must not read them.
    youngest = session.scalars(select(func.max(rule.key)).where(rule.is_old)).one()
    return ((youngest or 0) + 1,)


def remove(session: Session, rule: Rule, *, after: Cursor | None, limit: int) -> Step:
    """Remove the next rows that are old, at most ``limit`` of them and of their parts together.

    Who else holds a row keeps it for this walk. A row goes together with its parts; one with more
    parts than a batch may remove loses these first, and stays without them if it comes to be named
    meanwhile. Each statement has 150 ms, and all of them have not much more, so that no lock is
    held for long: see :func:`is_out_of_time`.

    Raises: SlowBatchError: it held its locks too long.
    """
    session.execute(_SHORT)
    began = monotonic()
    found = session.execute(_next_old(rule, after, limit)).all()
    if not found:
        return Step({}, is_last=True)
    own = len(rule.columns)
    keys = [_one(row[-own:], lambda *values: values) for row in found]
    # In statements of their own: their snapshot is younger than the locks, so whoever came to name
    # one of these rows is seen, and nobody comes any more.
    _check_time(began)
    in_order = _going(session, rule, keys)
    going = set(in_order)
    _check_time(began)
    parts = _count_parts(session, rule, in_order, limit)
    _check_time(began)
    taken: list[Any] = []
    room = limit
    for key, row in zip(keys, found, strict=True):
        needed = 1 + parts[key] if key in going else 0
        if needed > room:
            if not taken:
                return Step(_remove_parts(session, rule, [key], limit), is_last=False, after=after)
            break
        room -= needed
        after = tuple(row)
        if key in going:
            taken.append(key)
    removed = _remove_parts(session, rule, taken, limit) if parts else {}
    _check_time(began)
    if taken:
        gone = delete(rule.model).where(among(rule.key, taken))
        session.execute(gone.execution_options(synchronize_session=False))
        removed[rule.kind.value] = len(taken)
        _check_time(began)
        if rule.is_audited:
            _tell(session, rule, found)
    is_last = len(found) < limit and after == tuple(found[-1])
    return Step(removed, is_last=is_last, after=after)


def _check_time(began: float) -> None:
    if monotonic() - began > _HOLD_S:
        raise SlowBatchError


def _next_old(rule: Rule, after: Cursor | None, limit: int) -> Select[Any]:
    query = select(*rule.order).where(rule.is_old)
    if after is not None:
        place, passed = _one(rule.order, tuple_), _one(after, tuple_)
        query = query.where(place < passed if rule.named_by else place > passed)
    order = [c.desc() for c in rule.order] if rule.named_by else rule.order
    return query.order_by(*order).limit(limit).with_for_update(skip_locked=True, of=rule.model)


def _count_parts(session: Session, rule: Rule, keys: Keys, limit: int) -> Counter[Any]:
    """Count the parts of rows in the order of ``keys``, up to the first that are too many."""
    counted: Counter[Any] = Counter()
    for owner in rule.parts.values():
        named = func.unnest(cast(list(keys), ARRAY(owner.type)))
        rows = named.table_valued("key", with_ordinality="n").render_derived()
        # In order before it is joined, so that no more is read than is counted.
        row = select(rows.c.key, rows.c.n).order_by(rows.c.n).subquery()
        part = select(owner).where(owner == row.c.key).limit(limit + 1).lateral()
        owners = select(row.c.key).join(part, true()).order_by(row.c.n).limit(limit + 1)
        counted.update(session.scalars(owners))
    return counted


def _remove_parts(session: Session, rule: Rule, keys: Keys, limit: int) -> dict[str, int]:
    """Remove at most ``limit`` parts of each kind; count them."""
    removed = {}
    for kind, owner in rule.parts.items():
        part: Any = owner.class_
        some = select(part.id).where(among(owner, keys)).limit(limit)
        gone = session.scalars(
            delete(part)
            .where(part.id.in_(some))
            .returning(part.id)
            .execution_options(synchronize_session=False)
        ).all()
        if gone:
            removed[kind] = len(gone)
    return removed


def _tell(session: Session, rule: Rule, found: Sequence[Any]) -> None:
    first, last = found[0][0].isoformat(), found[-1][0].isoformat()
    details = {"removed": len(found), "from": first, "to": last}
    audit(session, "retention.purge", f"{rule.kind}.purge", rule.model.__tablename__, details)


def is_out_of_time(error: Exception) -> bool:
    """Whether a batch took too long, so that a smaller one may not."""
    if isinstance(error, SlowBatchError):
        return True
    return (
        isinstance(error, OperationalError) and getattr(error.orig, "pgcode", None) in _OUT_OF_TIME
    )
