"""Plan the messages that carry a notification to its owner, and show what became of them.

What is in the application needs none of this: the row and its live event suffice. Every other
channel gets one row per address, planned in the transaction that records the fact.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import ColumnElement, Integer, case, cast, distinct, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.core.events import Event
from genonaut.db.models import NotificationAddress, NotificationDelivery, UserNotification
from genonaut.db.session import add_event
from genonaut.domain.lifecycle import FINAL, UNFINISHED, Machine, Status
from genonaut.domain.preferences import Preferences

MAX_ATTEMPTS = 10
HOLDERS_PER_HOST = 2
"""So many workers at most speak with one host, so that a slow one leaves slots for the others."""
GROUP_SETTLES = timedelta(seconds=2)
"""Whoever joined a group in its last moment has committed by so long after its end."""
GIVE_UP_AFTER = timedelta(hours=48)
"""A message whose channel is away for so long is given up."""


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def public(row: NotificationDelivery) -> dict[str, Any]:
    """Give what its owner may see, ready for JSON."""
    return {
        "id": row.id,
        "notification_id": row.notification_id,
        "channel": row.channel,
        "purpose": row.purpose,
        "message_id": row.message_id,
        "status": row.status,
        "version": row.version,
        "attempt": row.attempt,
        "max_attempts": row.max_attempts,
        "error": (
            {"code": row.error_code, "message": row.error_message} if row.error_code else None
        ),
        "retry_of": row.retry_of,
        "available_at": _iso(row.available_at),
        "created_at": _iso(row.created_at),
        "updated_at": _iso(row.updated_at),
        "completed_at": _iso(row.completed_at),
    }


def public_to_operators(row: NotificationDelivery) -> dict[str, Any]:
    """Give what auditors and operators see besides: whose it is and who sends it; no address."""
    more = {"user_id": str(row.user_id), "host": row.host, "worker": row.worker}
    return {**public(row), **more}


def describe(row: NotificationDelivery) -> Event:
    """Tell whoever publishes of a changed row; nobody watches them live."""
    told = {
        "status": row.status,
        "celery_task_id": row.celery_task_id,
        "cancel_requested": row.cancel_requested_at is not None,
        "available_at": _iso(row.available_at),
        "updated_at": _iso(row.updated_at),
    }
    return Event("delivery", row.id, row.version, (), told, final=row.status in FINAL)


DELIVERIES: Machine[NotificationDelivery] = Machine(NotificationDelivery, describe)


def heads() -> ColumnElement[bool]:
    """Say which due rows a message at the broker stands for: the first of each lane.

    None of a lane that has its holders: they look for more before they go.
    """
    earlier, held = aliased(NotificationDelivery), aliased(NotificationDelivery)
    holders = (
        select(func.count(distinct(held.lease_token)))
        .where(held.lane == NotificationDelivery.lane, held.status == Status.RUNNING)
        .correlate(NotificationDelivery)
        .scalar_subquery()
    )
    is_shared = NotificationDelivery.lane == NotificationDelivery.channel
    has_room = holders < case((is_shared, HOLDERS_PER_HOST), else_=1)
    return has_room & ~(
        select(1)
        .where(
            earlier.lane == NotificationDelivery.lane,
            earlier.status == Status.PENDING,
            earlier.available_at <= func.now(),
            earlier.id < NotificationDelivery.id,
        )
        .correlate(NotificationDelivery)
        .exists()
    )


def plan(
    session: Session,
    notification: UserNotification,
    wanted: Preferences,
    addresses: Iterable[NotificationAddress],
    *,
    kinds: Sequence[str],
    not_before: datetime | None = None,
) -> list[NotificationDelivery]:
    """Plan a message to each address over whose channel any of ``kinds`` is wanted.

    What goes into the daily digest instead gets none. In quiet hours, and until ``not_before``,
    a message waits.
    """
    now = notification.created_at
    when = max(now, not_before or now)
    when = wanted.quiet_until(when) or when
    rows = [
        values(
            address,
            subject=f"notification:{notification.id}",
            notification_id=notification.id,
            available_at=when,
        )
        for address in addresses
        if any(wanted.wants(kind, address.channel) for kind in kinds)
        and not (wanted.is_daily and address.takes_digest)
    ]
    return store(session, rows)


def values(address: NotificationAddress, *, subject: str, **columns: Any) -> dict[str, Any]:
    """Give the columns of a message to an address; ``subject`` is sent there once."""
    return {
        "user_id": address.user_id,
        "address_id": address.id,
        "channel": address.channel,
        "host": address.host,
        "lane": address.channel if address.is_relayed else f"{address.channel}:{address.id}",
        "subject": subject,
        "message_id": f"msg_{uuid4().hex}",
        "celery_task_id": str(uuid4()),
        "max_attempts": MAX_ATTEMPTS,
        **columns,
    }


def store(session: Session, rows: Sequence[dict[str, Any]]) -> list[NotificationDelivery]:
    """Store messages.

    Those whose subject was planned for their address before are left out, and those for an address
    that has been removed since it was read: that must not undo what there is to tell of.
    """
    if not rows:
        return []
    address_id = NotificationAddress.id
    there = set(
        session.scalars(
            select(address_id)
            .where(address_id.in_({row["address_id"] for row in rows}))
            .order_by(address_id)
            .with_for_update(read=True, key_share=True)
        )
    )
    rows = [row for row in rows if row["address_id"] in there]
    if not rows:
        return []
    made = session.scalars(
        insert(NotificationDelivery)
        .values(rows)
        .on_conflict_do_nothing(index_elements=["address_id", "subject"])
        .returning(NotificationDelivery)
    ).all()
    for row in made:
        add_event(session, describe(row))
    return list(made)


def cancel_pending(session: Session, address_id: int, *, code: str, why: str) -> int:
    """Cancel what waits to be sent to an address; give their number.

    What a worker claims at the same moment is left to it.
    """
    waiting = session.scalars(
        select(NotificationDelivery.id)
        .where(
            NotificationDelivery.address_id == address_id,
            NotificationDelivery.status == Status.PENDING,
        )
        .order_by(NotificationDelivery.id)
        .with_for_update()
    ).all()
    for row_id in waiting:
        DELIVERIES.move(session, row_id, Status.CANCELLED, error_code=code, error_message=why)
    return len(waiting)


def of_notification(
    session: Session, user_id: UUID, notification_id: int
) -> list[NotificationDelivery]:
    """List the messages about a notification of a user's own, oldest first.

    Raises: NotFoundError: there is no such notification, or it is another user's.
    """
    owner = select(UserNotification.id).where(
        UserNotification.id == notification_id, UserNotification.user_id == user_id
    )
    if session.scalars(owner).one_or_none() is None:
        raise NotFoundError("there is no such notification")
    return list(
        session.scalars(
            select(NotificationDelivery)
            .where(NotificationDelivery.notification_id == notification_id)
            .order_by(NotificationDelivery.id)
        )
    )


def one(
    session: Session, delivery_id: int, *, user_id: UUID | None = None, stays: bool = False
) -> NotificationDelivery:
    """Give a message; with ``user_id``, only that user's own.

    With ``stays`` nobody removes it before this transaction ends.

    Raises: NotFoundError: there is none.
    """
    lock = {"read": True, "key_share": True} if stays else None
    row = session.get(NotificationDelivery, delivery_id, with_for_update=lock)
    if row is None or (user_id is not None and row.user_id != user_id):
        raise NotFoundError("there is no such delivery")
    return row


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which messages to list; what is left out is any."""

    statuses: Sequence[str] = ()
    channel: str | None = None
    user_id: UUID | None = None
    notification_id: int | None = None


