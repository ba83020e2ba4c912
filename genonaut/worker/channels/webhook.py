"""Reach users' own programs: one signed POST per notification, as Standard Webhooks says."""

import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from genonaut.api.config import Settings
from genonaut.clients import guard, webhooks
from genonaut.clients.guard import Allowed, Resolve
from genonaut.clients.webhooks import Answer
from genonaut.core.errors import (
    DeliveryFailedError,
    DeliveryRefusedError,
    InvalidInputError,
)
from genonaut.domain import notifications, signing
from genonaut.domain.addresses import Endpoint
from genonaut.domain.parcels import Parcel
from genonaut.worker.channel import Post

_LOOK_UP_S = 3.0
_PASSING = frozenset({408, 409, 425, 429})
"""Answers in the four hundreds that waiting may cure."""


class Webhook:
    """Post to the URL a user gave, once its receiver has answered a challenge."""

    name = "webhook"
    has_addresses = True
    is_relayed = False
    is_verified_by_answer = True

    def __init__(self, resolve: Resolve = guard.system_resolve) -> None:
        self._resolve = resolve

    def why_not(self, _: Settings) -> str | None:
        """Say that it can always be used."""
        return None

    def per_minute(self, settings: Settings) -> int | None:
        """Give the operator's limit."""
        return settings.webhooks_per_minute

    def check(self, address: str, settings: Settings) -> Endpoint:
        """Refuse what is no URL, or leads to a host that is not public.

        Who asks is not told whether there is such a host: names of ours are nobody's to try.
        """
        url = webhooks.check_url(address)
        host = url.raw_host.decode("ascii").strip("[]")
        try:
            guard.permitted(
                host,
                url.port or 443,
                Allowed.of(settings.allowed_networks),
                timeout_s=_LOOK_UP_S,
                resolve=self._resolve,
            )
        except (DeliveryRefusedError, DeliveryFailedError) as error:
            raise InvalidInputError(
                f"{host} is not known, or not public", field="address", code="address_refused"
            ) from error
        return Endpoint(self.name, str(url), host)

    @contextmanager
    def open(self, post: Post) -> Iterator["WebhookSender"]:
        """Begin to send; every POST has a connection of its own."""
        yield WebhookSender(post, self._resolve)


class WebhookSender:
    """Post one message after the other."""

    def __init__(self, post: Post, resolve: Resolve) -> None:
        self._post = post
        self._resolve = resolve
        self._allowed = Allowed.of(post.settings.allowed_networks)

    def send(self, parcel: Parcel, now: datetime) -> None:
        """Post a message; for a check the challenge must come back in the answer."""
        delivery = parcel.delivery
        is_check = delivery.purpose == "verification"
        challenge = signing.challenge(self._post.key, delivery.message_id) if is_check else None
        body = json.dumps(payload(parcel, challenge), separators=(",", ":")).encode()
        secrets = signing.webhook_secrets(self._post.key, parcel.address, now)
        answer = webhooks.post(
            webhooks.check_url(parcel.address.address),
            body,
            webhooks.signed(secrets, delivery.message_id, now, body),
            allowed=self._allowed,
            timeout_s=self._post.settings.delivery_timeout_s,
            read_body=is_check,
            resolve=self._resolve,
        )
        judge(answer)
        if challenge is not None and not _echoes(answer.body, challenge):
            raise DeliveryRefusedError(
                "the answer does not repeat the challenge", code="challenge_failed"
            )


def payload(parcel: Parcel, challenge: str | None = None) -> dict[str, Any]:
    """Give what is posted, ready for JSON."""
    delivery = parcel.delivery
    made_at = delivery.created_at.isoformat()
    if delivery.purpose == "verification":
        return {
            "type": "webhook.verification",
            "timestamp": made_at,
            "data": {"challenge": challenge},
        }
    if delivery.purpose == "test":
        return {
            "type": "webhook.test",
            "timestamp": made_at,
            "data": {"title": "This is a test", "username": parcel.username},
        }
    told = parcel.notifications[0]
    return {
        "type": f"notification.{told.kind}",
        "timestamp": told.created_at.isoformat(),
        "data": notifications.public(told),
    }


def judge(answer: Answer) -> None:
    """Take an answer for what it means.

    Raises:
        DeliveryRefusedError: the receiver will never take the message.
        DeliveryFailedError: it may take it later.
    """
    status = answer.status
    told = f"the receiver answered {status}"
    if 200 <= status < 300:
        return
    if status == 410:
        raise DeliveryRefusedError(f"{told}: it wants nothing more", code="gone", is_gone=True)
    if 300 <= status < 400:
        raise DeliveryRefusedError(f"{told}; redirects are not followed", code="redirected")
    if status in _PASSING or status >= 500 or status < 200:
        raise DeliveryFailedError(told, retry_after_s=answer.retry_after_s)
    raise DeliveryRefusedError(told)


def _echoes(body: bytes, challenge: str) -> bool:
    """Whether an answer is the challenge, as text or in JSON."""
    said = body.decode(errors="replace").strip()
    try:
        parsed = json.loads(said)
    except ValueError:
        parsed = said
    if isinstance(parsed, dict):
        parsed = parsed.get("challenge")
    return isinstance(parsed, str) and hmac.compare_digest(parsed.encode(), challenge.encode())


CHANNEL = Webhook()
