"""Send what is due in one lane, until nothing is or others should have the slot.

A message at the broker wakes a lane (``domain/deliveries.heads``); its holder claims a few rows at
a time and sends them one after the other, each written down before the next. One that fails for
now makes the rest of its address wait, one whose channel is away makes the channel wait.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy.orm import Session

from genonaut.core.backoff import backoff_s
from genonaut.core.clock import utcnow
from genonaut.core.errors import (
    ChannelAwayError,
    DeliveryFailedError,
    DeliveryRefusedError,
    GenonautError,
    LeaseLostError,
    NotFoundError,
)
from genonaut.db.models import NotificationDelivery
from genonaut.domain import delivery_attempts, lanes, parcels, signing
from genonaut.domain.lanes import Batch
from genonaut.domain.parcels import Parcel
from genonaut.domain.signing import Key
from genonaut.worker import discovery, drain
from genonaut.worker.channel import Channel, Post, Sender
from genonaut.worker.held import DATABASE_AWAY, HeldRow, claim_patiently
from genonaut.worker.lease import LeaseKeeper
from genonaut.worker.services import Services

log = structlog.get_logger(__name__)

BATCH = 20
TURN_S = 60.0
"""A holder gives up its slot after so long, for other lanes."""
AWAY_AGAIN_S = 30.0

Write = Callable[[Session, Batch], None]


def run(services: Services, delivery_id: int, *, worker: str) -> int:
    """Send what is due in the lane of a message; give how many were sent."""
    ends_at = time.monotonic() + TURN_S
    count = 0
    while True:
        held = _claim(services, delivery_id, worker)
        if held is None:
            return count
        lane = _Lane(services, held, ends_at)
        count += lane.run()
        if not lane.goes_on:
            return count
        if time.monotonic() > ends_at or drain.is_over():
            with services.database.transaction() as session:
                lanes.pass_on(session, held.lane)
            return count


def _claim(services: Services, delivery_id: int, worker: str) -> Batch | None:
    settings = services.settings

    def claim(session: Session) -> Batch | None:
        asked = lanes.lane_of(session, delivery_id)
        channel = discovery.channels().get(asked.channel) if asked else None
        limit = BATCH
        per_minute = channel.per_minute(settings) if channel else None
        if asked is not None and per_minute is not None:
            limit = min(BATCH, per_minute - lanes.sent_last_minute(session, asked.channel))
            if limit <= 0:
                lanes.pass_on(session, asked.lane, after_s=60 / per_minute)
                return None
        return lanes.claim_lane(
            session, delivery_id, worker=worker, lease_s=settings.lease_s, limit=limit
        )

    return claim_patiently(services.database, delivery_id, claim)


class _Lane:
    """One batch, from its claim to its last message."""

    def __init__(self, services: Services, held: Batch, ends_at: float) -> None:
        self._services = services
        self._ends_at = ends_at
        self._settings = services.settings
        self._held = held
        self._row = HeldRow(services.database, held)
        self._left = list(held.ids)
        self._unwritten: Write | None = None
        self._room: dict[int, int] = {}
        self.goes_on = True
        """Whether more of the lane may be sent at once."""

    def run(self) -> int:
        """Send the batch; give how many were sent."""

        def renew(session: Session) -> None:
            lanes.renew(session, self._held, lease_s=self._settings.lease_s)

        keeper = LeaseKeeper(
            self._services.database,
            self._held.row_id,
            renew,
            every_s=self._settings.lease_renew_s,
        )
        try:
            with keeper as lease:
                return self._send_all(lease)
        except LeaseLostError as error:
            log.warning("fenced_out", lane=self._held.lane, reason=str(error))
            self.goes_on = False
            return 0

    def _send_all(self, lease: LeaseKeeper) -> int:
        channel = discovery.channels().get(self._held.channel)
        batch, key = self._load()
        if channel is None:
            for delivery_id in self._held.ids:
                self._cancel(delivery_id, "unknown_channel", "there is no such channel any more")
            return 0
        count = 0
        post = Post(self._settings, self._services.storage, key)
        try:
            with channel.open(post) as sender:
                for parcel in batch:
                    lease.check()
                    if not self._left or drain.is_over() or time.monotonic() > self._ends_at:
                        break
                    count += self._send(channel, sender, parcel)
        finally:
            self._put_back_the_rest()
        return count

    def _load(self) -> tuple[list[Parcel | NotificationDelivery], Key]:
        def read(session: Session, held: Batch) -> tuple[list[Parcel | NotificationDelivery], Key]:
            found = parcels.load(session, held)
            ids = {parcel.address.id for parcel in found if isinstance(parcel, Parcel)}
            self._room = lanes.room(
                session, held.channel, ids, per_receiver=self._settings.receiver_per_minute
            )
            return found, signing.installation_key(session, self._settings.secret_key)

        return self._row.write(read)

    def _send(self, channel: Channel, sender: Sender, parcel: Parcel | NotificationDelivery) -> int:
        """Send one message and write down how it went; 1 if it was sent."""
        forbidden = parcels.refusal(parcel)
        if isinstance(parcel, NotificationDelivery) or forbidden is not None:
            row = parcel if isinstance(parcel, NotificationDelivery) else parcel.delivery
            self._cancel(row.id, *(forbidden or ("address_gone", "its address is gone")))
            return 0
        now = utcnow()
        try:
            wait_until = self._wait_until(parcel, now)
            if wait_until is None:
                why_not = channel.why_not(self._settings)
                if why_not is not None:
                    raise ChannelAwayError(why_not)
                sender.send(parcel, now)
        except DeliveryRefusedError as error:
            self._refused(channel, parcel, error)
        except ChannelAwayError as error:
            self._channel_away(parcel, error)
        except DeliveryFailedError as error:
            self._failed(channel, parcel, error, error.retry_after_s)
        except Exception as error:
            # A bug in one message must not keep the lane's others from being sent.
            log.exception("delivery_failed", delivery_id=parcel.delivery.id)
            words = GenonautError(f"Genonaut itself failed ({type(error).__name__}); see its logs")
            self._failed(channel, parcel, words, None)
        else:
            if wait_until is not None:
                self._wait(parcel, wait_until)
                return 0
            self._room[parcel.address.id] -= 1
            proves = parcel.delivery.purpose == "verification" and channel.is_verified_by_answer
            self._end(
                parcel,
                lambda session, held: delivery_attempts.sent(
                    session, held, parcel, proves_address=proves
                ),
            )
            return 1
        return 0

    def _wait_until(self, parcel: Parcel, now: datetime) -> datetime | None:
        """Give until when a message must wait for its receiver; None if it need not."""
        quiet = parcels.quiet_until(parcel, now)
        if quiet is None and self._room[parcel.address.id] <= 0:
            return now + timedelta(minutes=1)
        return quiet

    def _wait(self, parcel: Parcel, until: datetime) -> None:
        self._end(
            parcel,
            lambda session, held: delivery_attempts.put_back(
                session, held, parcel.delivery.id, until=until
            ),
        )

    def _refused(self, channel: Channel, parcel: Parcel, error: DeliveryRefusedError) -> None:
        self._log(parcel, "refused", error)
        if not channel.is_relayed:
            self._put_back_the_rest(but=parcel.delivery.id)  # the address may rest after this
        self._end(
            parcel,
            lambda session, held: delivery_attempts.refused(
                session, held, parcel, code=error.code, why=str(error), is_gone=error.is_gone
            ),
        )

    def _failed(
        self, channel: Channel, parcel: Parcel, error: GenonautError, retry_after_s: float | None
    ) -> None:
        self._log(parcel, "not_taken", error)
        if not channel.is_relayed:
            self._stop_with(parcel)

        def write(session: Session, held: Batch) -> None:
            delivery_attempts.try_again(
                session,
                held,
                parcel,
                code=error.code,
                why=str(error),
                first_s=self._settings.delivery_backoff_s,
                retry_after_s=retry_after_s,
            )

        self._end(parcel, write)

    def _channel_away(self, parcel: Parcel, error: ChannelAwayError) -> None:
        self._log(parcel, "channel_away", error)
        self._stop_with(parcel)

        def write(session: Session, held: Batch) -> None:
            delivery_attempts.wait_for_channel(
                session,
                held,
                parcel,
                code=error.code,
                why=str(error),
                after_s=backoff_s(1, min(AWAY_AGAIN_S, 3 * self._settings.delivery_backoff_s)),
            )

        self._end(parcel, write)

    def _stop_with(self, parcel: Parcel) -> None:
        """Give back all but this message, so that they wait with what waits in the lane."""
        self.goes_on = False
        self._put_back_the_rest(but=parcel.delivery.id)

    def _cancel(self, delivery_id: int, code: str, why: str) -> None:
        self._write_down(
            delivery_id,
            lambda session, held: delivery_attempts.cancelled(
                session, held, delivery_id, code=code, why=why
            ),
        )

    def _end(self, parcel: Parcel, write: Write) -> None:
        self._write_down(parcel.delivery.id, write)

    def _write_down(self, delivery_id: int, write: Write) -> None:
        try:
            with suppress(NotFoundError):  # its owner has just deleted what it was about
                self._row.end(write)
        except (*DATABASE_AWAY, SoftTimeLimitExceeded):
            self._unwritten = write  # it is known how it went: it must not go back with the rest
            raise
        finally:
            self._left.remove(delivery_id)

    def _put_back_the_rest(self, *, but: int | None = None) -> None:
        rest = [delivery_id for delivery_id in self._left if delivery_id != but]
        unwritten = self._unwritten
        if not rest and unwritten is None:
            return

        def write(session: Session, held: Batch) -> None:
            if unwritten is not None:
                with suppress(NotFoundError, LeaseLostError), session.begin_nested():
                    unwritten(session, held)
            for delivery_id in rest:
                with suppress(NotFoundError, LeaseLostError):  # of this one; the others go back
                    delivery_attempts.put_back(session, held, delivery_id)

        self._row.write(write)
        self._left = [] if but is None else [but]

    def _log(self, parcel: Parcel, how: str, error: GenonautError) -> None:
        log.warning(
            "delivery_not_sent",
            how=how,
            delivery_id=parcel.delivery.id,
            channel=self._held.channel,
            attempt=parcel.delivery.attempt,
            code=error.code,
            reason=str(error)[:200],
        )
