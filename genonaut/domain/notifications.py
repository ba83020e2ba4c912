"""Tell users what happened, once."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Select,
    Table,
    Text,
    bindparam,
    case,
    func,
    not_,
    select,
    update,
)
from sqlalchemy import cast as sql_cast
from sqlalchemy import delete as delete_from
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from genonaut.core.errors import NotFoundError
from genonaut.core.events import Event
from genonaut.core.text import one_line, storable
from genonaut.db.models import (
    NotificationAddress,
    NotificationPreference,
    User,
    UserNotification,
)
from genonaut.db.session import add_event
from genonaut.domain import deliveries
from genonaut.domain.kinds import Kind
from genonaut.domain.preferences import IN_APP, Preferences
from genonaut.domain.users import Role

MAX_TITLE = 255
MAX_BODY = 10_000

_GROUPED: dict[str, Kind] = {Kind.JOB_COMPLETED: Kind.BATCH_COMPLETED}
_NAMED_IN_GROUP = 100
_UNASKED = Preferences()
_TABLE = cast(Table, UserNotification.__table__)
_GIVEN = ("user_id", "kind", "dedupe_key", "title", "body", "data")


def public(row: UserNotification) -> dict[str, Any]:
    """Give what the owner may see, ready for JSON."""
    return {
        "id": row.id,
        "kind": row.kind,
        "title": row.title,
        "body": row.body,
        "data": row.data,
        "created_at": row.created_at.isoformat(),
        "read_at": row.read_at.isoformat() if row.read_at else None,
    }


def describe(row: UserNotification) -> Event:
    """Tell the owner of a notification that it has come, or has changed."""
    topics = (f"user:{row.user_id}",)
    return Event("notification", row.id, row.version, topics, public(row), final=True)


def _usable() -> Any:
    address = NotificationAddress
    return address.verified_at.is_not(None) & address.disabled_at.is_(None)


def _tell() -> Select[UserNotification, NotificationPreference, NotificationAddress]:
    """Store a fact unless it is known, and give it with what decides where it is told of."""
    wish = NotificationPreference
    chosen = func.jsonb_extract_path_text(
        wish.choices, bindparam("kind_key", type_=Text), IN_APP, type_=Text
    )
    is_muted = func.coalesce(
        select(not_(sql_cast(chosen, Boolean)))
        .where(wish.user_id == bindparam("owner_id", type_=_TABLE.c.user_id.type))
        .scalar_subquery(),
        bindparam("is_muted_unasked", type_=Boolean),
    )
    fact = select(
        *(bindparam(name, type_=_TABLE.c[name].type) for name in _GIVEN),
        is_muted,
        case((is_muted, func.now())),
    )
    told = (
        insert(_TABLE)
        .from_select([*_GIVEN, "is_hidden", "read_at"], fact)
        .on_conflict_do_nothing(index_elements=["user_id", "dedupe_key"])
        .returning(*_TABLE.c)
        .cte("told")
    )
    row = aliased(UserNotification, told)
    return (
        select(row, wish, NotificationAddress)
        .select_from(told)
        .outerjoin(wish, wish.user_id == told.c.user_id)
        .outerjoin(NotificationAddress, (NotificationAddress.user_id == told.c.user_id) & _usable())
    )


_TELL = _tell()  # made once: making a statement takes longer than running it


def notify(
    session: Session,
    user_id: UUID,
    kind: str,
    *,
    dedupe_key: str,
    title: str,
    body: str = "",
    data: dict[str, Any] | None = None,
) -> UserNotification | None:
    """Record a fact for a user; None when the same ``dedupe_key`` was recorded before.

    In the same transaction it is planned how it reaches the user: at once in the application, and
    as a message to each verified address, as the user's preferences say. Completed jobs of one
    window become one notice for who wants it so.
    """
    fact = {
        "user_id": user_id,
        "kind": str(kind),
        "dedupe_key": dedupe_key,
        "title": one_line(title, longest=MAX_TITLE),
        "body": storable(body)[:MAX_BODY],
        "data": data or {},
    }
    said = {"owner_id": user_id, "kind_key": str(kind)}
    unasked = {"is_muted_unasked": not _UNASKED.wants(kind, IN_APP)}
    found = session.execute(_TELL, {**fact, **said, **unasked}).all()
    if not found:
        return None
    row: UserNotification = found[0][0]
    wanted = Preferences.of(found[0][1])
    addresses = [address for _, _, address in found if address is not None]
    together = _GROUPED.get(kind) if wanted.group_window_s else None
    if together is None or row.is_hidden:
        if not row.is_hidden:
            add_event(session, describe(row))
        deliveries.plan(session, row, wanted, addresses, kinds=[str(kind)])
    elif not _join_group(session, row, together):
        closes_at = _open_group(session, row, wanted)
        add_event(session, describe(row))
        deliveries.plan(
            session,
            row,
            wanted,
            addresses,
            kinds=[str(kind), together],
            not_before=closes_at + deliveries.GROUP_SETTLES,
        )
    return row


def _join_group(session: Session, row: UserNotification, together: Kind) -> bool:
    """Have a fact told by the notice of its group, if one is open; whether it is."""
    # Whoever else ends a job of this user waits here, and then sees the group.
    session.execute(
        select(NotificationPreference.user_id)
        .where(NotificationPreference.user_id == row.user_id)
        .with_for_update()
    )
    lead = session.scalars(
        select(UserNotification)
        .where(
            UserNotification.user_id == row.user_id,
            UserNotification.group_until > func.clock_timestamp(),
            UserNotification.id != row.id,
        )
        .order_by(UserNotification.id.desc())
        .limit(1)
        .with_for_update()
        .execution_options(populate_existing=True)
    ).one_or_none()
    if lead is None:
        return False
    count = lead.data.get("count", 1) + 1
    jobs = lead.data.get("job_ids") or [lead.data.get("job_id")]
    data = {
        **lead.data,
        "count": count,
        "job_ids": [*jobs, row.data.get("job_id")][:_NAMED_IN_GROUP],
    }
    _change(session, row, is_hidden=True, read_at=func.now(), group_id=lead.id)
    lead = _change(
        session,
        lead,
        kind=together,
        title=f"{count} of your pictures are ready",
        data=data,
        read_at=None,
        version=UserNotification.version + 1,
    )
    add_event(session, describe(lead))
    return True


def _open_group(session: Session, row: UserNotification, wanted: Preferences) -> datetime:
    until = func.clock_timestamp() + timedelta(seconds=wanted.group_window_s)
    opened = _change(session, row, group_until=until)
    return cast(datetime, opened.group_until)


def _change(session: Session, row: UserNotification, **values: Any) -> UserNotification:
    return session.scalars(
        update(UserNotification)
        .where(UserNotification.id == row.id)
        .values(**values)
        .returning(UserNotification)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).one()


def tell_operators(
    session: Session, kind: Kind, *, dedupe_key: str, title: str, **fact: Any
) -> int:
    """Record a fact for everyone who looks after the installation; give how many heard it anew."""
    operators = session.scalars(
        select(User.id).where(User.role.in_([Role.OPERATOR, Role.ADMIN]), User.is_active)
    ).all()
    told = [
        notify(session, user_id, kind, dedupe_key=dedupe_key, title=title, **fact)
        for user_id in operators
    ]
    return sum(row is not None for row in told)


def announce(session: Session, username: str | None, *, title: str, body: str) -> int:
    """Tell one user, or all who are active, something as a ``system`` notice; give how many.

    Raises: NotFoundError: there is no such user.
    """
    query = select(User.id).where(User.is_active)
    if username is not None:
        query = query.where(User.username == username)
    found = session.scalars(query.order_by(User.id)).all()
    if username is not None and not found:
        raise NotFoundError(f"there is no user {username!r}")
    key = f"announcement:{uuid4()}"
    for user_id in found:
        notify(session, user_id, Kind.SYSTEM, dedupe_key=key, title=title, body=body)
    return len(found)


def list_for(
    session: Session,
    user_id: UUID,
    *,
    unread: bool = False,
    kinds: Sequence[str] = (),
    before: int | None = None,
    limit: int = 50,
) -> list[UserNotification]:
    """List a user's inbox, newest first, older than the id ``before``."""
    query = select(UserNotification).where(
        UserNotification.user_id == user_id, ~UserNotification.is_hidden
    )
    if unread:
        query = query.where(UserNotification.read_at.is_(None))
    if kinds:
        query = query.where(UserNotification.kind.in_(kinds))
    if before is not None:
        query = query.where(UserNotification.id < before)
    return list(session.scalars(query.order_by(UserNotification.id.desc()).limit(limit)))


