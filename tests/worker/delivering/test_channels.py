"""Messages reach real receivers once per id, and what goes wrong is taken for what it means."""

import time
from datetime import UTC, datetime, timedelta
from io import BytesIO
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image
from sqlalchemy import func, update
from standardwebhooks import Webhook as Verifier

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import ContentImage, ContentItem, NotificationAddress, NotificationDelivery
from genonaut.domain import addresses, notifications, signing
from genonaut.worker import delivering, discovery
from genonaut.worker.channels.webhook import Webhook
from tests.support.sinks import answer, drip, echo, flood
from tests.worker.delivering.conftest import SECRET_KEY


def again(database, row) -> None:
    """Let what waits be due now."""
    with database.transaction() as session:
        session.execute(
            update(NotificationDelivery)
            .where(NotificationDelivery.id == row.id)
            .values(available_at=func.now())
        )


def secret_of(address) -> str:
    return signing.webhook_secrets(signing.Key(SECRET_KEY.encode()), address, datetime.now(UTC))[0]


# --- mail ----------------------------------------------------------------------------------


def test_a_mail_says_what_happened_in_text_and_html_and_how_to_get_no_more(
    database, mails, deliver, make_delivery, make_address, make_user
):
    address = make_address(make_user("ada"))
    row = make_delivery(address, title="It's <done>", body="a <b>lighthouse</b>\n.")
    ended = deliver(row)
    assert (ended.status, ended.attempt, ended.error_code) == ("completed", 1, None)
    (mail,) = mails.messages
    assert mails.recipients == ["ada@example.org"]
    assert (mail["To"], mail["Subject"]) == ("ada@example.org", "It's <done>")
    assert mail["From"] == "Genonaut <genonaut@example.org>"
    assert mail["Message-ID"] == f"<{row.message_id}@example.org>"
    text = mail.get_body(("plain",)).get_content()
    html = mail.get_body(("html",)).get_content()
    assert "a <b>lighthouse</b>" in text
    assert "a &lt;b&gt;lighthouse&lt;/b&gt;" in html
    assert mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    url = urlsplit(mail["List-Unsubscribe"].strip("<>"))
    assert (url.netloc, url.path) == ("pics.example.org", "/unsubscribe")
    token = parse_qs(url.query)["token"][0]
    assert token in text
    assert token in html
    with database.transaction() as session:
        key = signing.Key(SECRET_KEY.encode())
        assert addresses.unsubscribe(session, key, token).id == address.id


def test_a_title_cannot_add_a_header(database, mails, deliver, make_delivery):
    row = make_delivery()
    evil = "Hi\r\nBcc: eve@example.org\r\n\r\nbody"
    with database.transaction() as session:
        told = session.get_one(notifications.UserNotification, row.notification_id)
        told.title = evil
    assert deliver(row).status == "completed"
    (mail,) = mails.messages
    assert mail["Bcc"] is None
    assert mail["Subject"] == "Hi Bcc: eve@example.org body"
    assert mails.recipients == ["ada@example.org"]


def test_a_picture_is_in_the_mail(database, services, mails, deliver, make_delivery, make_address):
    address = make_address()
    pixels = BytesIO()
    Image.new("RGB", (256, 128), "red").save(pixels, "WEBP")
    key = services.storage.put(pixels.getvalue(), mime="image/webp")
    with database.transaction() as session:
        item = ContentItem(title="t", creator_id=address.user_id)
        session.add(item)
        session.flush()
        made = {"256": {"key": key, "width": 256, "height": 128, "bytes": 9}}
        facts = {"storage_key": "k", "sha256": "0" * 64, "mime": "image/png", "bytes": 1}
        session.add(
            ContentImage(
                content_id=item.id, position=0, thumbnails=made, width=1, height=1, **facts
            )
        )
    row = make_delivery(address, data={"content_id": item.id})
    assert deliver(row).status == "completed"
    (mail,) = mails.messages
    (image,) = [part for part in mail.walk() if part.get_content_maintype() == "image"]
    assert image.get_content() == pixels.getvalue()
    assert (image["Content-ID"], image.get_content_type()) == ("<picture>", "image/webp")
    assert "cid:picture" in mail.get_body(("html",)).get_content()
    services.storage.delete(key)
    other = make_delivery(address, data={"content_id": item.id})
    assert deliver(other).status == "completed"


def test_a_lane_goes_out_together_over_one_connection(
    mails, deliver, make_delivery, make_address, reload
):
    users = [make_address(address=f"u{number}@example.org") for number in range(3)]
    rows = [make_delivery(address) for address in users * 10]
    deliver(rows[0])
    assert {reload(row).status for row in rows} == {"completed"}
    assert mails.ids == [f"<{row.message_id}@example.org>" for row in rows]


