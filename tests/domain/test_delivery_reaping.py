"""Messages of a lost worker are sent by another, under the same id."""

from datetime import timedelta

from genonaut.core.clock import utcnow
from genonaut.domain import lanes
from genonaut.domain.delivery_reaping import WORKER_LOST
from tests.support.reaping import sweep


def lose(database, row):
    with database.transaction() as session:
        lanes.claim_lane(session, row.id, worker="lost", lease_s=-10, limit=20)
    return sweep(database, WORKER_LOST)


def test_it_is_due_again_with_its_id_and_says_who_was_lost(database, make_delivery, reload):
    row = make_delivery(dispatched_at=utcnow())
    assert lose(database, row) == {"pending": [row.id]}
    again = reload(row)
    assert (again.status, again.attempt, again.error_code) == ("pending", 1, "worker_lost")
    assert "worker lost lost" in again.error_message
    assert (again.message_id, again.dispatched_at) == (row.message_id, None)
    assert again.available_at <= utcnow() + timedelta(seconds=1)


def test_without_attempts_left_it_fails(database, make_delivery, reload):
    row = make_delivery(attempt=9)
    assert lose(database, row) == {"failed": [row.id]}
    assert reload(row).error_code == "worker_lost"


def test_one_that_is_held_is_left(database, make_delivery):
    row = make_delivery()
    with database.transaction() as session:
        lanes.claim_lane(session, row.id, worker="alive", lease_s=30, limit=20)
    assert sweep(database, WORKER_LOST) == {}
