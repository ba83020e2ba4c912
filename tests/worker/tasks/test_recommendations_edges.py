"""Whatever the collection holds, a refresh gives sensible lists or none, and never an error."""

from datetime import UTC, datetime

import numpy as np
import pytest
from sqlalchemy import func, select, text

from genonaut.db.models import ContentItem, Recommendation, UserInteraction
from genonaut.domain import recommendation_generations as generations
from genonaut.domain import recommendation_lists
from genonaut.domain import recommendation_signals as signals
from genonaut.worker.tasks.recommendations import refresh

KINDS = ("view", "like", "rate", "download", "share", "dismiss")
NOW = datetime.now(UTC)


@pytest.fixture
def make_items(database, make_user):
    def make(count, *, by=None, **columns):
        owner = by or make_user()
        with database.transaction() as session:
            rows = [
                ContentItem(title=f"item {n}", prompt="a cat", creator_id=owner.id, **columns)
                for n in range(count)
            ]
            session.add_all(rows)
        return [row.id for row in rows]

    return make


@pytest.fixture
def act(database):
    """Store what users did, as pairs; further keywords are columns."""

    def do(pairs, kind="like", **columns):
        if kind == "rate":
            columns = {"rating": 3, **columns}
        with database.transaction() as session:
            session.add_all(
                UserInteraction(user_id=user.id, content_id=item, kind=kind, **columns)
                for user, item in pairs
            )

    return do


@pytest.fixture
def refreshed(run_task, database):
    """Refresh, check every list that was made, and give how many places each user has."""

    def run(**params):
        result, _ = run_task(refresh, **params)
        assert result.switched
        with database.transaction() as session:
            kept = select(Recommendation).where(Recommendation.generation_id == result.generation)
            rows = session.scalars(kept).all()
            public = {
                item.id: item.creator_id
                for item in session.scalars(select(ContentItem).where(~ContentItem.is_private))
            }
            unwanted = set(
                session.execute(
                    select(UserInteraction.user_id, UserInteraction.content_id).where(
                        UserInteraction.kind == "dismiss", UserInteraction.times > 0
                    )
                )
            )
        lists: dict = {}
        for row in rows:
            lists.setdefault(row.user_id, []).append(row)
            assert public[row.content_id] != row.user_id, "one's own"
            assert (row.user_id, row.content_id) not in unwanted
            assert row.reason in {1, 2, 3, 4, 5}
        for places in lists.values():
            places.sort(key=lambda row: row.rank)
            scores = [row.score for row in places]
            assert np.isfinite(scores).all()
            assert [row.rank for row in places] == list(range(1, len(places) + 1))
            assert len({row.content_id for row in places}) == len(places)
        if result.evaluation is not None:
            assert np.isfinite(list(result.evaluation.model_dump().values())).all()
        assert result.rows == len(rows)
        return {user: len(places) for user, places in lists.items()}

    return run


@pytest.fixture
def shown(database):
    def read(user):
        with database.transaction() as session:
            places = recommendation_lists.read(session, user.id, limit=100)
        return [place.item.id for place in places]

    return read


def test_an_empty_database_gives_an_empty_list(refreshed, make_user, shown):
    assert refreshed() == {}
    assert shown(make_user()) == []


def test_one_user_without_acts_and_one_item(refreshed, make_items, make_user, shown):
    [item] = make_items(1)
    refreshed()
    assert shown(make_user()) == [item]


def test_one_user_and_their_own_item_alone(refreshed, make_items, make_user, act, shown):
    ada = make_user()
    [own] = make_items(1, by=ada)
    act([(ada, own)])
    refreshed()
    assert shown(ada) == []


@pytest.mark.parametrize("kind", KINDS)
def test_one_user_one_item_one_act(refreshed, make_items, make_user, act, shown, kind):
    ada = make_user()
    [item] = make_items(1)
    act([(ada, item)], kind)
    refreshed()
    assert shown(ada) in ([], [item])
    assert shown(make_user()) == [item]


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_of_act_only(refreshed, make_items, make_user, act, shown, kind):
    users, items = [make_user() for _ in range(6)], make_items(12)
    act([(u, i) for n, u in enumerate(users) for i in items[n : n + 4]], kind)
    refreshed()
    assert len(shown(users[0])) == (8 if kind == "dismiss" else 12)