def one(session: Session, user_id: UUID, notification_id: int) -> UserNotification:
    """Give one notification of a user's inbox.

    Raises: NotFoundError: it does not exist or is another user's.
    """
    row = session.get(UserNotification, notification_id)
    if row is None or row.user_id != user_id or row.is_hidden:
        raise NotFoundError("there is no such notification")
    return row


def unread_count(session: Session, user_id: UUID) -> int:
    """Count a user's unread notifications."""
    return session.scalars(
        select(func.count())
        .select_from(UserNotification)
        .where(UserNotification.user_id == user_id, UserNotification.read_at.is_(None))
    ).one()


def unread_and_recent(
    session: Session, user_id: UUID, *, within: timedelta
) -> tuple[int, dict[int, int]]:
    """Count a user's unread notifications, and give the version of each that is :func:`recent`.

    Both are of one moment: what comes later is neither counted nor among these.
    """
    unread = (
        select(func.count().label("count"))
        .where(UserNotification.user_id == user_id, UserNotification.read_at.is_(None))
        .subquery()
    )
    of_user = UserNotification.user_id == user_id
    rows = session.execute(
        select(unread.c.count, UserNotification.id, UserNotification.version)
        .select_from(unread)
        .outerjoin(UserNotification, of_user & _is_recent(within))
    ).all()
    return rows[0][0], {row_id: version for _, row_id, version in rows if row_id is not None}


