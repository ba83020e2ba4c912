"""Those of a lane go out together, and what becomes of one is no matter to the others."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from sqlalchemy import delete, update
from sqlalchemy.exc import OperationalError

from genonaut.core.errors import ChannelAwayError
from genonaut.db.models import NotificationDelivery
from genonaut.domain import delivery_attempts, parcels, preference_writing, preferences
from genonaut.domain.preferences import Preferences
from genonaut.worker import delivering, discovery
from genonaut.worker.channels import email


def test_quiet_hours_that_began_meanwhile_are_kept(
    database, mails, deliver, make_delivery, make_address
):
    address = make_address()
    row = make_delivery(address)
    now = datetime.now(UTC)
    begin, end = ((now + timedelta(hours=h)).time().replace(microsecond=0) for h in (-1, 1))
    with database.transaction() as session:
        quiet = Preferences(quiet=preferences.QuietHours(begin, end))
        preference_writing.save(session, address.user_id, quiet, channels=["email"])
    waiting = deliver(row)
    assert (waiting.status, waiting.attempt) == ("pending", 0)
    assert waiting.available_at.time() == end
    assert mails.messages == []


def test_one_receiver_gets_so_many_a_minute_and_others_are_not_held_up(
    serve, services, mails, deliver, make_delivery, make_address, reload
):
    limited = serve(
        **{
            **services.settings.model_dump(
                include={"smtp_host", "smtp_port", "smtp_security", "mail_from"}
            ),
            "receiver_per_minute": 2,
        }
    )
    busy, other = make_address(), make_address(address="bob@example.org")
    rows = [*(make_delivery(busy) for _ in range(3)), make_delivery(other)]
    deliver(rows[0], limited)
    assert [reload(row).status for row in rows] == ["completed"] * 2 + ["pending", "completed"]
    assert reload(rows[2]).attempt == 0


def test_a_channel_sends_so_many_a_minute(
    serve, hooks, deliver, make_delivery, hook_address, reload
):
    limited = serve(webhooks_per_minute=2)
    rows = [make_delivery(address) for address in [hook_address()] * 3]
    deliver(rows[0], limited)
    assert [reload(row).status for row in rows] == ["completed", "completed", "pending"]
    assert len(hooks.heard) == 2
    deliver(rows[2], limited)
    assert len(hooks.heard) == 2


def test_a_bug_in_one_message_holds_up_no_other(
    mails, deliver, make_delivery, make_address, reload, monkeypatch
):
    write = email.MailSender.write

    def fail_once(self, parcel, now):
        if parcel.delivery.id == rows[0].id:
            raise ZeroDivisionError
        return write(self, parcel, now)

    monkeypatch.setattr(email.MailSender, "write", fail_once)
    rows = [make_delivery(), make_delivery()]
    failed = deliver(rows[0])
    assert (failed.status, failed.error_code) == ("pending", "internal_error")
    assert "ZeroDivisionError" in failed.error_message
    assert reload(rows[1]).status == "completed"


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_that_is_deleted_meanwhile_keeps_none_of_the_others_from_being_sent(
    database, services, make_delivery, reload, monkeypatch, which
):
    """While the second is sent: the one before it, itself, or the one after it."""
    rows = [make_delivery() for _ in range(4)]
    write = email.MailSender.write

    def delete_meanwhile(self, parcel, now):
        if parcel.delivery.id == rows[1].id:
            with database.transaction() as session:
                session.execute(
                    delete(NotificationDelivery).where(NotificationDelivery.id == rows[which].id)
                )
        return write(self, parcel, now)

    monkeypatch.setattr(email.MailSender, "write", delete_meanwhile)
    delivering.run(services, rows[0].id, worker="worker-1")
    left = [row for number, row in enumerate(rows) if number != which]
    assert [(reload(row).status, reload(row).attempt) for row in left] == [("completed", 1)] * 3


@pytest.mark.parametrize(
    "end",
    [
        delete(NotificationDelivery),
        update(NotificationDelivery).values(
            status="completed", lease_token=None, lease_expires_at=None
        ),
    ],
    ids=["deleted", "written down by a commit whose answer was lost"],
)
def test_what_ends_while_the_rest_is_given_back_takes_no_attempt_of_others(
    database, mails, deliver, make_delivery, reload, monkeypatch, end
):
    rows = [make_delivery() for _ in range(3)]

    def go_away(self, parcel, now):
        with database.transaction() as session:
            session.execute(end.where(NotificationDelivery.id == rows[1].id))
        raise ChannelAwayError("the relay is away")

    monkeypatch.setattr(email.MailSender, "write", go_away)
    deliver(rows[0])
    for row in (rows[0], rows[2]):
        assert (reload(row).status, reload(row).attempt) == ("pending", 0)


def test_a_bug_about_the_quiet_of_one_holds_up_no_other(
    mails, deliver, make_delivery, reload, monkeypatch
):
    rows = [make_delivery(), make_delivery()]
    quiet_until = parcels.quiet_until

    def fail_once(parcel, now):
        if parcel.delivery.id == rows[0].id:
            raise ZeroDivisionError
        return quiet_until(parcel, now)

    monkeypatch.setattr(parcels, "quiet_until", fail_once)
    assert deliver(rows[0]).error_code == "internal_error"
    assert reload(rows[1]).status == "completed"


def test_a_lease_that_was_lost_ends_the_sending(
    database, services, mails, make_delivery, reload, monkeypatch
):
    rows = [make_delivery(), make_delivery()]
    sent = delivery_attempts.sent

    def fenced(session, held, parcel, **options):
        session.execute(
            update(NotificationDelivery).values(
                status="pending", lease_token=None, lease_expires_at=None
            )
        )
        return sent(session, held, parcel, **options)

    monkeypatch.setattr(delivery_attempts, "sent", fenced)
    assert delivering.run(services, rows[0].id, worker="w") == 0
    assert len(mails.messages) == 1


def test_a_message_whose_outcome_could_not_be_written_in_time_is_not_sent_again(
    services, mails, make_delivery, reload, monkeypatch
):
    rows = [make_delivery(), make_delivery()]
    sent, calls = delivery_attempts.sent, count(1)

    def away_at_first(session, held, parcel, **options):
        if next(calls) == 1:
            raise OperationalError("COMMIT", {}, Exception("the server closed the connection"))
        return sent(session, held, parcel, **options)

    monkeypatch.setattr(delivery_attempts, "sent", away_at_first)
    monkeypatch.setattr("genonaut.worker.held.PATIENCE_S", -1)
    with pytest.raises(OperationalError):
        delivering.run(services, rows[0].id, worker="w")
    assert [(reload(row).status, reload(row).attempt) for row in rows] == [
        ("completed", 1),
        ("pending", 0),
    ]
    assert len(mails.messages) == 1


def test_a_channel_that_is_gone_cancels_what_waits_for_it(deliver, make_delivery, make_address):
    ended = deliver(make_delivery(make_address(channel="pigeon")))
    assert (ended.status, ended.error_code) == ("cancelled", "unknown_channel")


def test_channels_are_found_and_need_no_list():
    found = discovery.channels()
    assert list(found) == ["in_app", "email", "webhook"]
    assert json.dumps([channel.name for channel in found.values()])
