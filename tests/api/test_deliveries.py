"""Operators see what was sent, send it again, and announce."""

import pytest

from genonaut.db.models import AuditEntry
from genonaut.domain import notifications
from genonaut.domain.deliveries import DELIVERIES
from genonaut.domain.lifecycle import Status
from genonaut.domain.users import Role

PATH = "/api/v1/admin/deliveries"
ANNOUNCE = "/api/v1/admin/notifications"


@pytest.fixture
def olga(make_account):
    return make_account("olga", Role.OPERATOR)


@pytest.fixture
def notice(database, ada, make_address) -> int:
    make_address(ada)
    with database.transaction() as session:
        row = notifications.notify(session, ada.id, "system", dedupe_key="k", title="Hello")
    return row.id


def test_an_owner_sees_the_messages_of_a_notification_and_nobody_else(ada, bob, notice):
    path = f"/api/v1/notifications/{notice}"
    (row,) = ada.client.get(f"{path}/deliveries").json()["items"]
    assert (row["channel"], row["status"], row["attempt"]) == ("email", "pending", 0)
    assert "host" not in row
    assert ada.client.get(path).json()["read_at"] is None
    assert bob.client.get(f"{path}/deliveries").status_code == 404
    assert bob.client.get(path).status_code == 404


def test_auditors_read_and_operators_send_again(database, ada, olga, make_account, notice):
    adi = make_account("adi", Role.AUDITOR)
    (row,) = adi.client.get(PATH, params={"channel": "email", "status": "pending"}).json()["items"]
    assert row["user_id"] == str(ada.id)
    assert "ada@example.org" not in str(row)
    again = f"{PATH}/{row['id']}/redeliver"
    assert ada.client.get(PATH).status_code == 403
    assert adi.client.post(again).status_code == 403
    assert olga.client.post(again).json()["code"] == "not_ended"
    with database.transaction() as session:
        DELIVERIES.move(session, row["id"], Status.FAILED, error_code="refused", error_message="no")
    made = olga.client.post(again)
    assert made.status_code == 202, made.text
    assert made.json()["message_id"] == row["message_id"]
    assert made.json()["retry_of"] == row["id"]
    assert olga.client.get(made.headers["Location"]).json() == made.json()
    with database.transaction() as session:
        acts = [entry.action for entry in session.query(AuditEntry)]
    assert acts == ["delivery.redeliver"]
    assert olga.client.post(f"{PATH}/{2**62}/redeliver").status_code == 404


def test_health_tells_of_each_channel(olga, notice):
    told = olga.client.get("/api/v1/admin/delivery-health").json()["channels"]
    assert set(told) == {"email", "webhook"}
    assert (told["email"]["pending"], told["email"]["configured"]) == (1, False)
    assert told["email"]["addresses"]["active"] == 1
    assert told["webhook"]["pending"] == 0


def test_an_announcement_reaches_everyone_once_per_key(ada, bob, olga):
    body = {"title": "Maintenance at six", "body": "Half an hour."}
    key = {"Idempotency-Key": "k1"}
    for _ in range(2):
        made = olga.client.post(ANNOUNCE, json=body, headers=key)
        assert made.status_code == 201, made.text
    assert made.json()["count"] >= 3
    for user in (ada, bob):
        (row,) = user.client.get("/api/v1/notifications").json()["items"]
        assert (row["kind"], row["title"]) == ("system", "Maintenance at six")
    assert ada.client.post(ANNOUNCE, json=body).status_code == 403
    assert olga.client.post(ANNOUNCE, json={**body, "username": "nobody"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": "Hi\r\nBcc: eve@example.org"}, "title"),
        ({"title": "x" * 100_000}, "title"),
        ({"title": "  "}, "title"),
        ({"title": "\u202egnp.exe"}, "title"),
        ({"title": "Hi", "body": "x" * 10_001}, "body"),
        ({"title": "Hi", "body": "\0"}, "body"),
        ({"title": "Hi", "kind": "job_completed"}, "kind"),
        ({"title": "Hi", "channel": "pigeon"}, "channel"),
        ({}, "title"),
    ],
)
def test_a_bad_announcement_names_the_field_and_reaches_nobody(ada, olga, body, field):
    answer = olga.client.post(ANNOUNCE, json=body)
    assert answer.status_code == 422
    assert any(field in error.get("pointer", "") for error in answer.json()["errors"])
    assert ada.client.get("/api/v1/notifications").json()["items"] == []