def test_a_recipient_that_is_refused_fails_alone(
    mails, deliver, make_delivery, make_address, reload
):
    mails.refused["no@example.org"] = "550 no such user"
    mails.refused["later@example.org"] = "450 try later"
    names = ("no", "later", "ada")
    rows = [make_delivery(make_address(address=f"{name}@example.org")) for name in names]
    deliver(rows[0])
    no, later, ada = (reload(row) for row in rows)
    assert (no.status, later.status, ada.status) == ("failed", "pending", "completed")
    assert "550 no such user" in no.error_message
    assert "450 try later" in later.error_message
    assert later.available_at > later.created_at + timedelta(seconds=7)


def test_a_relay_that_is_down_costs_no_attempt_and_is_tried_again(
    database, serve, services, mails, deliver, make_delivery, reload
):
    down = serve(smtp_host="127.0.0.1", smtp_port=9, mail_from="g@example.org")
    rows = [make_delivery(), make_delivery()]
    waiting = deliver(rows[0], down)
    assert (waiting.status, waiting.attempt) == ("pending", 0)
    assert waiting.error_code == "channel_unavailable"
    assert reload(rows[1]).available_at > rows[1].available_at
    for row in rows:
        again(database, row)
    deliver(rows[0])
    assert len(mails.messages) == 2


def test_mail_that_is_not_set_up_any_more_waits(serve, deliver, make_delivery):
    waiting = deliver(make_delivery(), serve())
    assert (waiting.status, waiting.error_code) == ("pending", "channel_unavailable")
    assert "SMTP_HOST" in waiting.error_message


def test_a_check_by_mail_has_a_link_and_no_way_out(database, mails, services, make_user, reload):
    user = make_user("ada")
    endpoint = discovery.channels()["email"].check("Ada@Example.org", services.settings)
    with database.transaction() as session:
        address = addresses.put(session, user.id, endpoint)
        row = session.scalars(notifications.select(NotificationDelivery)).one()
    delivering.run(services, row.id, worker="w")
    assert addresses.state(reload(address)) == "unverified"
    (mail,) = mails.messages
    assert mail["List-Unsubscribe"] is None
    text = mail.get_body(("plain",)).get_content()
    (link,) = [line for line in text.splitlines() if "/verify-email?" in line]
    with database.transaction() as session:
        token = parse_qs(urlsplit(link).query)["token"][0]
        found = addresses.verify(session, signing.Key(SECRET_KEY.encode()), token)
    assert addresses.state(found) == "active"


def test_a_digest_lists_the_day(mails, deliver, make_delivery, make_address, database):
    address = make_address()
    told = [make_delivery(address, title=f"News {n}").notification_id for n in range(2)]
    with database.transaction() as session:
        session.execute(update(NotificationDelivery).values(status="cancelled"))
    digest = make_delivery(address, purpose="digest", data={}, title="x")
    with database.transaction() as session:
        session.execute(
            update(NotificationDelivery)
            .where(NotificationDelivery.id == digest.id)
            .values(data={"notification_ids": told, "total": 5}, notification_id=None)
        )
    assert deliver(digest).status == "completed"
    (mail,) = mails.messages
    assert mail["Subject"] == "Your day on Genonaut: 5 notifications"
    text = mail.get_body(("plain",)).get_content()
    assert all(part in text for part in ("News 0", "News 1", "3 more"))


# --- webhooks ------------------------------------------------------------------------------


def test_a_webhook_is_signed_and_says_what_happened(hooks, deliver, make_delivery, hook_address):
    address = hook_address()
    row = make_delivery(address, title="Ready", data={"job_id": 7})
    assert deliver(row).status == "completed"
    (heard,) = hooks.heard
    told = Verifier(secret_of(address)).verify(heard.body, heard.headers)
    assert heard.headers["webhook-id"] == row.message_id
    assert told["type"] == "notification.system"
    assert (told["data"]["title"], told["data"]["data"]) == ("Ready", {"job_id": 7})


def test_for_a_day_both_secrets_sign(database, hooks, deliver, make_delivery, hook_address, reload):
    address = hook_address()
    old = secret_of(address)
    with database.transaction() as session:
        address = addresses.rotate_secret(session, address.user_id, "webhook")
    assert secret_of(address) != old
    deliver(make_delivery(address))
    (heard,) = hooks.heard
    for secret in (old, secret_of(address)):
        Verifier(secret).verify(heard.body, heard.headers)


def test_a_webhook_that_repeats_the_challenge_is_used(
    database, hooks, deliver, hook_address, make_delivery, reload
):
    for script, state in ((answer(200, b"yes"), "unverified"), (echo, "active")):
        hooks.script = [script]
        address = hook_address(verified_at=None)
        with database.transaction() as session:
            row = addresses.ask(session, session.get_one(NotificationAddress, address.id))
        ended = deliver(row)
        assert addresses.state(reload(address)) == state
        assert (ended.status, ended.error_code) in {
            ("failed", "challenge_failed"),
            ("completed", None),
        }


