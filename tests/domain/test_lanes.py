"""Lanes are claimed fairly among hosts, and not faster than is allowed."""

from datetime import timedelta

import pytest
from sqlalchemy import func, select, update

from genonaut.core.clock import utcnow
from genonaut.core.errors import LeaseLostError
from genonaut.db.models import NotificationDelivery
from genonaut.domain import lanes
from genonaut.domain.deliveries import DELIVERIES
from genonaut.domain.lifecycle import Status


@pytest.fixture
def claim(database):
    def take(row, *, limit=20, worker="worker-1"):
        with database.transaction() as session:
            return lanes.claim_lane(session, row.id, worker=worker, lease_s=30, limit=limit)

    return take


def test_a_lane_is_claimed_together_oldest_first(claim, make_address, make_delivery, reload):
    mail, other = make_address(), make_address(address="bob@example.org")
    rows = [make_delivery(mail), make_delivery(other), make_delivery(mail)]
    held = claim(rows[2], limit=2)
    assert held.ids == (rows[0].id, rows[1].id)
    assert held.is_shared
    assert [reload(row).status for row in rows] == ["running", "running", "pending"]
    assert reload(rows[0]).attempt == 1


def test_a_lane_that_is_gone_or_empty_is_not_claimed(claim, make_delivery):
    row = make_delivery(available_at=utcnow() + timedelta(hours=1))
    assert claim(row) is None
    row.id = 2**40
    assert claim(row) is None


def test_the_lane_of_one_address_has_one_holder(claim, make_address, make_delivery):
    hook = make_address(channel="webhook")
    first, second = make_delivery(hook), make_delivery(hook)
    assert claim(first, limit=1).ids == (first.id,)
    assert claim(second) is None


def test_a_host_has_two_holders_and_the_third_lane_comes_due_again(
    claim, make_address, make_delivery, reload
):
    rows = [make_delivery(make_address(channel="webhook")) for _ in range(3)]
    elsewhere = make_delivery(make_address(channel="webhook", host="example.net"))
    assert claim(rows[0]) is not None
    assert claim(rows[1]) is not None
    assert claim(rows[2]) is None
    waiting = reload(rows[2])
    assert (waiting.status, waiting.dispatched_at) == ("pending", None)
    assert waiting.available_at > rows[2].available_at
    assert claim(elsewhere) is not None


def test_one_that_was_lost_with_its_worker_is_taken_alone(claim, make_address, make_delivery):
    mail = make_address()
    suspect = make_delivery(mail, error_code="worker_lost")
    make_delivery(mail)
    assert claim(suspect).ids == (suspect.id,)


def test_a_lease_is_renewed_for_all_and_is_lost_with_the_last(
    claim, database, make_address, make_delivery, reload
):
    mail = make_address()
    rows = [make_delivery(mail), make_delivery(mail)]
    held = claim(rows[0])
    with database.transaction() as session:
        lanes.renew(session, held, lease_s=3000)
    assert {reload(row).lease_expires_at > utcnow() + timedelta(minutes=30) for row in rows} == {
        True
    }
    with database.transaction() as session:
        for row in rows:
            DELIVERIES.move(session, row.id, Status.COMPLETED, token=held.token)
    with database.transaction() as session, pytest.raises(LeaseLostError):
        lanes.renew(session, held, lease_s=30)


def test_a_lane_that_is_left_is_published_again(database, make_address, make_delivery, reload):
    mail = make_address()
    published = {"dispatched_at": utcnow(), "dispatch_epoch": "e"}
    first, second = make_delivery(mail, **published), make_delivery(mail, **published)
    with database.transaction() as session:
        lanes.pass_on(session, "email")
    assert reload(first).dispatched_at is None
    assert reload(second).dispatched_at is not None


def test_what_was_sent_within_a_minute_is_counted(database, session, make_address, make_delivery):
    mail, other = make_address(), make_address(address="bob@example.org")
    rows = [make_delivery(mail) for _ in range(3)]
    for row in rows:
        session.execute(
            update(NotificationDelivery)
            .where(NotificationDelivery.id == row.id)
            .values({"status": "completed", "completed_at": func.now()})
        )
    session.execute(
        update(NotificationDelivery)
        .where(NotificationDelivery.id == rows[0].id)
        .values(completed_at=func.now() - timedelta(minutes=2))
    )
    session.flush()
    assert lanes.sent_last_minute(session, "email") == 2
    assert lanes.room(session, "email", [mail.id, other.id], per_receiver=3) == {
        mail.id: 1,
        other.id: 3,
    }
    assert session.scalar(select(func.count()).select_from(NotificationDelivery)) == 3


def test_two_who_claim_at_once_share_out_a_lane(committed_database, make_address, make_delivery):
    from concurrent.futures import ThreadPoolExecutor

    mail = make_address()
    rows = [make_delivery(mail) for _ in range(30)]

    def take(number: int):
        with committed_database.transaction() as session:
            return lanes.claim_lane(
                session, rows[number].id, worker=f"w{number}", lease_s=30, limit=10
            )

    with ThreadPoolExecutor(4) as pool:
        found = [held for held in pool.map(take, range(4)) if held]
    assert len(found) == lanes.HOLDERS_PER_HOST
    ids = [row_id for held in found for row_id in held.ids]
    assert len(ids) == len(set(ids)) == 20
