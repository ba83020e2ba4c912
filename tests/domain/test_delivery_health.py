"""Operators see how each channel does."""

from datetime import timedelta

from sqlalchemy import text, update

from genonaut.core.clock import utcnow
from genonaut.db.models import NotificationDelivery
from genonaut.domain import delivery_health, lanes
from genonaut.domain.deliveries import DELIVERIES
from genonaut.domain.lifecycle import Status
from tests.support.plans import explain


def test_it_counts_what_waits_what_ended_lately_and_the_addresses(
    session, make_address, make_delivery
):
    mail = make_address()
    make_address(address="new@example.org", verified_at=None)
    make_address(address="old@example.org", disabled_at=utcnow(), disabled_reason="x")
    sent, failed, long_ago, waiting, later = (make_delivery(mail) for _ in range(5))
    lanes.claim_lane(session, sent.id, worker="w", lease_s=30, limit=1)
    DELIVERIES.move(session, sent.id, Status.COMPLETED, when=(NotificationDelivery.id == sent.id,))
    for row in (failed, long_ago):
        DELIVERIES.move(session, row.id, Status.FAILED, error_code="refused", error_message="no")
    changes = {
        long_ago.id: {
            "completed_at": utcnow() - timedelta(days=2),
            "updated_at": utcnow() - timedelta(days=2),
        },
        waiting.id: {"available_at": utcnow() - timedelta(minutes=1)},
        later.id: {"available_at": utcnow() + timedelta(hours=1), "error_code": "not_taken"},
    }
    for row_id, values in changes.items():
        session.execute(
            update(NotificationDelivery).where(NotificationDelivery.id == row_id).values(values)
        )
    told = delivery_health.by_channel(session)["email"]
    assert told["addresses"] == {"active": 1, "unverified": 1, "disabled": 1}
    counts = {name: told[name] for name in ("pending", "due", "running", "retrying")}
    assert counts == {"pending": 2, "due": 1, "running": 0, "retrying": 1}
    assert (told["sent"], told["failed"], told["cancelled"]) == (1, 1, 0)
    assert told["oldest_due_s"] >= 59
    assert told["last_error"]["code"] == "not_taken"


def test_a_channel_nobody_uses_counts_nothing():
    assert delivery_health.nothing()["pending"] == 0
    assert delivery_health.nothing()["last_error"] is None


def test_what_waits_is_found_without_reading_what_was_sent(session, make_user):
    session.execute(
        text(
            "INSERT INTO notification_deliveries (user_id, channel, subject, message_id, lane,"
            " host, status, celery_task_id, completed_at)"
            " SELECT :user, 'email', n::text, '', 'email', 'email', 'completed', '', now()"
            " FROM generate_series(1, 5000) AS n"
        ),
        {"user": make_user().id},
    )
    session.execute(text("ANALYZE notification_deliveries"))
    (plan,) = explain(session, delivery_health.waiting)
    assert "Seq Scan" not in plan, plan
    assert "ix_notification_deliveries_running" in plan, plan
