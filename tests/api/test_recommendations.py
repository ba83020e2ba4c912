"""Recommendations over HTTP: read, dismissed, learned from, and looked after by operators."""

from datetime import UTC, datetime

import pytest

from genonaut.db.models import ContentItem, Recommendation
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.users import Role

URL = "/api/v1/recommendations"
NOW = datetime.now(UTC)


@pytest.fixture
def items(database, bob):
    with database.transaction() as session:
        made = [ContentItem(title=f"item {n}", creator_id=bob.id) for n in range(5)]
        session.add_all(made)
    return [item.id for item in made]


@pytest.fixture
def put(database):
    def make(of):
        with database.transaction() as session:
            made = generations.begin(
                session, run_id=None, algorithm="x", as_of=NOW, fingerprint={}, evaluation=None
            )
            for user, ids in of.items():
                session.add_all(
                    Recommendation(
                        generation_id=made,
                        user_id=user,
                        rank=n,
                        content_id=i,
                        score=0.5,
                        reason=1,
                        because_id=ids[-1],
                    )
                    for n, i in enumerate(ids, start=1)
                )
            session.flush()
            generations.switch(session, made, users=1, rows=5)
        return made

    return make


def test_a_list_is_read_page_by_page_with_reasons(ada, items, put):
    put({ada.id: items})
    page = ada.client.get(URL, params={"limit": 2}).json()
    assert [item["content"]["id"] for item in page["items"]] == items[:2]
    assert page["items"][0]["reason"] == {
        "kind": "liked",
        "text": "because you liked item 4",
        "content_id": items[4],
    }
    answer = ada.client.get(URL, params={"limit": 9, "cursor": page["next_cursor"]})
    assert [item["rank"] for item in answer.json()["items"]] == [3, 4, 5]
    assert answer.json()["next_cursor"] is None
    assert ada.client.get(URL, params={"cursor": "x"}).status_code == 422


def test_a_dismissed_item_is_gone_at_once_and_back_when_recalled(ada, items, put):
    put({ada.id: items})
    dismiss = f"{URL}/{items[0]}/dismiss"
    assert ada.client.post(dismiss).status_code == 204
    assert [i["content"]["id"] for i in ada.client.get(URL).json()["items"]] == items[1:]
    assert ada.client.delete(dismiss).status_code == 204
    assert len(ada.client.get(URL).json()["items"]) == 5
    assert ada.client.post(f"{URL}/{10**15}/dismiss").status_code == 404


def test_interactions_answer_how_one_stands_to_the_item(ada, items):
    url = f"/api/v1/content/{items[0]}/interactions"
    assert ada.client.post(url, json={"kind": "like"}).json()["liked"] is True
    assert ada.client.post(url, json={"kind": "rate", "rating": 4}).json() == {
        "content_id": items[0],
        "views": 0,
        "downloads": 0,
        "shares": 0,
        "liked": True,
        "dismissed": False,
        "rating": 4,
    }
    assert ada.client.post(url, json={"kind": "unlike"}).json()["liked"] is False
    for body in (
        {"kind": "rate"},
        {"kind": "rate", "rating": 6},
        {"kind": "view", "rating": 3},
        {"kind": "dismiss"},
        {},
    ):
        assert ada.client.post(url, json=body).status_code == 422, body


def test_a_repeated_request_is_answered_as_at_first(ada, items):
    url, key = f"/api/v1/content/{items[0]}/interactions", {"Idempotency-Key": "one"}
    first = ada.client.post(url, json={"kind": "view"}, headers=key)
    again = ada.client.post(url, json={"kind": "view"}, headers=key)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"


def test_nobody_touches_what_they_may_not_see(ada, bob, database):
    with database.transaction() as session:
        item = ContentItem(title="x", creator_id=bob.id, is_private=True)
        session.add(item)
    url = f"/api/v1/content/{item.id}/interactions"
    assert ada.client.post(url, json={"kind": "view"}).status_code == 404
    assert bob.client.post(url, json={"kind": "view"}).status_code == 200


def test_operators_go_back_and_auditors_see_how_good_lists_were(
    ada, items, put, make_account, database
):
    first, second = put({ada.id: items[:1]}), put({ada.id: items[1:]})
    rollback = "/api/v1/admin/recommendations/rollback"
    listing = "/api/v1/admin/recommendations/generations"
    auditor, operator = make_account("eve", Role.AUDITOR), make_account("oz", Role.OPERATOR)
    assert ada.client.get(listing).status_code == 403
    assert auditor.client.post(rollback).status_code == 403
    assert [r["id"] for r in auditor.client.get(listing).json()["items"]] == [second, first]
    assert operator.client.post(rollback).json()["id"] == first
    assert [i["content"]["id"] for i in ada.client.get(URL).json()["items"]] == items[:1]
    assert operator.client.post(rollback).status_code == 409
    acts = auditor.client.get("/api/v1/admin/audit").json()["items"]
    assert acts[0]["action"] == "recommendations.rollback"