@pytest.mark.parametrize("rating", [1, 3, 5])
def test_ratings_that_are_all_equal(refreshed, make_items, make_user, act, shown, rating):
    users, items = [make_user() for _ in range(5)], make_items(10)
    act([(u, i) for u in users for i in items], "rate", rating=rating)
    refreshed()
    assert len(shown(users[0])) == 10


@pytest.mark.parametrize(
    "moment", ["0001-01-01", "1970-01-01", "9999-12-31", "infinity", "-infinity"]
)
def test_moments_beyond_all_measure(refreshed, make_items, make_user, act, database, moment, shown):
    users, items = [make_user() for _ in range(4)], make_items(8)
    act([(u, i) for n, u in enumerate(users) for i in items[n : n + 4]])
    with database.transaction() as session:
        values = {"moment": moment, "item": items[0], "user": users[0].id}
        for statement in (
            "UPDATE user_interactions SET updated_at = :moment WHERE user_id = :user",
            "UPDATE content_items SET created_at = :moment WHERE id = :item",
        ):
            session.execute(text(statement), values)
    refreshed()
    for user in users:
        assert shown(user)


def test_what_was_counted_beyond_all_measure(refreshed, make_items, make_user, act, shown):
    users, items = [make_user() for _ in range(4)], make_items(8)
    act([(u, i) for n, u in enumerate(users) for i in items[n : n + 4]], "view", times=2**31 - 1)
    refreshed()
    assert len(shown(users[0])) == 8


@pytest.mark.parametrize("task_settings", [{"recommend_head_items": 200}])
def test_a_user_with_fifty_thousand_acts(refreshed, make_items, make_user, act, database, shown):
    busy, idle, owner = make_user(), make_user(), make_user()
    with database.transaction() as session:
        session.execute(
            text(
                "WITH made AS (INSERT INTO content_items (title, prompt, creator_id)"
                " SELECT 'item ' || n, 'a cat in style ' || n % 50, :owner"
                " FROM generate_series(1, 12500) n RETURNING id)"
                " INSERT INTO user_interactions (user_id, content_id, kind, updated_at)"
                " SELECT :busy, id, kind, now() - id % 90 * interval '1 day' FROM made,"
                " unnest(ARRAY['view', 'like', 'download', 'share']) kind"
            ),
            {"owner": owner.id, "busy": busy.id},
        )
        assert session.scalar(select(func.count()).select_from(UserInteraction)) == 50_000
        some = session.scalars(select(ContentItem.id).order_by(ContentItem.id).limit(10)).all()
    act([(idle, item) for item in some])
    places = refreshed()
    assert places[busy.id] == places[idle.id] == 50
    assert len(shown(busy)) == 50


def test_items_deleted_or_made_private_while_lists_are_made(
    run_task, make_items, make_user, act, database, shown, monkeypatch
):
    users, items = [make_user() for _ in range(4)], make_items(8)
    act([(u, i) for n, u in enumerate(users) for i in items[n : n + 4]])
    read = signals.read

    def read_then_lose(*args, **options):
        found = read(*args, **options)
        with database.transaction() as session:
            session.delete(session.get_one(ContentItem, items[1]))
            session.get_one(ContentItem, items[2]).is_private = True
        return found

    monkeypatch.setattr(signals, "read", read_then_lose)
    result, _ = run_task(refresh)
    assert result.switched
    for user in users:
        assert sorted(shown(user)) == [items[0], *items[3:]]


def test_acts_with_items_that_are_gone_or_hidden_count_for_nothing(
    refreshed, make_items, make_user, act, database, shown
):
    ada = make_user()
    gone, hidden = make_items(3), make_items(3)
    act([(ada, item) for item in (*gone, *hidden)])
    with database.transaction() as session:
        for item in gone:
            session.delete(session.get_one(ContentItem, item))
        for item in hidden:
            session.get_one(ContentItem, item).is_private = True
    refreshed()
    assert shown(ada) == []


def test_nobody_is_left_to_show_lists_to(refreshed, make_items, make_user, act):
    users, items = [make_user(is_active=False) for _ in range(3)], make_items(5)
    act([(u, i) for u in users for i in items])
    places = refreshed()
    assert places.get(generations.EVERYONE) == 5
