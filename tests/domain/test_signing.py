"""What this installation signed nobody else can make, and nothing of it is kept."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import SigningKey
from genonaut.domain import signing
from genonaut.domain.signing import Key

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)
KEY = Key(b"k" * 32)


def test_the_key_is_made_once_and_kept_unless_one_is_configured(session):
    first = signing.installation_key(session, None)
    assert signing.installation_key(session, None) == first
    assert session.scalar(select(func.count()).select_from(SigningKey)) == 1
    assert signing.installation_key(session, "x" * 32) == Key(b"x" * 32)
    assert "x" not in repr(Key(b"x" * 32)).replace("ex", "")


def test_parts_do_not_run_into_one_another():
    assert KEY.mac("a", "bc", "d") != KEY.mac("a", "b", "cd") != KEY.mac("ab", "c", "d")


def test_a_secret_is_always_the_same_and_no_others(make_address):
    one, two = make_address(), make_address()
    (secret,) = signing.webhook_secrets(KEY, one, NOW)
    assert signing.webhook_secrets(KEY, one, NOW) == [secret]
    assert signing.webhook_secrets(KEY, two, NOW) != [secret]
    assert signing.webhook_secrets(Key(b"l" * 32), one, NOW) != [secret]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32


def test_the_secret_before_a_rotation_counts_for_a_day(make_address):
    before = make_address(secret_version=1)
    (old,) = signing.webhook_secrets(KEY, before, NOW)
    before.secret_version, before.rotated_at = 2, NOW
    new, still = signing.webhook_secrets(KEY, before, NOW + timedelta(hours=23))
    assert (still, new == old) == (old, False)
    assert signing.webhook_secrets(KEY, before, NOW + timedelta(hours=25)) == [new]


def test_a_link_opens_its_address_for_what_it_was_made(session, make_address):
    address, other = make_address(), make_address()
    token = signing.unsubscribe_token(KEY, address)
    assert signing.address_of(session, KEY, token, "unsubscribe").id == address.id
    link = signing.verify_token(KEY, address, NOW)
    found = signing.address_of(session, KEY, link, "verify", now=NOW + timedelta(hours=23))
    assert found.id == address.id
    number, until, mac = link.split(".")
    for forged in (
        *(token[:-1], token[:-1] + ("A" if token[-1] != "A" else "B"), "", "1", "1.", "a.b.c"),
        token.replace(str(address.id), str(other.id), 1),
        f"{address.id}.{mac}",
        f"{10**17}.{mac}",
        f"{address.id}\0.{mac}",
    ):
        with pytest.raises(InvalidInputError):
            signing.address_of(session, KEY, forged, "unsubscribe")
    later = str(int(until) + 1000)
    for forged, when in (
        (link, NOW + timedelta(hours=25)),
        (f"{number}.{later}.{mac}", NOW),
        (token, NOW),
    ):
        with pytest.raises(InvalidInputError):
            signing.address_of(session, KEY, forged, "verify", now=when)
    with pytest.raises(InvalidInputError):
        signing.address_of(session, KEY, link, "unsubscribe")


def test_a_link_to_an_address_that_is_gone_opens_nothing(session, make_address):
    address = make_address()
    token = signing.unsubscribe_token(KEY, address)
    session.delete(session.get_one(type(address), address.id))
    session.flush()
    with pytest.raises(InvalidInputError):
        signing.address_of(session, KEY, token, "unsubscribe")


def test_a_challenge_is_of_its_message():
    assert signing.challenge(KEY, "msg_1") == signing.challenge(KEY, "msg_1")
    assert signing.challenge(KEY, "msg_1") != signing.challenge(KEY, "msg_2")
