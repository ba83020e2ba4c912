"""Tell users what happened, once."""

from typing import Any
from uuid import UUID

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import NotFoundError
from genonaut.core.events import Event
from genonaut.db.models import UserNotification
from genonaut.db.session import add_event


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
    """Tell the owner of a notification that it has come."""
    return Event("notification", row.id, 1, (f"user:{row.user_id}",), public(row), final=True)


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
    """Record a fact for a user; None when the same ``dedupe_key`` was recorded before."""
    row = session.scalars(
        insert(UserNotification)
        .values(
            user_id=user_id,
            kind=kind,
            dedupe_key=dedupe_key,
            title=title[:255],
            body=body,
            data=data or {},
        )
        .on_conflict_do_nothing(index_elements=["user_id", "dedupe_key"])
        .returning(UserNotification)
    ).one_or_none()
    if row is not None:
        add_event(session, describe(row))
    return row


def list_for(
    session: Session, user_id: UUID, *, unread: bool, before: int | None, limit: int
) -> list[UserNotification]:
    """List a user's notifications, newest first, older than the id ``before``."""
    query = select(UserNotification).where(UserNotification.user_id == user_id)
    if unread:
        query = query.where(UserNotification.read_at.is_(None))
    if before is not None:
        query = query.where(UserNotification.id < before)
    return list(session.scalars(query.order_by(UserNotification.id.desc()).limit(limit)))


def unread_count(session: Session, user_id: UUID) -> int:
    """Count a user's unread notifications."""
    return session.scalars(
        select(func.count())
        .select_from(UserNotification)
        .where(UserNotification.user_id == user_id, UserNotification.read_at.is_(None))
    ).one()


def mark(session: Session, user_id: UUID, notification_id: int, *, read: bool) -> UserNotification:
    """Mark one notification read or unread; reading twice keeps the first time.

    Raises: NotFoundError: it does not exist or is another user's.
    """
    seen: Any = func.coalesce(UserNotification.read_at, func.now()) if read else None
    row = session.scalars(
        update(UserNotification)
        .where(UserNotification.id == notification_id, UserNotification.user_id == user_id)
        .values(read_at=seen)
        .returning(UserNotification)
    ).one_or_none()
    if row is None:
        raise NotFoundError("there is no such notification")
    return row


def mark_all_read(session: Session, user_id: UUID) -> int:
    """Mark every unread notification of a user read; give their number."""
    rows = session.scalars(
        update(UserNotification)
        .where(UserNotification.user_id == user_id, UserNotification.read_at.is_(None))
        .values(read_at=func.now())
        .returning(UserNotification.id)
    )
    return len(rows.all())


def delete(session: Session, user_id: UUID, notification_id: int) -> None:
    """Delete one notification.

    Raises: NotFoundError: it does not exist or is another user's.
    """
    row = session.get(UserNotification, notification_id)
    if row is None or row.user_id != user_id:
        raise NotFoundError("there is no such notification")
    session.delete(row)
