"""Gather what a message needs to be written, and say whether it may still be sent."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.db.models import (
    ContentImage,
    NotificationAddress,
    NotificationDelivery,
    NotificationPreference,
    User,
    UserNotification,
)
from genonaut.domain.lanes import Batch
from genonaut.domain.preferences import Preferences

_THUMBNAIL = "256"


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored thumbnail."""

    key: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message with all that its channel needs to write and address it.

    ``notifications`` are the one it is about, those of a digest, oldest first, or none. ``total``
    is how many a digest is about, of which it may name fewer.
    """

    delivery: NotificationDelivery
    address: NotificationAddress
    username: str
    wanted: Preferences
    notifications: tuple[UserNotification, ...] = ()
    total: int = 0
    picture: Picture | None = None


def load(session: Session, held: Batch) -> list[Parcel | NotificationDelivery]:
    """Read what is to be sent, oldest first; a message whose address is gone stands for itself."""
    rows = session.execute(
        select(
            NotificationDelivery,
            NotificationAddress,
            User,
            NotificationPreference,
            UserNotification,
        )
        .join(User, User.id == NotificationDelivery.user_id)
        .outerjoin(NotificationAddress, NotificationAddress.id == NotificationDelivery.address_id)
        .outerjoin(NotificationPreference, NotificationPreference.user_id == User.id)
        .outerjoin(UserNotification, UserNotification.id == NotificationDelivery.notification_id)
        .where(NotificationDelivery.id.in_(held.ids))
        .order_by(NotificationDelivery.id)
        .execution_options(populate_existing=True)
    ).all()
    pictures = _pictures(session, rows)
    return [_parcel(session, row, pictures) for row in rows]


def _parcel(
    session: Session, row: Any, pictures: dict[int, Picture]
) -> Parcel | NotificationDelivery:
    delivery, address, user, wish, told = row
    if address is None or not user.is_active:
        return delivery  # type: ignore[no-any-return]
    if delivery.purpose == "digest":
        ids = delivery.data.get("notification_ids", [])
        found = session.scalars(
            select(UserNotification)
            .where(UserNotification.id.in_(ids), UserNotification.user_id == user.id)
            .order_by(UserNotification.id)
        ).all()
    else:
        found = [] if told is None else [told]
    return Parcel(
        delivery=delivery,
        address=address,
        username=user.username,
        wanted=Preferences.of(wish),
        notifications=tuple(found),
        total=delivery.data.get("total", len(found)),
        picture=pictures.get(told.data.get("content_id") or 0) if told is not None else None,
    )


def _pictures(session: Session, rows: Sequence[Any]) -> dict[int, Picture]:
    wanted = {told.data["content_id"] for *_, told in rows if told and told.data.get("content_id")}
    if not wanted:
        return {}
    images = session.scalars(
        select(ContentImage).where(ContentImage.content_id.in_(wanted), ContentImage.position == 0)
    )
    return {
        image.content_id: Picture(made["key"], made["width"], made["height"])
        for image in images
        if (made := image.thumbnails.get(_THUMBNAIL))
    }


def refusal(parcel: Parcel | NotificationDelivery) -> tuple[str, str] | None:
    """Say why a message must not be sent after all, as code and words; None when it may."""
    if isinstance(parcel, NotificationDelivery):
        return "address_gone", "the address was taken away, or the account is closed"
    delivery, address = parcel.delivery, parcel.address
    if delivery.purpose == "verification":
        return None
    if address.disabled_at is not None:
        return "address_disabled", address.disabled_reason or "the address rests"
    if address.verified_at is None:
        return "address_unverified", "the address is not verified"
    if delivery.purpose == "test":
        return None
    if not parcel.notifications:
        return "nothing_to_tell", "what it was about was deleted"
    if not any(parcel.wanted.wants(told.kind, delivery.channel) for told in parcel.notifications):
        return "not_wanted", "its owner does not want this kind over this channel any more"
    return None


def quiet_until(parcel: Parcel, now: datetime) -> datetime | None:
    """Give until when a message must wait for its owner's quiet hours; None if it need not."""
    if parcel.delivery.purpose in {"verification", "test"}:
        return None
    return parcel.wanted.quiet_until(now)
