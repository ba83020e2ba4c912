"""Counts are of what is there, for whom they may be shown."""

import threading
from datetime import UTC, date, datetime, timedelta

import pytest
from sqlalchemy import delete, select

from genonaut.db.models import ContentImage, ContentItem, ContentStat
from genonaut.domain import stats

OLD = datetime(2026, 1, 5, 23, 59, tzinfo=UTC)
EVER = date(2000, 1, 1)


@pytest.fixture
def make_item(database, make_user, make_job):
    def make(user, *, model="dream", images=1, is_private=False, at=OLD):
        with database.transaction() as session:
            item = ContentItem(
                title="x", prompt="x", creator_id=user.id, is_private=is_private, created_at=at
            )
            session.add(item)
            session.flush()
            for n in range(images):
                image = {"storage_key": "k", "sha256": "a" * 64, "mime": "image/png"}
                size = {"width": 1, "height": 1, "bytes": 1}
                session.add(ContentImage(content_id=item.id, position=n, **image, **size))
        if model is not None:
            make_job(user, checkpoint_model=model, content_id=item.id, status="completed")
        return item

    return make


@pytest.fixture
def refresh(database):
    def run(**options):
        with database.transaction() as session:
            return stats.refresh(session, **options)

    return run


@pytest.fixture
def read(database):
    def run(user, since=EVER, **options):
        with database.transaction() as session:
            return stats.read(session, user.id, since=since, **options)

    return run


def test_items_and_images_are_counted_per_creator_model_and_day(
    make_user, make_item, refresh, read
):
    ada, bob = make_user("ada"), make_user("bob")
    make_item(ada, images=2)
    make_item(ada, images=1)
    make_item(ada, model=None)
    make_item(bob, at=OLD + timedelta(minutes=2))
    assert refresh() == 3
    seen = read(ada)
    assert (seen["items"], seen["images"]) == (4, 5)
    assert seen["creators"] == [
        {"username": "ada", "items": 3, "images": 4},
        {"username": "bob", "items": 1, "images": 1},
    ]
    assert seen["models"] == [
        {"model": "dream", "items": 3, "images": 4},
        {"model": "unknown", "items": 1, "images": 1},
    ]
    assert [day["day"] for day in seen["days"]] == ["2026-01-06", "2026-01-05"]
    assert seen["refreshed_at"] is not None


def test_private_pictures_count_for_their_owner_alone(make_user, make_item, refresh, read):
    ada, bob = make_user("ada"), make_user("bob")
    make_item(ada, is_private=True, images=3)
    make_item(ada)
    refresh()
    assert read(ada)["images"] == 4
    assert read(bob)["images"] == 1
    assert read(bob, creator="ada")["items"] == 1


def test_a_creator_of_private_pictures_alone_is_not_named(make_user, make_item, refresh, read):
    ada, bob = make_user("ada"), make_user("bob")
    make_item(ada, is_private=True)
    refresh()
    assert read(bob)["creators"] == []
    assert read(bob)["refreshed_at"] is None


def test_it_can_be_narrowed(make_user, make_item, refresh, read):
    ada = make_user("ada")
    make_item(ada)
    make_item(ada, model="real", at=OLD + timedelta(days=9))
    refresh()
    assert read(ada, since=date(2026, 1, 10))["items"] == 1
    assert read(ada, model="real")["items"] == 1
    assert read(ada, creator="nobody")["items"] == 0


def test_counting_twice_changes_nothing_and_what_is_gone_is_not_counted(
    database, make_user, make_item, refresh, read
):
    ada = make_user("ada")
    make_item(ada)
    gone = make_item(ada, model="real")
    assert refresh() == refresh() == 2
    with database.transaction() as session:
        session.execute(delete(ContentItem).where(ContentItem.id == gone.id))


def test_what_has_no_pictures_any_more_is_dropped(committed_database, make_user, make_item):
    ada = make_user("ada")
    kept, gone = make_item(ada), make_item(ada, model="real")
    for expected in (2, 1):
        with committed_database.transaction() as session:
            assert stats.refresh(session) == expected
        with committed_database.transaction() as session:
            rows = session.scalars(select(ContentStat)).all()
            assert len(rows) == expected
            session.execute(delete(ContentItem).where(ContentItem.id == gone.id))
    assert kept.id != gone.id


def test_only_so_many_days_are_counted_anew(committed_database, make_user, make_item):
    ada = make_user("ada")
    make_item(ada)
    make_item(ada, at=datetime.now(UTC))
    with committed_database.transaction() as session:
        assert stats.refresh(session) == 2
    with committed_database.transaction() as session:
        assert stats.refresh(session, days=1) == 1
    with committed_database.transaction() as session:
        assert len(session.scalars(select(ContentStat)).all()) == 2


def test_many_at_once_give_one_right_count(committed_database, make_user, make_item):
    ada = make_user("ada")
    for _ in range(5):
        make_item(ada)
    together = threading.Barrier(6)
    failed = []

    def count():
        together.wait()
        try:
            with committed_database.transaction() as session:
                stats.refresh(session)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with committed_database.transaction() as session:
        assert [row.items for row in session.scalars(select(ContentStat))] == [5]
