"""Write down how messages that were claimed went: every write names the lease.

Each is written down before the next is sent, so that a worker that dies repeats one at most.
"""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from genonaut.core.backoff import backoff_s
from genonaut.core.text import storable
from genonaut.db.models import NotificationDelivery
from genonaut.domain import addresses
from genonaut.domain.deliveries import DELIVERIES, GIVE_UP_AFTER
from genonaut.domain.lanes import Batch
from genonaut.domain.lifecycle import Status
from genonaut.domain.parcels import Parcel

LONGEST_PAUSE_S = 3600.0
_MAX_MESSAGE = 500


def sent(session: Session, held: Batch, parcel: Parcel, *, proves_address: bool = False) -> None:
    """End a message as sent.

    PostgreSQL need not have it on disk before the next is sent: should its machine crash within
    the second, the message is sent again, under the same id.

    Raises: LeaseLostError: it is not held any more.
    """
    DELIVERIES.complete(session, parcel.delivery.id, token=held.token)
    if parcel.address.failures:
        addresses.note_success(session, parcel.address.id)
    if proves_address:
        addresses.take_into_use(session, parcel.address.id)


def cancelled(session: Session, held: Batch, delivery_id: int, *, code: str, why: str) -> None:
    """End a message that must not be sent after all.

    Raises: LeaseLostError: it is not held any more.
    """
    DELIVERIES.move(
        session,
        delivery_id,
        Status.CANCELLED,
        token=held.token,
        error_code=code,
        error_message=why,
    )


def refused(
    session: Session, held: Batch, parcel: Parcel, *, code: str, why: str, is_gone: bool = False
) -> None:
    """End a message that its receiver will never take; too many of them rest the address.

    Raises: LeaseLostError: it is not held any more.
    """
    why = storable(why)[:_MAX_MESSAGE]
    DELIVERIES.move(
        session,
        parcel.delivery.id,
        Status.FAILED,
        token=held.token,
        error_code=code,
        error_message=why,
    )
    if parcel.delivery.purpose != "verification":
        addresses.note_failure(session, parcel.address.id, why=why, is_gone=is_gone)


def try_again(
    session: Session,
    held: Batch,
    parcel: Parcel,
    *,
    code: str,
    why: str,
    first_s: float,
    retry_after_s: float | None = None,
) -> None:
    """Give a message back to be tried again later, or end it when its attempts are used up.

    In the lane of one address, whatever else waits there waits as long.

    Raises: LeaseLostError: it is not held any more.
    """
    row = parcel.delivery
    if row.attempt >= row.max_attempts:
        told = f"{why}; given up after {row.attempt} attempts"
        refused(session, held, parcel, code=code, why=told)
        return
    pause_s = backoff_s(row.attempt, first_s, longest_s=LONGEST_PAUSE_S)
    wait = timedelta(seconds=max(pause_s, retry_after_s or 0))
    _give_back(
        session,
        held,
        row.id,
        available_at=func.now() + wait,
        error_code=code,
        error_message=storable(why)[:_MAX_MESSAGE],
    )
    if not held.is_shared:
        _put_off_lane(session, held.lane, wait)


def wait_for_channel(
    session: Session, held: Batch, parcel: Parcel, *, code: str, why: str, after_s: float
) -> None:
    """Give a message back because its channel is away, and have the whole lane wait.

    The attempt does not count, but two days after the first one the message is given up.

    Raises: LeaseLostError: it is not held any more.
    """
    row = parcel.delivery
    why = storable(why)[:_MAX_MESSAGE]
    wait = timedelta(seconds=after_s)
    _put_off_lane(session, held.lane, wait)
    now: datetime = session.scalars(select(func.now())).one()
    if now - (row.started_at or now) > GIVE_UP_AFTER:
        DELIVERIES.move(
            session,
            row.id,
            Status.FAILED,
            token=held.token,
            error_code=code,
            error_message=f"{why}; given up",
        )
        return
    _give_back(
        session,
        held,
        row.id,
        attempt=NotificationDelivery.attempt - 1,
        available_at=func.now() + wait,
        error_code=code,
        error_message=why,
    )


def put_back(
    session: Session, held: Batch, delivery_id: int, *, until: datetime | None = None
) -> None:
    """Give a message back untouched, to be sent from ``until`` on; the attempt does not count.

    Raises: LeaseLostError: it is not held any more.
    """
    _give_back(
        session,
        held,
        delivery_id,
        attempt=NotificationDelivery.attempt - 1,
        available_at=until or func.now(),
    )


def _give_back(session: Session, held: Batch, delivery_id: int, **values: Any) -> None:
    DELIVERIES.move(
        session,
        delivery_id,
        Status.PENDING,
        token=held.token,
        dispatched_at=None,
        dispatch_epoch=None,
        **values,
    )


def _put_off_lane(session: Session, lane: str, wait: timedelta) -> None:
    """Have all that waits in a lane wait: what failed for one would fail for the next."""
    model = NotificationDelivery
    session.execute(
        update(model)
        .where(
            model.lane == lane,
            model.status == Status.PENDING,
            model.available_at < func.now() + wait,
        )
        .values(available_at=func.now() + wait, dispatched_at=None, dispatch_epoch=None)
        .execution_options(synchronize_session=False)
    )
