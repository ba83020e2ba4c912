"""What users do is taken down once, counted where it counts, and taken back."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, text, update

from genonaut.core.errors import InvalidInputError, NotFoundError
from genonaut.db.models import ContentItem, UserInteraction
from genonaut.domain import content, interactions, users
from genonaut.domain.interactions import Act, Standing
from genonaut.local import processes


@pytest.fixture
def item(session, make_user):
    owner = make_user()
    made = ContentItem(title="x", prompt="x", creator_id=owner.id)
    session.add(made)
    session.flush()
    return made


@pytest.fixture
def do(session, make_user, item):
    user = make_user()

    def act(kind, **values):
        return interactions.record(session, user.id, item.id, Act(kind), **values)

    act.user = user
    return act


def test_a_like_may_be_repeated_and_taken_back_and_given_again(do, session):
    assert do("unlike").liked is False
    assert do("like").liked is do("like").liked is True
    assert do("unlike").liked is do("unlike").liked is False
    assert session.scalars(select(UserInteraction.times)).all() == [0]
    assert do("like").liked is True


def test_views_within_a_minute_are_one(do, session):
    assert do("view").views == do("view").views == 1
    session.execute(
        update(UserInteraction).values(updated_at=UserInteraction.updated_at - timedelta(minutes=2))
    )
    assert do("view").views == 2
    assert do("download").downloads == 1
    assert do("share") == Standing(
        session.scalar(select(ContentItem.id)), views=2, downloads=1, shares=1
    )


def test_the_last_rating_counts_and_one_is_wanted(do):
    assert do("rate", rating=2).rating == 2
    assert do("rate", rating=5).rating == 5
    for values in ({"kind": "rate"}, {"kind": "like", "rating": 3}):
        with pytest.raises(InvalidInputError):
            do(**values)


def test_a_dismissal_is_recalled(do):
    assert do("dismiss").dismissed is True
    assert do("recall").dismissed is False


def test_what_may_not_be_seen_may_not_be_touched(do, session, item):
    session.execute(update(ContentItem).values(is_private=True))
    with pytest.raises(NotFoundError):
        do("like")


def test_it_goes_with_the_item(do, session):
    do("like")
    session.execute(delete(ContentItem))
    assert session.scalars(select(UserInteraction)).all() == []


@pytest.mark.parametrize("first", ["like", "delete"])
def test_of_an_act_and_a_deletion_at_once_the_second_finds_the_work_of_the_first(
    committed_database, first
):
    database = committed_database
    with database.transaction() as session:
        ada, bob = (users.create_user(session, name) for name in ("ada", "bob"))
        item = ContentItem(title="x", prompt="x", creator_id=ada.id)
        session.add(item)

    acts = {
        "like": lambda session: interactions.record(session, bob.id, item.id, Act.LIKE),
        "delete": lambda session: content.delete_own(session, ada.id, item.id),
    }

    def do(act: str) -> None:
        with database.transaction() as session:
            acts[act](session)

    def waits() -> bool:
        with database.transaction() as session:
            return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    [second] = acts.keys() - {first}
    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as session:
            acts[first](session)
            later = pool.submit(do, second)
            assert processes.wait_until(waits, 10)
        if second == "like":
            with pytest.raises(NotFoundError):
                later.result(10)
        else:
            later.result(10)
    with database.transaction() as session:
        assert session.scalars(select(ContentItem)).all() == []
        assert session.scalars(select(UserInteraction)).all() == []