def list_all(
    session: Session, wanted: Wanted, *, before: int | None = None, limit: int = 50
) -> list[NotificationDelivery]:
    """List messages, newest first, older than the id ``before``."""
    model = NotificationDelivery
    query = select(model)
    if wanted.statuses:
        query = query.where(model.status.in_(wanted.statuses))
    for column, value in (
        (model.channel, wanted.channel),
        (model.user_id, wanted.user_id),
        (model.notification_id, wanted.notification_id),
    ):
        if value is not None:
            query = query.where(column == value)
    if before is not None:
        query = query.where(model.id < before)
    return list(session.scalars(query.order_by(model.id.desc()).limit(limit)))


def redeliver(session: Session, delivery_id: int) -> NotificationDelivery:
    """Send a message that has ended once more, as a new row under the same message id.

    Raises:
        NotFoundError: there is none.
        ConflictError: it has not ended, its address is gone or rests, or it waits already.
    """
    model = NotificationDelivery
    old = one(session, delivery_id, stays=True)
    if old.status in UNFINISHED:
        raise ConflictError(f"it is still {old.status}", code="not_ended")
    address = session.get(NotificationAddress, old.address_id) if old.address_id else None
    if address is None:
        raise ConflictError("its address is gone", code="address_gone")
    is_usable = address.verified_at is not None and address.disabled_at is None
    if not is_usable and old.purpose != "verification":
        raise ConflictError("its address is not in use now", code="address_not_in_use")
    told = old.subject.partition("#")[0]
    number = cast(func.nullif(func.split_part(model.subject, "#", 2), ""), Integer)
    last = session.scalars(  # not their count: of those before, some may be past their age
        select(func.max(number)).where(
            model.address_id == address.id, func.split_part(model.subject, "#", 1) == told
        )
    ).one()
    again = values(
        address,
        subject=f"{told}#{(last or 1) + 1}",
        notification_id=old.notification_id,
        purpose=old.purpose,
        data=old.data,
        message_id=old.message_id,
        retry_of=old.id,
    )
    made = store(session, [again])
    if not made:
        raise ConflictError("somebody has just asked for the same", code="already_asked")
    return made[0]
