"""Users say over HTTP how and where they want to hear."""

import base64

import pytest
from sqlalchemy import select, update

from genonaut.core.clock import utcnow
from genonaut.db.models import NotificationAddress, NotificationDelivery
from genonaut.domain import signing

PREFERENCES = "/api/v1/notification-preferences"
CHANNELS = "/api/v1/notification-channels"


def by_name(answer) -> dict:
    assert answer.status_code == 200, answer.text
    return {channel["name"]: channel for channel in answer.json()["items"]}


def deliveries(database, user) -> list[NotificationDelivery]:
    query = select(NotificationDelivery).where(NotificationDelivery.user_id == user.id)
    with database.transaction() as session:
        return list(session.scalars(query.order_by(NotificationDelivery.id)))


def use(database, user, **columns) -> None:
    """Have every address of a user verified, or as ``columns`` say."""
    values = {"verified_at": utcnow(), **columns}
    with database.transaction() as session:
        session.execute(
            update(NotificationAddress)
            .where(NotificationAddress.user_id == user.id)
            .values(values)
            .execution_options(synchronize_session=False)
        )


def test_preferences_are_read_saved_and_spelt_out(ada):
    shown = ada.client.get(PREFERENCES).json()
    assert shown["kinds"]["job_failed"] == {"in_app": True, "email": True, "webhook": True}
    assert (shown["digest"], shown["quiet_from"]) == ("immediate", None)
    wanted = {
        "kinds": {"job_completed": {"email": False}},
        "timezone": "Europe/Berlin",
        "quiet_from": "22:00",
        "quiet_until": "07:30",
        "digest": "daily",
        "digest_hour": 6,
        "group_window_s": 30,
    }
    saved = ada.client.put(PREFERENCES, json=wanted)
    assert saved.status_code == 200
    assert saved.json() == ada.client.get(PREFERENCES).json()
    again = {name: value for name, value in saved.json().items() if name != "channels"}
    assert again["kinds"]["job_completed"]["email"] is False
    assert ada.client.put(PREFERENCES, json=again).json() == saved.json()
    assert {**again, "kinds": wanted["kinds"]} == wanted


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"kinds": {"job_exploded": {"email": True}}}, "kinds/job_exploded"),
        ({"kinds": {"job_failed": {"pigeon": True}}}, "kinds/job_failed/pigeon"),
        ({"kinds": {"job_failed": {"email": "yes"}}}, "kinds/job_failed/email"),
        ({"timezone": "Mars/Olympus"}, "timezone"),
        ({"timezone": "../etc/passwd"}, "timezone"),
        ({"quiet_from": "25:00", "quiet_until": "07:00"}, "quiet_from"),
        ({"quiet_from": "22:00"}, "quiet_until"),
        ({"quiet_from": "22:00", "quiet_until": "22:00"}, "quiet_until"),
        ({"digest": "hourly"}, "digest"),
        ({"digest_hour": 24}, "digest_hour"),
        ({"group_window_s": 3601}, "group_window_s"),
        ({"kinds": {"\0": {}}}, "kinds"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_preferences_name_the_field(ada, wanted, field):
    answer = ada.client.put(PREFERENCES, json=wanted)
    assert answer.status_code == 422
    assert field in answer.text
    assert ada.client.get(PREFERENCES).json()["digest"] == "immediate"


def test_a_channel_that_is_not_set_up_says_so(ada):
    channels = by_name(ada.client.get(CHANNELS))
    assert list(channels) == ["in_app", "email", "webhook"]
    assert not channels["email"]["configured"]
    assert "SMTP_HOST" in channels["email"]["reason"]
    assert channels["webhook"]["configured"]
    assert ada.client.get(PREFERENCES).json()["channels"] == list(channels.values())
    answer = ada.client.put(f"{CHANNELS}/email", json={"address": "ada@example.org"})
    assert (answer.status_code, answer.json()["code"]) == (409, "channel_not_configured")


@pytest.mark.parametrize("name", ["in_app", "pigeon", "%00", "x" * 200])
def test_a_channel_that_takes_no_address_is_404(ada, name):
    assert ada.client.put(f"{CHANNELS}/{name}", json={"address": "x"}).status_code == 404
    assert ada.client.delete(f"{CHANNELS}/{name}").status_code == 404
    assert ada.client.post(f"{CHANNELS}/{name}/test").status_code == 404


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1",
        "http://127.0.0.1:8188/prompt",
        "https://localhost/hook",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://0.0.0.0/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[64:ff9b::a00:1]/",
        "http://[2002:a00:1::]/",
        "http://[fe80::1%25eth0]/",
        "http://224.0.0.1/",
        "http://name.invalid/",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://ada:secret@example.org/",
        "https://example.org/#part",
        "https://exa mple.org/",
        "https://",
        "example.org",
        "https://example.org\r\nX: y",
        f"https://example.org/{'x' * 2000}",
        f"https://203.0.114.7/{'é' * 331}",
    ],
)
def test_a_webhook_that_is_not_public_or_no_url_is_refused(database, ada, address):
    answer = ada.client.put(f"{CHANNELS}/webhook", json={"address": address})
    assert answer.status_code == 422, answer.text
    assert "address" in answer.text
    assert by_name(ada.client.get(CHANNELS))["webhook"]["address"] is None
    assert deliveries(database, ada) == []


