"""Notifications over HTTP."""

from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from genonaut.domain import notifications, users

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


@pytest.mark.parametrize("change", ["mark", "mark all", "delete"])
def test_who_changes_what_is_unread_waits_for_who_does_so_too(ada, three, database, change):
    """Each tells how many are left, and would not count what the other has not committed."""
    first, second, _ = three
    acts = {
        "mark": lambda: ada.client.put(f"{PATH}/{second}", json={"read": True}),
        "mark all": lambda: ada.client.post(f"{PATH}/read-all"),
        "delete": lambda: ada.client.delete(f"{PATH}/{second}"),
    }
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            users.take_turn(session, ada.id)
            if change != "mark all":  # which would wait for the row itself
                notifications.mark(session, ada.id, first, read=True)
            other = pool.submit(acts[change])
            assert not wait([other], timeout=0.3).done
        assert other.result().is_success
    left = 0 if change == "mark all" else 1
    assert ada.client.get(f"{PATH}/unread-count").json() == {"count": left}


def test_another_users_notification_does_not_exist(bob, three):
    assert bob.client.put(f"{PATH}/{three[0]}", json={"read": True}).status_code == 404
    assert bob.client.delete(f"{PATH}/{three[0]}").status_code == 404
    assert bob.client.get(PATH).json()["items"] == []