def recent(
    session: Session, user_ids: Iterable[UUID], *, within: timedelta
) -> Sequence[UserNotification]:
    """List what users were told ``within`` this time, and groups that may have grown within it."""
    return session.scalars(
        select(UserNotification).where(UserNotification.user_id.in_(user_ids), _is_recent(within))
    ).all()


def _is_recent(within: timedelta) -> ColumnElement[bool]:
    since = func.now() - within
    may_have_grown = UserNotification.group_until > since
    return ((UserNotification.created_at > since) | may_have_grown) & ~UserNotification.is_hidden


def mark(session: Session, user_id: UUID, notification_id: int, *, read: bool) -> UserNotification:
    """Mark one notification read or unread; reading twice keeps the first time.

    Raises: NotFoundError: it does not exist or is another user's.
    """
    seen: Any = func.coalesce(UserNotification.read_at, func.now()) if read else None
    row = session.scalars(
        update(UserNotification)
        .where(
            UserNotification.id == notification_id,
            UserNotification.user_id == user_id,
            ~UserNotification.is_hidden,
        )
        .values(read_at=seen, version=UserNotification.version + 1)
        .returning(UserNotification)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if row is None:
        raise NotFoundError("there is no such notification")
    add_event(session, describe(row))
    _tell_unread(session, user_id)
    return row


def mark_all_read(session: Session, user_id: UUID) -> int:
    """Mark every unread notification of a user read; give their number."""
    rows = session.scalars(
        update(UserNotification)
        .where(UserNotification.user_id == user_id, UserNotification.read_at.is_(None))
        .values(read_at=func.now(), version=UserNotification.version + 1)
        .returning(UserNotification.id)
    ).all()
    _tell_unread(session, user_id)
    return len(rows)


def delete(session: Session, user_id: UUID, notification_id: int) -> None:
    """Delete one notification, with what it stands for and what was to be sent of it.

    Raises: NotFoundError: it does not exist or is another user's.
    """
    row = one(session, user_id, notification_id)
    session.execute(
        delete_from(UserNotification)
        .where(UserNotification.group_id == row.id)
        .execution_options(synchronize_session=False)
    )
    session.delete(row)
    session.flush()  # it is not counted any more
    _tell_unread(session, user_id)


def _tell_unread(session: Session, user_id: UUID) -> None:
    """Tell a user's other pages how many are unread now; a later count has a higher version.

    Who changes it takes the user's turn before, or two at once would each count without the other.
    """
    query = select(func.extract("epoch", func.clock_timestamp()) * 1_000_000)
    version = int(session.scalars(query).one())
    data = {"unread": unread_count(session, user_id)}
    add_event(session, Event("unread", 0, version, (f"user:{user_id}",), data, final=True))
