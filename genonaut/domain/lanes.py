"""Claim messages, lane by lane: fairly among hosts, and not faster than is allowed.

Messages of one lane are claimed together, under one lease, and sent one after the other.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import distinct, func, select, update
from sqlalchemy.orm import Session

from genonaut.core.errors import LeaseLostError
from genonaut.db.models import NotificationDelivery
from genonaut.domain.deliveries import DELIVERIES, HOLDERS_PER_HOST
from genonaut.domain.lifecycle import Status


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one lane, claimed together: ``token`` proves it."""

    token: UUID
    lane: str
    channel: str
    ids: tuple[int, ...]

    @property
    def row_id(self) -> int:
        """The first message's id, for logs."""
        return self.ids[0]

    @property
    def is_shared(self) -> bool:
        """Whether other workers may send in the same lane."""
        return self.lane == self.channel


@dataclass(frozen=True, slots=True)
class Lane:
    """Whose turn it is: the messages of ``lane``, which go to ``host``."""

    lane: str
    host: str
    channel: str

    @property
    def is_shared(self) -> bool:
        """Whether it is all of a channel's, of which several workers may send at once."""
        return self.lane == self.channel


def lane_of(session: Session, delivery_id: int) -> Lane | None:
    """Say which lane a message is in; None if it is gone."""
    model = NotificationDelivery
    row = session.execute(
        select(model.lane, model.host, model.channel).where(model.id == delivery_id)
    ).one_or_none()
    return None if row is None else Lane(row.lane, row.host, row.channel)


def claim_lane(
    session: Session, delivery_id: int, *, worker: str, lease_s: float, limit: int
) -> Batch | None:
    """Take due messages of the lane that a message is in, oldest first; None if there are none.

    The lane of one address has one holder. A host has two at most, whichever lanes lead to it; a
    lane that finds no room there comes due again in a moment.
    """
    model = NotificationDelivery
    asked = lane_of(session, delivery_id)
    if asked is None:
        return None
    _take_turn(session, asked.host)
    holders, of_lane = session.execute(
        select(
            func.count(distinct(model.lease_token)),
            func.count(distinct(model.lease_token)).filter(model.lane == asked.lane),
        ).where(model.status == Status.RUNNING, model.host == asked.host)
    ).one()
    if of_lane and not asked.is_shared:
        return None  # its holder looks for more before it goes
    if holders >= HOLDERS_PER_HOST:
        if not of_lane:
            _wake_later(session, asked.lane, after_s=2)
        return None
    taken = DELIVERIES.claim_many(
        session,
        select(model.id)
        .where(
            model.lane == asked.lane,
            model.status == Status.PENDING,
            model.available_at <= func.now(),
        )
        .order_by(model.id)
        .limit(_how_many(session, asked.lane, limit))
        .with_for_update(skip_locked=True),
        worker=worker,
        lease_s=lease_s,
    )
    if taken is None:
        return None
    token, ids = taken
    return Batch(token, asked.lane, asked.channel, tuple(sorted(ids)))


def _take_turn(session: Session, host: str) -> None:
    """Count the holders of a host one after the other."""
    name = f"delivery:{host}"
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(name, 0))))


def _how_many(session: Session, lane: str, limit: int) -> int:
    """Take one alone that was lost with its worker before: it may be what killed it."""
    first = session.scalars(
        select(NotificationDelivery.error_code)
        .where(
            NotificationDelivery.lane == lane,
            NotificationDelivery.status == Status.PENDING,
            NotificationDelivery.available_at <= func.now(),
        )
        .order_by(NotificationDelivery.id)
        .limit(1)
    ).one_or_none()
    return 1 if first == "worker_lost" else limit


def _wake_later(session: Session, lane: str, *, after_s: float) -> None:
    """Have the first due message of a lane published anew in a while, for the lane's sake."""
    model = NotificationDelivery
    head = (
        select(model.id)
        .where(model.lane == lane, model.status == Status.PENDING, model.available_at <= func.now())
        .order_by(model.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    for row_id in session.scalars(head).all():
        DELIVERIES.note(
            session,
            row_id,
            (model.status == Status.PENDING,),
            available_at=func.now() + timedelta(seconds=after_s),
            dispatched_at=None,
            dispatch_epoch=None,
        )


def pass_on(session: Session, lane: str, *, after_s: float = 0) -> None:
    """Leave a lane: whatever is due in it needs a message at the broker again."""
    _wake_later(session, lane, after_s=after_s)


def renew(session: Session, held: Batch, *, lease_s: float) -> None:
    """Keep what is left of a batch for another ``lease_s`` seconds.

    Raises: LeaseLostError: none of it is held any more.
    """
    renewed = session.execute(
        update(NotificationDelivery)
        .where(
            NotificationDelivery.status == Status.RUNNING,  # has an index; the token has none
            NotificationDelivery.lease_token == held.token,
        )
        .values(lease_expires_at=func.now() + timedelta(seconds=lease_s))
        .returning(NotificationDelivery.id)
        .execution_options(synchronize_session=False)
    )
    if renewed.first() is None:
        raise LeaseLostError(f"the lease on {held.lane} is lost")


def room(
    session: Session, channel: str, address_ids: Collection[int], *, per_receiver: int
) -> dict[int, int]:
    """Say how many messages each address may still get this minute."""
    model = NotificationDelivery
    sent = session.execute(
        select(model.address_id, func.count().label("sent"))
        .where(
            model.channel == channel,
            model.address_id.in_(address_ids),
            model.status == Status.COMPLETED,
            model.completed_at > func.now() - timedelta(minutes=1),
        )
        .group_by(model.address_id)
    )
    counted = {row.address_id: row.sent for row in sent}
    return {
        address_id: max(0, per_receiver - counted.get(address_id, 0)) for address_id in address_ids
    }


def sent_last_minute(session: Session, channel: str) -> int:
    """Count the messages a channel has sent within a minute."""
    model = NotificationDelivery
    return session.scalars(
        select(func.count()).where(
            model.channel == channel,
            model.status == Status.COMPLETED,
            model.completed_at > func.now() - timedelta(minutes=1),
        )
    ).one()
