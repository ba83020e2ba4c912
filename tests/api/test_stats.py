"""Counts of the collection over HTTP."""

from datetime import timedelta

import pytest
from sqlalchemy import func

from genonaut.core.clock import utcnow
from genonaut.db.models import ContentStat

STATS = "/api/v1/stats"


@pytest.fixture
def counted(ada, bob, database):
    """Pictures of two users, on some day."""

    def count(who, days_ago: int, items: int, *, public: int, model: str = "aurelia") -> None:
        day = utcnow().date() - timedelta(days=days_ago)
        with database.transaction() as session:
            session.add(
                ContentStat(
                    creator_id=who.id,
                    model=model,
                    day=day,
                    items=items,
                    images=2 * items,
                    public_items=public,
                    public_images=2 * public,
                    refreshed_at=func.now(),
                )
            )

    return count


def test_what_one_may_see_is_counted_by_creator_model_and_day(ada, bob, counted):
    counted(ada, 0, 3, public=1)
    counted(bob, 1, 5, public=2, model="other")
    counted(ada, 31, 100, public=100)
    shown = ada.client.get(STATS).json()
    today = utcnow().date()
    assert (shown["items"], shown["images"]) == (5, 10)
    assert shown["since"] == (today - timedelta(days=30)).isoformat()
    assert shown["creators"] == [
        {"username": "ada", "items": 3, "images": 6},
        {"username": "bob", "items": 2, "images": 4},
    ]
    assert [row["model"] for row in shown["models"]] == ["aurelia", "other"]
    assert [row["items"] for row in shown["days"]] == [3, 2]
    assert bob.client.get(STATS).json()["items"] == 6


def test_filters_narrow(ada, bob, counted):
    counted(ada, 0, 1, public=1)
    counted(bob, 0, 2, public=2, model="other")
    counted(ada, 40, 4, public=4)
    since = (utcnow().date() - timedelta(days=40)).isoformat()
    for params, items in (
        ({"since": since}, 7),
        ({"since": since, "creator": "ada"}, 5),
        ({"model": "other"}, 2),
        ({"creator": "nobody"}, 0),
    ):
        assert ada.client.get(STATS, params=params).json()["items"] == items


def test_a_wrong_filter_is_named_and_a_login_asked_for(ada, anyone):
    for query in ("since=yesterday", "creator=%00", "model=%00", f"creator={'x' * 51}"):
        answer = ada.client.get(f"{STATS}?{query}")
        assert answer.status_code == 422
        assert query.partition("=")[0] in answer.json()["detail"]
    assert anyone.get(STATS).status_code == 401