@pytest.mark.parametrize(
    ("script", "code", "wait_s"),
    [
        (answer(500), "not_taken", 8),
        (answer(503, Retry_After="600"), "not_taken", 600),
        (answer(429, Retry_After="120"), "not_taken", 120),
        (drip, "timed_out", 8),
        (lambda heard, connection: None, "unreachable", 8),
    ],
)
def test_what_waiting_may_cure_is_sent_again_under_the_same_id(
    database, hooks, deliver, make_delivery, hook_address, reload, script, code, wait_s
):
    hooks.script = [script]
    address = hook_address()
    rows = [make_delivery(address), make_delivery(address)]
    waiting = deliver(rows[0])
    assert (waiting.status, waiting.attempt, waiting.error_code) == ("pending", 1, code)
    assert waiting.available_at >= waiting.updated_at + timedelta(seconds=wait_s - 0.1)
    behind = reload(rows[1])
    assert (behind.status, behind.attempt) == ("pending", 0)
    assert behind.available_at >= waiting.updated_at + timedelta(seconds=wait_s - 0.1)
    assert len(hooks.heard) == 1
    for row in rows:
        again(database, row)
    assert deliver(rows[0]).status == "completed"
    ids = [heard.headers["webhook-id"] for heard in hooks.heard]
    assert ids == [rows[0].message_id, rows[0].message_id, rows[1].message_id]


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (answer(400), "refused"),
        (answer(404), "refused"),
        (answer(302, Location="http://10.0.0.1/"), "redirected"),
    ],
)
def test_what_is_refused_for_good_is_not_sent_again_and_the_rest_is_tried(
    hooks, deliver, make_delivery, hook_address, reload, script, code
):
    hooks.script = [script]
    address = hook_address()
    rows = [make_delivery(address), make_delivery(address)]
    ended = deliver(rows[0])
    assert (ended.status, ended.error_code) == ("failed", code)
    assert reload(rows[1]).status == "completed"
    assert addresses.state(reload(address)) == "active"


def test_a_receiver_that_is_gone_is_left_in_peace_and_its_owner_told(
    database, hooks, deliver, make_delivery, hook_address, reload
):
    hooks.script = [answer(410)]
    address = hook_address()
    rows = [make_delivery(address), make_delivery(address)]
    assert deliver(rows[0]).error_code == "gone"
    assert reload(rows[1]).status == "cancelled"
    assert addresses.state(reload(address)) == "disabled"
    with database.transaction() as session:
        told = notifications.list_for(session, address.user_id)
    assert "webhook" in told[0].title
    assert len(hooks.heard) == 1


def test_an_answer_of_ten_megabytes_is_a_yes_that_is_not_read(
    hooks, deliver, make_delivery, hook_address
):
    hooks.script = [flood]
    began = time.monotonic()
    assert deliver(make_delivery(hook_address())).status == "completed"
    assert time.monotonic() - began < 2


def test_given_up_after_so_many_attempts_with_the_reason(
    hooks, deliver, make_delivery, hook_address
):
    hooks.script = [answer(500)]
    ended = deliver(make_delivery(hook_address(), attempt=9))
    assert (ended.status, ended.attempt) == ("failed", 10)
    assert ended.error_message == "the receiver answered 500; given up after 10 attempts"


def unknown(*_):
    raise OSError("no such name")


@pytest.mark.parametrize(
    "resolve",
    [
        lambda *_: ["10.0.0.7"],
        lambda *_: ["203.0.114.7", "fd00::7"],
        lambda *_: [],
        unknown,
    ],
)
def test_nobody_learns_which_names_there_are_inside(serve, resolve):
    with pytest.raises(InvalidInputError) as refused:
        Webhook(resolve).check("http://db.internal/", serve(webhook_allowed_networks=None).settings)
    error = refused.value
    said = "db.internal is not known, or not public"
    assert (str(error), error.code, error.field) == (said, "address_refused", "address")


def test_a_name_that_has_turned_private_is_not_reached(
    serve, hooks, deliver, make_delivery, make_address, monkeypatch
):
    answers = [["203.0.114.7"], ["127.0.0.1"]]
    channel = Webhook(lambda *_: answers.pop(0))
    monkeypatch.setitem(discovery.channels(), "webhook", channel)
    public = serve(webhook_allowed_networks=None)
    endpoint = channel.check(f"http://turning.test:{hooks.port}/", public.settings)
    address = make_address(channel="webhook", address=endpoint.address, host=endpoint.host)
    ended = deliver(make_delivery(address), public)
    assert (ended.status, ended.error_code) == ("failed", "address_refused")
    assert hooks.connections == 0