HOOK = {"address": "https://203.0.114.7/hook"}


def test_a_webhook_is_set_checked_used_tested_rotated_and_removed(database, ada):
    answer = ada.client.put(f"{CHANNELS}/webhook", json=HOOK)
    assert answer.status_code == 200, answer.text
    secret = answer.json()["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert answer.json()["address"]["state"] == "unverified"
    (check,) = deliveries(database, ada)
    assert (check.purpose, check.lane) == ("verification", f"webhook:{check.address_id}")
    assert ada.client.post(f"{CHANNELS}/webhook/test").status_code == 409
    again = ada.client.post(f"{CHANNELS}/webhook/verify")
    assert (again.status_code, again.json()["code"]) == (409, "already_asked")

    use(database, ada)
    same = ada.client.put(f"{CHANNELS}/webhook", json=HOOK).json()
    assert (same["secret"], same["address"]["state"]) == (None, "active")
    sent = ada.client.post(f"{CHANNELS}/webhook/test")
    assert (sent.status_code, sent.json()["purpose"]) == (202, "test")
    rotated = ada.client.post(f"{CHANNELS}/webhook/rotate-secret")
    assert rotated.json()["secret"] != secret
    twice = ada.client.post(f"{CHANNELS}/webhook/rotate-secret")
    assert (twice.status_code, twice.json()["code"]) == (409, "rotated_lately")

    assert ada.client.delete(f"{CHANNELS}/webhook").status_code == 204
    assert ada.client.delete(f"{CHANNELS}/webhook").status_code == 404
    assert {row.status for row in deliveries(database, ada)} == {"cancelled"}


def test_another_address_takes_the_place_of_the_first_with_another_secret(database, ada):
    first = ada.client.put(f"{CHANNELS}/webhook", json=HOOK).json()
    use(database, ada)
    second = ada.client.put(f"{CHANNELS}/webhook", json={"address": "https://203.0.114.8/"}).json()
    assert second["address"]["state"] == "unverified"
    assert second["secret"] not in {None, first["secret"]}
    assert [row.status for row in deliveries(database, ada)] == ["cancelled", "pending"]


def test_nobody_has_us_knock_at_doors_again_and_again(ada):
    for number in range(5):
        body = {"address": f"https://203.0.114.{number + 1}/"}
        assert ada.client.put(f"{CHANNELS}/webhook", json=body).status_code == 200
    answer = ada.client.put(f"{CHANNELS}/webhook", json={"address": "https://203.0.114.9/"})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def token_of(database, user, make) -> str:
    with database.transaction() as session:
        key = signing.installation_key(session, None)
        address = session.scalars(
            select(NotificationAddress).where(NotificationAddress.user_id == user.id)
        ).one()
        return make(key, address)


def test_a_link_in_mail_unsubscribes_without_login_but_only_by_its_button(
    database, ada, anyone, make_address
):
    make_address(ada, channel="email")
    token = token_of(database, ada, signing.unsubscribe_token)
    page = anyone.get("/unsubscribe", params={"token": token})
    assert page.status_code == 200
    assert "<button>" in page.text
    assert by_name(ada.client.get(CHANNELS))["email"]["address"]["state"] == "active"
    forged = token[:-1] + ("A" if token[-1] != "A" else "B")
    assert anyone.post("/unsubscribe", params={"token": forged}).status_code == 404
    one_click = anyone.post(
        "/unsubscribe", params={"token": token}, data={"List-Unsubscribe": "One-Click"}
    )
    assert one_click.status_code == 200
    address = by_name(ada.client.get(CHANNELS))["email"]["address"]
    assert (address["state"], address["disabled_reason"]) == ("disabled", "unsubscribed")
    (notice,) = ada.client.get("/api/v1/notifications", params={"kind": "system"}).json()["items"]
    assert "email" in notice["title"]
    assert anyone.post("/unsubscribe", params={"token": token}).status_code == 200


def test_a_link_in_mail_verifies_an_address(database, ada, anyone, make_address):
    make_address(ada, channel="email", verified_at=None)
    token = token_of(database, ada, lambda key, to: signing.verify_token(key, to, utcnow()))
    assert anyone.get("/verify-email", params={"token": token}).status_code == 200
    assert by_name(ada.client.get(CHANNELS))["email"]["address"]["state"] == "unverified"
    other = token_of(database, ada, signing.unsubscribe_token)
    assert anyone.post("/verify-email", params={"token": other}).status_code == 404
    assert anyone.post("/verify-email", params={"token": token}).status_code == 200
    assert by_name(ada.client.get(CHANNELS))["email"]["address"]["state"] == "active"


def test_a_page_escapes_what_the_link_says(anyone):
    page = anyone.get("/unsubscribe", params={"token": '"><script>'})
    assert "<script>" not in page.text
