"""Keep where channels reach users: asked for, verified before first use, rested when they fail."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, NotFoundError, RateLimitedError
from genonaut.db.models import NotificationAddress, NotificationDelivery
from genonaut.domain import deliveries, notifications, signing
from genonaut.domain.deliveries import cancel_pending
from genonaut.domain.kinds import Kind
from genonaut.domain.lifecycle import UNFINISHED
from genonaut.domain.signing import Key

ASKED_AT_MOST = 5
ASKED_WITHIN = timedelta(hours=1)
DISABLE_AFTER = 5
"""So many messages refused for good, one after the other, rest an address."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An address that its channel has found right: whom to speak to, and what it is good for."""

    channel: str
    address: str
    host: str
    is_relayed: bool = False
    takes_digest: bool = False


def state(address: NotificationAddress) -> str:
    """Say in a word whether an address is in use: ``active``, ``unverified`` or ``disabled``."""
    if address.disabled_at is not None:
        return "disabled"
    return "active" if address.verified_at is not None else "unverified"


def public(address: NotificationAddress) -> dict[str, Any]:
    """Give what its owner may see, ready for JSON; never a secret."""
    return {
        "address": address.address,
        "state": state(address),
        "verified_at": address.verified_at.isoformat() if address.verified_at else None,
        "disabled_at": address.disabled_at.isoformat() if address.disabled_at else None,
        "disabled_reason": address.disabled_reason,
        "failures": address.failures,
        "secret_rotated_at": address.rotated_at.isoformat() if address.rotated_at else None,
        "created_at": address.created_at.isoformat(),
    }


def of_user(session: Session, user_id: UUID) -> dict[str, NotificationAddress]:
    """Give a user's addresses by channel."""
    found = session.scalars(
        select(NotificationAddress).where(NotificationAddress.user_id == user_id)
    )
    return {address.channel: address for address in found}


def one(
    session: Session, user_id: UUID, channel: str, *, lock: bool = False
) -> NotificationAddress:
    """Give a user's address on a channel.

    Raises: NotFoundError: there is none.
    """
    query = select(NotificationAddress).where(
        NotificationAddress.user_id == user_id, NotificationAddress.channel == channel
    )
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found = session.scalars(query).one_or_none()
    if found is None:
        raise NotFoundError(f"no {channel} address is set")
    return found


def put(session: Session, user_id: UUID, endpoint: Endpoint) -> NotificationAddress:
    """Have a channel reach a user at an address, once it is verified; the check is sent now.

    The same address again stays as it is, and is checked again only if it is not in use. Another
    one takes its place: what waits for the old one is cancelled.

    Raises: RateLimitedError: too many checks were asked for lately.
    """
    before = of_user(session, user_id).get(endpoint.channel)
    if before is not None and before.address == endpoint.address:
        if state(before) != "active":
            ask(session, before)
        return before
    _count_asks(session, user_id, endpoint.channel)
    if before is not None:
        _remove(session, before)
    address = session.scalars(
        insert(NotificationAddress)
        .values(
            user_id=user_id,
            channel=endpoint.channel,
            address=endpoint.address,
            host=endpoint.host,
            is_relayed=endpoint.is_relayed,
            takes_digest=endpoint.takes_digest,
        )
        .on_conflict_do_nothing()
        .returning(NotificationAddress)
    ).one_or_none()
    if address is None:
        raise ConflictError("another request has just set this address")
    _send_check(session, address)
    return address


def ask(session: Session, address: NotificationAddress) -> NotificationDelivery:
    """Send the check of an address again; what was disabled is used again once it succeeds.

    Raises:
        ConflictError: the address is in use, or a check is under way.
        RateLimitedError: too many checks were asked for lately.
    """
    if state(address) == "active":
        raise ConflictError("this address is verified", code="already_verified")
    waiting = session.scalars(
        select(func.count()).where(
            NotificationDelivery.address_id == address.id,
            NotificationDelivery.purpose == "verification",
            NotificationDelivery.status.in_(UNFINISHED),
        )
    ).one()
    if waiting:
        raise ConflictError("a check of this address is under way", code="already_asked")
    _count_asks(session, address.user_id, address.channel)
    return _send_check(session, address)


def _send_check(session: Session, address: NotificationAddress) -> NotificationDelivery:
    subject = f"verification:{uuid4()}"
    return _store(session, address, subject=subject, purpose="verification")


def _store(session: Session, address: NotificationAddress, **columns: Any) -> NotificationDelivery:
    made = deliveries.store(session, [deliveries.values(address, max_attempts=3, **columns)])
    if not made:  # it was removed this moment
        raise NotFoundError(f"no {address.channel} address is set")
    return made[0]


def _count_asks(session: Session, user_id: UUID, channel: str) -> None:
    """Let nobody have us knock at addresses that may be other people's, again and again."""
    asked = session.scalars(
        select(func.count()).where(
            NotificationDelivery.user_id == user_id,
            NotificationDelivery.channel == channel,
            NotificationDelivery.purpose.in_(["verification", "test"]),
            NotificationDelivery.created_at > func.now() - ASKED_WITHIN,
        )
    ).one()
    if asked >= ASKED_AT_MOST:
        raise RateLimitedError(
            f"at most {ASKED_AT_MOST} checks and tests of a channel an hour; try again later",
            retry_after_s=ASKED_WITHIN.total_seconds() / ASKED_AT_MOST,
            limit=ASKED_AT_MOST,
        )


