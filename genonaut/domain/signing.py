"""Make what only this installation can make: tokens in links, and the secrets of webhooks.

Nothing of it is stored. A token or secret is an HMAC, under the installation's key, of what it is
for; so it can be made again whenever it is needed, and a copy of the tables alone lets nobody
sign, as long as the key is not among them (``SECRET_KEY``).
"""

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import NotificationAddress, SigningKey

OVERLAP = timedelta(hours=24)
"""For so long the secret before a rotation still counts."""
LINK_TTL = timedelta(hours=24)

_TOKEN = re.compile(
    r"(?P<id>[0-9]{1,18})\.(?:(?P<until>[0-9]{1,12})\.)?(?P<mac>[A-Za-z0-9_-]{43})", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Key:
    """The installation's key."""

    raw: bytes

    def __repr__(self) -> str:
        return "Key(…)"

    def mac(self, purpose: str, *parts: object) -> bytes:
        """Give 32 bytes for a purpose; its parts cannot run into one another."""
        told = [purpose.encode(), *(str(part).encode() for part in parts)]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in told)
        return hmac.new(self.raw, message, hashlib.sha256).digest()


def installation_key(session: Session, configured: str | None) -> Key:
    """Give the key: what is configured, else the one that the database keeps, made if need be."""
    if configured is not None:
        return Key(configured.encode())
    kept = session.scalars(select(SigningKey.key)).one_or_none()
    if kept is None:
        session.execute(
            insert(SigningKey).values(key=secrets.token_hex(32)).on_conflict_do_nothing()
        )
        kept = session.scalars(select(SigningKey.key)).one()
    return Key(kept.encode())


def webhook_secrets(key: Key, address: NotificationAddress, now: datetime) -> list[str]:
    """Give the secrets that sign for an address, as Standard Webhooks writes them; newest first."""
    versions = [address.secret_version]
    if address.rotated_at is not None and now < address.rotated_at + OVERLAP:
        versions.append(address.secret_version - 1)
    return [_webhook_secret(key, address, version) for version in versions]


def _webhook_secret(key: Key, address: NotificationAddress, version: int) -> str:
    # Where and when it was made, too: ids begin anew with a new database, keys may stay.
    made = address.created_at.timestamp()
    raw = key.mac("webhook", address.id, address.user_id, address.address, made, version)
    return "whsec_" + base64.b64encode(raw).decode()


def challenge(key: Key, message_id: str) -> str:
    """Give what a webhook must answer to show that it wants to hear."""
    return key.mac("challenge", message_id).hex()


def unsubscribe_token(key: Key, address: NotificationAddress) -> str:
    """Give the token of an address's link to hear no more; it holds as long as the address."""
    return f"{address.id}.{_text(key.mac('unsubscribe', *_named(address)))}"


def verify_token(key: Key, address: NotificationAddress, now: datetime) -> str:
    """Give the token of the link that shows that mail arrives; it holds for a day."""
    until = int((now + LINK_TTL).timestamp())
    return f"{address.id}.{until}.{_text(key.mac('verify', *_named(address), until))}"


def address_of(
    session: Session, key: Key, token: str, purpose: str, *, now: datetime | None = None
) -> NotificationAddress:
    """Give the address a token was made for; with ``now``, the token must say until when it holds.

    Raises: InvalidInputError: it was not made here for this, is too old, or the address is gone.
    """
    wrong = InvalidInputError("this link is not valid any more", field="token")
    shape = _TOKEN.fullmatch(token)
    if shape is None or (shape["until"] is None) != (now is None):
        raise wrong
    address = session.get(NotificationAddress, int(shape["id"]))
    if address is None:
        raise wrong
    until = [int(shape["until"])] if shape["until"] else []
    expected = _text(key.mac(purpose, *_named(address), *until))
    if not hmac.compare_digest(expected, shape["mac"]):
        raise wrong
    if now is not None and now.timestamp() > until[0]:
        raise wrong
    return address


def _named(address: NotificationAddress) -> tuple[object, ...]:
    return address.id, address.user_id, address.address, address.created_at.timestamp()


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
