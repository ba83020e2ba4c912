"""Messages to users, with real receivers and workers that are killed while they send."""

import time
from collections import Counter
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from genonaut.db.models import NotificationAddress, NotificationDelivery
from genonaut.domain import notifications
from tests.reliability.program import until
from tests.reliability.rig import Rig
from tests.support.sinks import HttpSink, MailSink, drip, http_sink, mail_sink

RECOVERY_S = 60.0


@pytest.fixture
def mails(rig: Rig) -> Iterator[MailSink]:
    with mail_sink() as sink:
        rig.environment |= {
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(sink.port),
            "SMTP_SECURITY": "none",
            "MAIL_FROM": "genonaut@example.org",
        }
        yield sink


@pytest.fixture
def hooks(rig: Rig) -> Iterator[HttpSink]:
    with http_sink() as sink:
        rig.environment["WEBHOOK_ALLOWED_NETWORKS"] = "127.0.0.0/8"
        yield sink


def reach(rig: Rig, channel: str, address: str, *, host: str, user: str = "") -> None:
    relayed = channel == "email"
    user_id = rig.add_user(user) if user else rig.user_id
    with rig.database.transaction() as session:
        session.add(
            NotificationAddress(
                user_id=user_id,
                channel=channel,
                address=address,
                host=host,
                is_relayed=relayed,
                verified_at=func.now(),
            )
        )


def tell(rig: Rig, count: int, *, key: str = "k") -> None:
    """Record facts, and die before anything is published: nobody listens to this commit."""
    with rig.database.transaction() as session:
        for number in range(count):
            notifications.notify(
                session, rig.user_id, "system", dedupe_key=f"{key}{number}", title=f"{number}"
            )


def deliveries(rig: Rig) -> list[NotificationDelivery]:
    with rig.database.transaction() as session:
        return list(session.scalars(select(NotificationDelivery).order_by("id")))


def test_f46_what_nobody_published_is_sent_and_a_kill_while_sending_repeats_one_at_most(
    rig: Rig, mails: MailSink
) -> None:
    reach(rig, "email", "ada@example.org", host="email")
    tell(rig, 12)
    mails.delay_s = 0.3
    began = time.monotonic()
    worker = rig.runner("one")
    until(lambda: len(mails.messages) >= 3, "some are sent")
    worker.kill9()
    mails.delay_s = 0
    rig.runner("two")
    until(
        lambda: all(row.status == "completed" for row in deliveries(rig)),
        "all are sent",
        RECOVERY_S,
    )
    rig.measure("kill while mail is sent, to the last of 12", began)
    sent = Counter(mails.ids)
    assert set(sent) == {f"<{row.message_id}@example.org>" for row in deliveries(rig)}
    assert sorted(sent.values())[-2:] in ([1, 1], [1, 2]), "one is repeated at most"


@pytest.mark.slow
def test_slow_receivers_delay_neither_mail_nor_each_other(
    rig: Rig, mails: MailSink, hooks: HttpSink
) -> None:
    rig.environment["DELIVERY_TIMEOUT_S"] = "5"
    reach(rig, "email", "ada@example.org", host="email")
    hooks.script = [drip] * 1000
    for number in range(6):
        name = f"slow{number}"
        reach(rig, "webhook", hooks.url, host="127.0.0.1", user=name)
        with rig.database.transaction() as session:
            notifications.announce(session, name, title="Hello", body="")
    rig.runner(slots=4)
    until(lambda: len(hooks.heard) >= 2, "the slow host is busy")
    tell(rig, 5)
    began = time.monotonic()
    until(lambda: len(mails.messages) == 5, "mail is sent meanwhile", 5)
    rig.measure("mail beside a host that never answers", began)
    assert len(hooks.heard) <= 4, "two at once at most"