def send_test(session: Session, user_id: UUID, channel: str) -> NotificationDelivery:
    """Send a test message, whatever the preferences and the time of day.

    Raises:
        NotFoundError: no address is set.
        ConflictError: it is not verified, or is disabled.
        RateLimitedError: too many tests were asked for lately.
    """
    address = one(session, user_id, channel)
    if state(address) != "active":
        raise ConflictError(f"this address is {state(address)}", code=f"address_{state(address)}")
    _count_asks(session, user_id, channel)
    return _store(session, address, subject=f"test:{uuid4()}", purpose="test")


def remove(session: Session, user_id: UUID, channel: str) -> None:
    """Reach a user over a channel no more; what waits for the address is cancelled.

    Raises: NotFoundError: no address is set.
    """
    _remove(session, one(session, user_id, channel))


def _remove(session: Session, address: NotificationAddress) -> None:
    cancel_pending(session, address.id, code="address_gone", why="the address was taken away")
    session.execute(
        delete(NotificationAddress)
        .where(NotificationAddress.id == address.id)
        .execution_options(synchronize_session=False)
    )
    session.expunge(address)


def verify(session: Session, key: Key, token: str) -> NotificationAddress:
    """Take an address into use whose owner has followed the link sent there.

    Raises: InvalidInputError: the link was not made here, is too old, or the address is gone.
    """
    now = session.scalars(select(func.now())).one()
    address = signing.address_of(session, key, token, "verify", now=now)
    return take_into_use(session, address.id) or address


def take_into_use(session: Session, address_id: int) -> NotificationAddress | None:
    """Note that an address was verified; None when it is gone."""
    return session.scalars(
        update(NotificationAddress)
        .where(NotificationAddress.id == address_id)
        .values(
            verified_at=func.coalesce(NotificationAddress.verified_at, func.now()),
            disabled_at=None,
            disabled_reason=None,
            failures=0,
        )
        .returning(NotificationAddress)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).one_or_none()


def rotate_secret(session: Session, user_id: UUID, channel: str) -> NotificationAddress:
    """Sign with a new secret; for a day with the old one too, so that receivers can follow.

    Raises:
        NotFoundError: no address is set.
        ConflictError: it was rotated less than a day ago, so two secrets count already.
    """
    address = one(session, user_id, channel, lock=True)
    now: datetime = session.scalars(select(func.now())).one()
    if address.rotated_at is not None and now < address.rotated_at + signing.OVERLAP:
        raise ConflictError("it was rotated within the last day", code="rotated_lately")
    return session.scalars(
        update(NotificationAddress)
        .where(NotificationAddress.id == address.id)
        .values(secret_version=NotificationAddress.secret_version + 1, rotated_at=func.now())
        .returning(NotificationAddress)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).one()


def unsubscribe(session: Session, key: Key, token: str) -> NotificationAddress:
    """Send nothing more to an address, for whoever has the link of a message sent there.

    Raises: InvalidInputError: the link was not made here, or the address is gone.
    """
    address = signing.address_of(session, key, token, "unsubscribe")
    return disable(session, address, why="unsubscribed") or address


def disable(
    session: Session, address: NotificationAddress, *, why: str
) -> NotificationAddress | None:
    """Let an address rest, and tell its owner in the application; None if it rests already."""
    changed = session.scalars(
        update(NotificationAddress)
        .where(NotificationAddress.id == address.id, NotificationAddress.disabled_at.is_(None))
        .values(disabled_at=func.now(), disabled_reason=why[:300])
        .returning(NotificationAddress)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).one_or_none()
    if changed is None or changed.disabled_at is None:
        return None
    cancel_pending(session, address.id, code="address_disabled", why=why)
    notifications.notify(
        session,
        changed.user_id,
        Kind.SYSTEM,
        dedupe_key=f"address:{changed.id}:disabled:{changed.disabled_at.isoformat()}",
        title=f"Nothing more is sent to you by {changed.channel}",
        body=f"{why}. Verify the address again to use it again.",
        data={"channel": changed.channel},
    )
    return changed


def note_failure(session: Session, address_id: int, *, why: str, is_gone: bool = False) -> None:
    """Count a message refused for good; one too many, or an address that is gone, rests it."""
    failed = session.scalars(
        update(NotificationAddress)
        .where(NotificationAddress.id == address_id)
        .values(failures=NotificationAddress.failures + 1)
        .returning(NotificationAddress)
        .execution_options(populate_existing=True, synchronize_session=False)
    ).one_or_none()
    if failed is not None and (is_gone or failed.failures >= DISABLE_AFTER):
        disable(session, failed, why=why)


def note_success(session: Session, address_id: int) -> None:
    """Forget the failures of an address that takes messages."""
    session.execute(
        update(NotificationAddress)
        .where(NotificationAddress.id == address_id, NotificationAddress.failures > 0)
        .values(failures=0)
        .execution_options(synchronize_session=False)
    )
