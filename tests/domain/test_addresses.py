"""Addresses are checked before first use, rest when they fail, and are told apart when changed."""

import pytest
from sqlalchemy import select

from genonaut.core.clock import utcnow
from genonaut.core.errors import ConflictError, InvalidInputError, NotFoundError, RateLimitedError
from genonaut.db.models import NotificationDelivery
from genonaut.domain import addresses, notifications, signing
from genonaut.domain.addresses import Endpoint
from genonaut.domain.signing import Key

KEY = Key(b"k" * 32)
MAIL = Endpoint("email", "ada@example.org", "email", is_relayed=True, takes_digest=True)
OTHER = Endpoint("email", "ada@example.net", "email", is_relayed=True, takes_digest=True)


@pytest.fixture
def ada(make_user):
    return make_user()


def sent(session, user) -> list[tuple[str, str]]:
    rows = session.scalars(
        select(NotificationDelivery)
        .where(NotificationDelivery.user_id == user.id)
        .order_by(NotificationDelivery.id)
        .execution_options(populate_existing=True)
    )
    return [(row.purpose, row.status) for row in rows]


def test_an_address_is_used_once_its_owner_followed_the_link(session, ada):
    address = addresses.put(session, ada.id, MAIL)
    assert (addresses.state(address), sent(session, ada)) == (
        "unverified",
        [("verification", "pending")],
    )
    addresses.verify(session, KEY, signing.verify_token(KEY, address, utcnow()))
    assert addresses.state(address) == "active"
    with pytest.raises(InvalidInputError):
        addresses.verify(session, KEY, "1.2.forged")


def test_the_same_again_changes_nothing_and_another_begins_anew(session, ada):
    first = addresses.put(session, ada.id, MAIL)
    addresses.take_into_use(session, first.id)
    assert addresses.put(session, ada.id, MAIL).id == first.id
    second = addresses.put(session, ada.id, OTHER)
    assert second.id != first.id
    assert addresses.state(second) == "unverified"
    assert sent(session, ada) == [("verification", "cancelled"), ("verification", "pending")]


def test_a_check_is_sent_again_but_not_twice_at_once_nor_too_often(session, ada):
    address = addresses.put(session, ada.id, MAIL)
    with pytest.raises(ConflictError):
        addresses.ask(session, address)
    for number in range(addresses.ASKED_AT_MOST - 1):
        endpoint = Endpoint("email", f"{number}@example.org", "email")
        addresses.put(session, ada.id, endpoint)
    with pytest.raises(RateLimitedError):
        addresses.put(session, ada.id, MAIL)
    addresses.put(session, ada.id, Endpoint("webhook", "https://example.org/", "example.org"))


def test_a_test_goes_to_an_address_in_use_only(session, ada):
    with pytest.raises(NotFoundError):
        addresses.send_test(session, ada.id, "email")
    address = addresses.put(session, ada.id, MAIL)
    with pytest.raises(ConflictError):
        addresses.send_test(session, ada.id, "email")
    addresses.take_into_use(session, address.id)
    assert addresses.send_test(session, ada.id, "email").purpose == "test"
    with pytest.raises(ConflictError):
        addresses.ask(session, address)


def test_an_address_that_refuses_too_often_rests_and_its_owner_is_told_once(
    session, make_address, make_delivery, ada
):
    address = make_address(ada)
    waiting = make_delivery(address)
    for _ in range(addresses.DISABLE_AFTER - 1):
        addresses.note_failure(session, address.id, why="550 no")
    addresses.note_success(session, address.id)
    for _ in range(addresses.DISABLE_AFTER):
        addresses.note_failure(session, address.id, why="550 no")
    now = addresses.one(session, ada.id, "email", lock=True)
    assert (addresses.state(now), now.disabled_reason) == ("disabled", "550 no")
    assert addresses.disable(session, now, why="again") is None
    told = notifications.list_for(session, ada.id, kinds=["system"])
    assert len([row for row in told if row.data == {"channel": "email"}]) == 1
    assert sent(session, ada) == [("notification", "cancelled")]
    assert waiting.address_id == address.id
    addresses.ask(session, now)
    addresses.take_into_use(session, now.id)
    assert addresses.state(addresses.one(session, ada.id, "email", lock=True)) == "active"


def test_an_address_that_is_gone_rests_at_once(session, make_address, ada):
    address = make_address(ada)
    addresses.note_failure(session, address.id, why="410", is_gone=True)
    assert addresses.state(addresses.one(session, ada.id, "email", lock=True)) == "disabled"
    addresses.note_failure(session, 2**40, why="there is none")


def test_unsubscribing_needs_the_link_and_is_harmless_twice(session, make_address, ada):
    token = signing.unsubscribe_token(KEY, make_address(ada))
    with pytest.raises(InvalidInputError):
        addresses.unsubscribe(session, Key(b"l" * 32), token)
    for _ in range(2):
        addresses.unsubscribe(session, KEY, token)
    assert addresses.one(session, ada.id, "email", lock=True).disabled_reason == "unsubscribed"


def test_a_secret_is_rotated_once_a_day(session, make_address, ada):
    make_address(ada, "webhook")
    assert addresses.rotate_secret(session, ada.id, "webhook").secret_version == 2
    with pytest.raises(ConflictError):
        addresses.rotate_secret(session, ada.id, "webhook")
    with pytest.raises(NotFoundError):
        addresses.rotate_secret(session, ada.id, "email")


def test_an_address_that_was_taken_away_is_not_there(session, make_address, make_delivery, ada):
    address = make_address(ada)
    make_delivery(address)
    addresses.remove(session, ada.id, "email")
    assert addresses.of_user(session, ada.id) == {}
    assert sent(session, ada) == [("notification", "cancelled")]
    assert addresses.take_into_use(session, address.id) is None


def test_nothing_secret_is_shown(make_address):
    shown = addresses.public(make_address(channel="webhook"))
    assert "secret" not in "".join(name for name in shown if name != "secret_rotated_at")
