"""How a message went is written down under its lease, and decides what comes next."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from genonaut.core.clock import utcnow
from genonaut.core.errors import LeaseLostError
from genonaut.db.models import NotificationAddress
from genonaut.domain import delivery_attempts, lanes, parcels
from genonaut.domain.deliveries import GIVE_UP_AFTER


@pytest.fixture
def hold(session):
    def take(row, *, limit=20):
        held = lanes.claim_lane(session, row.id, worker="w", lease_s=30, limit=limit)
        return held, parcels.load(session, held)

    return take


WHY = {"code": "not_taken", "why": "busy\0"}


def test_a_sent_message_ends_and_forgives_its_address(
    session, hold, make_address, make_delivery, reload
):
    row = make_delivery(make_address(failures=3), error_code="not_taken", error_message="busy")
    held, (parcel,) = hold(row)
    delivery_attempts.sent(session, held, parcel)
    session.expire_all()
    ended = session.get_one(type(row), row.id)
    assert (ended.status, ended.error_code) == ("completed", None)
    session.expire_all()
    assert session.get_one(NotificationAddress, row.address_id).failures == 0
    with pytest.raises(LeaseLostError):
        delivery_attempts.sent(session, held, parcel)


def test_a_check_that_was_answered_takes_the_address_into_use(
    session, hold, make_address, make_delivery
):
    address = make_address(channel="webhook")
    row = make_delivery(address, purpose="verification")
    session.get_one(NotificationAddress, address.id).verified_at = None
    session.flush()
    held, (parcel,) = hold(row)
    delivery_attempts.sent(session, held, parcel, proves_address=True)
    session.expire_all()
    assert session.get_one(NotificationAddress, address.id).verified_at is not None


def test_a_refused_message_fails_with_its_reason_and_counts(session, hold, make_delivery):
    held, (parcel,) = hold(make_delivery())
    delivery_attempts.refused(session, held, parcel, code="refused", why="no")
    session.expire_all()
    ended = session.get_one(type(parcel.delivery), parcel.delivery.id)
    assert (ended.status, ended.error_code, ended.error_message) == ("failed", "refused", "no")
    assert session.get_one(NotificationAddress, parcel.address.id).failures == 1


def test_a_failed_check_counts_against_no_address(session, hold, make_delivery):
    held, (parcel,) = hold(make_delivery(purpose="verification"))
    delivery_attempts.refused(session, held, parcel, code="refused", why="no")
    session.expire_all()
    assert session.get_one(NotificationAddress, parcel.address.id).failures == 0


def test_what_failed_for_now_waits_with_the_rest_of_its_address(
    session, hold, make_address, make_delivery
):
    hook = make_address(channel="webhook")
    row, next_one = make_delivery(hook), make_delivery(hook, dispatched_at=utcnow())
    held, (parcel,) = hold(row, limit=1)
    delivery_attempts.try_again(session, held, parcel, **WHY, first_s=10, retry_after_s=120)
    session.expire_all()
    waiting = [session.get_one(type(row), one.id) for one in (row, next_one)]
    for one in waiting:
        assert (one.status, one.dispatched_at) == ("pending", None)
        assert one.available_at >= one.created_at + timedelta(seconds=120)
    assert waiting[0].error_message == "busy\N{REPLACEMENT CHARACTER}"
    assert waiting[0].attempt == 1


def test_in_a_shared_lane_only_the_one_that_failed_waits(
    session, hold, make_address, make_delivery
):
    mail = make_address()
    row, next_one = make_delivery(mail), make_delivery(mail)
    held, (parcel,) = hold(row, limit=1)
    delivery_attempts.try_again(session, held, parcel, **WHY, first_s=10)
    session.expire_all()
    assert session.get_one(type(row), row.id).available_at > row.available_at
    assert session.get_one(type(row), next_one.id).available_at == next_one.available_at


def test_the_last_attempt_fails_and_says_so(session, hold, make_delivery):
    held, (parcel,) = hold(make_delivery(attempt=9))
    delivery_attempts.try_again(session, held, parcel, **WHY, first_s=10)
    session.expire_all()
    ended = session.get_one(type(parcel.delivery), parcel.delivery.id)
    assert ended.status == "failed"
    assert "given up after 10 attempts" in ended.error_message


def test_a_channel_that_is_away_costs_no_attempt_until_it_is_too_long(
    session, hold, make_address, make_delivery
):
    mail = make_address()
    row, next_one = make_delivery(mail), make_delivery(mail)
    held, (parcel,) = hold(row, limit=1)
    delivery_attempts.wait_for_channel(session, held, parcel, **WHY, after_s=30)
    session.expire_all()
    waiting = [session.get_one(type(row), one.id) for one in (row, next_one)]
    assert [one.attempt for one in waiting] == [0, 0]
    assert all(one.available_at > one.created_at for one in waiting)


def test_two_days_after_its_first_attempt_and_not_before_it_is_given_up(
    session, hold, make_address, make_delivery, reload
):
    mail = make_address()
    long_ago = utcnow() - GIVE_UP_AFTER - timedelta(minutes=1)
    planned, tried, next_one = (
        make_delivery(mail, created_at=long_ago),
        make_delivery(mail, created_at=long_ago, started_at=long_ago),
        make_delivery(mail),
    )
    for row in (planned, tried):
        held, (parcel,) = hold(row, limit=1)
        assert parcel.delivery.id == row.id
        delivery_attempts.wait_for_channel(session, held, parcel, **WHY, after_s=30)
        session.flush()
        session.execute(
            text("UPDATE notification_deliveries SET available_at = now() WHERE id = :i"),
            {"i": tried.id},
        )
    session.expire_all()
    found = [session.get_one(type(row), one.id) for one in (planned, tried, next_one)]
    assert [one.status for one in found] == ["pending", "failed", "pending"]
    assert found[2].available_at > found[2].created_at, "the lane waits"


def test_what_is_put_back_or_cancelled_says_so(session, hold, make_address, make_delivery):
    mail = make_address()
    row, other = make_delivery(mail), make_delivery(mail)
    held, _ = hold(row)
    until = utcnow() + timedelta(hours=1)
    delivery_attempts.put_back(session, held, row.id, until=until)
    delivery_attempts.cancelled(session, held, other.id, code="not_wanted", why="no")
    session.expire_all()
    back, ended = (session.get_one(type(row), one.id) for one in (row, other))
    assert (back.status, back.attempt, back.available_at) == ("pending", 0, until)
    assert (ended.status, ended.error_code) == ("cancelled", "not_wanted")
