"""Let users say how and where they want to hear."""

from typing import Any
from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_notifications as answers
from genonaut.api.answers import CHANGING, POSTING, READING, problems
from genonaut.api.config import Settings
from genonaut.api.deps import Caller, CallerDep
from genonaut.api.requests_notifications import AddressRequest, PreferencesRequest
from genonaut.core.clock import utcnow
from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.db.models import NotificationAddress
from genonaut.domain import addresses, deliveries, preference_writing, preferences, signing
from genonaut.worker import discovery
from genonaut.worker.channel import Channel

router = APIRouter(tags=["notifications"])


@router.get(
    "/notification-preferences",
    operation_id="readNotificationPreferences",
    responses={200: {"model": answers.Preferences}, **READING},
)
def read_preferences(caller: CallerDep) -> Response:
    """Read how one wants to hear, and which channels there are."""
    with caller.transaction() as (session, who):
        wanted = preferences.read(session, who.user_id)
        channels = channels_of(session, who.user_id, caller.services.settings)
    return JSONResponse({**wanted.public(discovery.channels()), "channels": channels})


@router.put(
    "/notification-preferences",
    operation_id="savePreferences",
    responses={200: {"model": answers.Preferences}, **POSTING},
)
def save_preferences(body: PreferencesRequest, caller: CallerDep) -> Response:
    """Say how one wants to hear; what is left out takes its default."""
    known = discovery.channels()
    with caller.transaction() as (session, who):
        wanted = preference_writing.save(
            session, who.user_id, body.to_preferences(), channels=known
        )
        channels = channels_of(session, who.user_id, caller.services.settings)
    return JSONResponse({**wanted.public(known), "channels": channels})


@router.get(
    "/notification-channels",
    operation_id="listNotificationChannels",
    responses={200: {"model": answers.ChannelList}, **READING},
)
def list_channels(caller: CallerDep) -> Response:
    """List the channels, whether each can be used here, and where it reaches one."""
    with caller.transaction() as (session, who):
        found = channels_of(session, who.user_id, caller.services.settings)
    return JSONResponse({"items": found})


@router.put(
    "/notification-channels/{name}",
    operation_id="setNotificationAddress",
    responses={200: {"model": answers.ChannelSet}, **POSTING, **problems(404, 409, 429)},
)
def set_address(name: str, body: AddressRequest, caller: CallerDep) -> Response:
    """Have a channel reach one at an address, once it is verified.

    A mail address is sent a link to follow. A webhook is posted a challenge, to be repeated in the
    answer, and its secret is shown: this once.
    """
    return JSONResponse(address_set(name, body.address, caller))


def address_set(name: str, wanted: str, caller: Caller) -> dict[str, Any]:
    """Keep an address; give the channel as it is now, with the ``secret`` that is shown once.

    Raises: InvalidInputError: the channel cannot reach such an address.
    """
    settings = caller.services.settings
    channel = _usable(name, settings)
    with caller.transaction():
        pass  # names are looked up for those who are logged in, and outside a transaction
    endpoint = channel.check(wanted, settings)
    with caller.transaction(in_turn=True) as (session, who):
        before = addresses.of_user(session, who.user_id).get(name)
        address = addresses.put(session, who.user_id, endpoint)
        is_new = before is None or before.id != address.id
        secret = _secret(session, settings, address) if is_new else None
    return {**_shown(channel, address, settings), "secret": secret}


@router.delete(
    "/notification-channels/{name}",
    status_code=204,
    operation_id="removeNotificationAddress",
    responses={**CHANGING, **problems(404)},
)
def remove_address(name: str, caller: CallerDep) -> Response:
    """Be reached over a channel no more; what waits to be sent there is cancelled."""
    _sending(name)
    with caller.transaction() as (session, who):
        addresses.remove(session, who.user_id, name)
    return Response(status_code=204)


@router.post(
    "/notification-channels/{name}/verify",
    status_code=202,
    operation_id="verifyNotificationAddress",
    responses={202: {"model": answers.Delivery}, **CHANGING, **problems(404, 409, 429)},
)
def verify(name: str, caller: CallerDep) -> Response:
    """Send the check of an address again; one that was disabled is used again once it succeeds."""
    _usable(name, caller.services.settings)
    with caller.transaction(in_turn=True) as (session, who):
        sent = addresses.ask(session, addresses.one(session, who.user_id, name))
    return JSONResponse(deliveries.public(sent), 202)


@router.post(
    "/notification-channels/{name}/test",
    status_code=202,
    operation_id="testNotificationChannel",
    responses={202: {"model": answers.Delivery}, **CHANGING, **problems(404, 409, 429)},
)
def send_test(name: str, caller: CallerDep) -> Response:
    """Send a test message to one's address, whatever the preferences and the hour."""
    _usable(name, caller.services.settings)
    with caller.transaction(in_turn=True) as (session, who):
        sent = addresses.send_test(session, who.user_id, name)
    return JSONResponse(deliveries.public(sent), 202)


@router.post(
    "/notification-channels/{name}/rotate-secret",
    operation_id="rotateWebhookSecret",
    responses={200: {"model": answers.ChannelSet}, **CHANGING, **problems(404, 409)},
)
def rotate_secret(name: str, caller: CallerDep) -> Response:
    """Sign with a new secret, shown this once; the old one signs too for another day."""
    settings = caller.services.settings
    channel = _usable(name, settings)
    if not channel.is_verified_by_answer:
        raise NotFoundError("this channel has no secret")
    with caller.transaction() as (session, who):
        address = addresses.rotate_secret(session, who.user_id, name)
        secret = _secret(session, settings, address)
    return JSONResponse({**_shown(channel, address, settings), "secret": secret})


def _sending(name: str) -> Channel:
    """Give a channel that sends.

    Raises: NotFoundError: there is none of that name.
    """
    channel = discovery.channels().get(name)
    if channel is None or not channel.has_addresses:
        raise NotFoundError("there is no channel of that name that takes an address")
    return channel


def _usable(name: str, settings: Settings) -> Channel:
    """Give a channel that sends, and is set up here.

    Raises:
        NotFoundError: there is none of that name.
        ConflictError: it is not set up here.
    """
    channel = _sending(name)
    why_not = channel.why_not(settings)
    if why_not is not None:
        raise ConflictError(why_not, code="channel_not_configured")
    return channel


def _secret(session: Session, settings: Settings, address: NotificationAddress) -> str | None:
    if not discovery.channels()[address.channel].is_verified_by_answer:
        return None
    key = signing.installation_key(session, settings.secret_key)
    return signing.webhook_secrets(key, address, utcnow())[0]


def channels_of(session: Session, user_id: UUID, settings: Settings) -> list[dict[str, Any]]:
    """Give the channels as their user is shown them."""
    found = addresses.of_user(session, user_id)
    return [
        _shown(channel, found.get(name), settings) for name, channel in discovery.channels().items()
    ]


def _shown(
    channel: Channel, address: NotificationAddress | None, settings: Settings
) -> dict[str, Any]:
    why_not = channel.why_not(settings)
    return {
        "name": channel.name,
        "configured": why_not is None,
        "reason": why_not,
        "takes_address": channel.has_addresses,
        "address": addresses.public(address) if address else None,
    }
