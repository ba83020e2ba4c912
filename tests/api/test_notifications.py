"""Notifications over HTTP."""

import pytest

from genonaut.domain import notifications

PATH = "/api/v1/notifications"


@pytest.fixture
def three(database, ada) -> list[int]:
    with database.transaction() as session:
        rows = [
            notifications.notify(session, ada.id, "job_completed", dedupe_key=f"{n}", title=f"{n}")
            for n in range(3)
        ]
    return [row.id for row in rows]


def test_notifications_are_listed_counted_read_and_deleted(ada, three):
    assert ada.client.get(f"{PATH}/unread-count").json() == {"count": 3}
    page = ada.client.get(PATH, params={"limit": 2})
    assert [n["id"] for n in page.json()["items"]] == three[:0:-1]
    rest = ada.client.get(page.links["next"]["url"]).json()["items"]
    assert [n["id"] for n in rest] == three[:1]
    assert ada.client.put(f"{PATH}/{three[0]}", json={"read": True}).json()["read_at"]
    unread = ada.client.get(PATH, params={"unread": True}).json()["items"]
    assert [n["id"] for n in unread] == three[:0:-1]
    assert ada.client.put(f"{PATH}/{three[0]}", json={"read": False}).json()["read_at"] is None
    assert ada.client.post(f"{PATH}/read-all").json() == {"count": 3}
    assert ada.client.get(f"{PATH}/unread-count").json() == {"count": 0}
    assert ada.client.delete(f"{PATH}/{three[1]}").status_code == 204
    assert ada.client.delete(f"{PATH}/{three[1]}").status_code == 404


def test_another_users_notification_does_not_exist(bob, three):
    assert bob.client.put(f"{PATH}/{three[0]}", json={"read": True}).status_code == 404
    assert bob.client.delete(f"{PATH}/{three[0]}").status_code == 404
    assert bob.client.get(PATH).json()["items"] == []
