"""A list is shown as it may be shown now."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import delete, event, select, text, update

from genonaut.core.errors import UnauthorizedError
from genonaut.db.models import ContentImage, ContentItem, Recommendation, RecommendationServe
from genonaut.domain import interactions, recommendation_lists, users
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.content import Item
from genonaut.domain.interactions import Act
from genonaut.domain.users import Login

NOW = datetime.now(UTC)


@pytest.fixture
def ada(make_user):
    return make_user()


@pytest.fixture
def items(session, make_user):
    owner = make_user()
    made = [ContentItem(title=f"item {n}", creator_id=owner.id) for n in range(6)]
    session.add_all(made)
    session.flush()
    return made


@pytest.fixture
def put(session):
    """Make a generation with lists, current at once."""

    def make(**lists):
        made = generations.begin(
            session, run_id=None, algorithm="x", as_of=NOW, fingerprint={}, evaluation=None
        )
        for user, ids in lists["of"].items():
            session.add_all(
                Recommendation(
                    generation_id=made,
                    user_id=user,
                    rank=n,
                    content_id=i,
                    score=1 / n,
                    reason=lists.get("reason", 1),
                    because_id=lists.get("because", 0),
                )
                for n, i in enumerate(ids, start=1)
            )
        session.flush()
        generations.switch(session, made, users=len(lists["of"]), rows=0)
        return made

    return make


@pytest.fixture
def read(session, ada):
    def run(**options):
        return recommendation_lists.read(session, ada.id, **options)

    return run


def ids(places):
    return [place.item.id for place in places]


def test_before_the_first_refresh_the_newest_are_given_page_by_page(read, items):
    newest = [item.id for item in reversed(items)]
    first = read(limit=4)
    assert ids(first) == newest[:4]
    assert ids(read(after=first[-1].mark, limit=4)) == newest[4:]
    assert {place.reason for place in first} == {"new"}


def test_what_joins_or_leaves_the_newest_repeats_and_skips_nothing(read, items, session):
    newest = [item.id for item in reversed(items)]
    first = read(limit=3)
    session.add(ContentItem(title="just now", creator_id=items[0].creator_id))
    session.flush()
    second = read(after=first[-1].mark, limit=1)
    session.execute(delete(ContentItem).where(ContentItem.id.in_(newest[:2])))
    rest = read(after=second[-1].mark)
    assert ids(first + second + rest) == newest
    assert [place.rank for place in first + second + rest] == [1, 2, 3, 4, 5, 6]
    assert read(after=rest[-1].mark) == []


@pytest.mark.parametrize("mark", [0, 5, 2**62, 2**62 + 5])
def test_a_mark_of_no_item_has_nothing_behind_it(read, items, mark):
    assert read(after=mark) == []
    assert len(read(after=2**63 - 1)) == len(items)  # as of an item that is far in the future


def test_who_has_no_list_gets_what_is_popular(read, items, put):
    put(of={generations.EVERYONE: [items[2].id, items[0].id]}, reason=4)
    assert [(p.item.id, p.words) for p in read()] == [
        (items[2].id, "popular this week"),
        (items[0].id, "popular this week"),
    ]


def test_the_own_list_comes_in_order_and_a_page_ends_where_it_ends(read, items, put, ada):
    put(of={ada.id: [i.id for i in items], generations.EVERYONE: [items[0].id]})
    first = read(limit=4)
    assert ids(first) == [i.id for i in items[:4]]
    rest = read(after=first[-1].mark, limit=4)
    assert ids(rest) == [i.id for i in items[4:]]
    assert read(after=rest[-1].mark) == []


def test_a_list_that_was_begun_is_read_to_its_end_after_a_switch(read, items, put, ada):
    put(of={ada.id: [items[0].id, items[1].id]})
    first = read(limit=1)
    put(of={ada.id: [items[5].id]})
    assert ids(read(after=first[-1].mark)) == [items[1].id]
    assert ids(read()) == [items[5].id]


def test_what_became_private_deleted_dismissed_or_ones_own_is_left_out(
    read, items, put, ada, session
):
    put(of={ada.id: [i.id for i in items]})
    session.execute(
        update(ContentItem).where(ContentItem.id == items[0].id).values(is_private=True)
    )
    session.execute(
        update(ContentItem).where(ContentItem.id == items[1].id).values(creator_id=ada.id)
    )
    session.execute(delete(ContentItem).where(ContentItem.id == items[2].id))
    interactions.record(session, ada.id, items[3].id, Act.DISMISS)
    assert ids(read()) == [items[4].id, items[5].id]
    interactions.record(session, ada.id, items[3].id, Act.RECALL)
    assert ids(read()) == [i.id for i in items[3:]]


def test_a_list_of_which_nothing_may_be_shown_gives_way_to_what_is_popular(
    read, items, put, ada, session
):
    put(of={ada.id: [items[0].id], generations.EVERYONE: [items[1].id]})
    interactions.record(session, ada.id, items[0].id, Act.DISMISS)
    assert ids(read()) == [items[1].id]


def test_the_reason_names_an_item_only_while_it_may_be_seen(read, items, put, ada, session):
    put(of={ada.id: [items[0].id]}, because=items[5].id)
    assert read()[0].words == "because you liked item 5"
    session.execute(
        update(ContentItem).where(ContentItem.id == items[5].id).values(is_private=True)
    )
    assert (read()[0].words, read()[0].because_id) == ("because of what you liked", None)


def test_what_was_served_is_marked_once_a_minute_or_when_it_goes_further(
    read, items, put, ada, session
):
    put(of={ada.id: [i.id for i in items]})
    served = select(RecommendationServe.up_to_rank, RecommendationServe.times)
    for limit, expected in ((2, (2, 1)), (2, (2, 1)), (5, (5, 2)), (1, (5, 2))):
        recommendation_lists.mark_served(session, ada.id, read(limit=limit))
        assert session.execute(served).one() == expected
    recommendation_lists.mark_served(session, ada.id, [])


def test_an_empty_collection_gives_an_empty_list(read):
    assert read() == []


def test_a_list_read_again_writes_and_locks_nothing(session, ada, items, put):
    put(of={ada.id: [items[0].id, items[1].id]})
    for limit in (2, 2, 1):
        places = recommendation_lists.read(session, ada.id, limit=limit)
        recommendation_lists.mark_served(session, ada.id, places)
    # A row that was locked since it was written bears the locker's number.
    assert session.scalars(text("SELECT xmax::text FROM recommendation_serves")).one() == "0"


@pytest.fixture
def note_statements(session):
    """Note the statements that follow, and forbid reading whole tables where an index would do."""
    connection = session.connection()
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    found = []

    def note(_, __, statement, parameters, *___):
        found.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", note)
    yield found
    event.remove(connection, "before_cursor_execute", note)


def scans(session, statements):
    connection = session.connection()
    return [
        row
        for statement, parameters in list(statements)
        for row in connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars()
        if "Seq Scan" in row
    ]


@pytest.mark.parametrize("kind", ["token", "session"])
def test_a_list_is_found_with_its_login_by_indices_alone_in_one_statement(
    session, ada, items, put, kind, note_statements
):
    put(of={ada.id: [item.id for item in items]})
    token = users.issue_token(session, ada.id, name="x")
    opened = users.open_session(session, ada.id, ttl=timedelta(hours=1))
    login = Login.by_token(token) if kind == "token" else Login.by_session(opened)
    session.flush()
    users.authenticate(session, login)  # which notes that the token was used
    for expected in (2, 1):  # what was marked a moment ago is not marked again
        note_statements.clear()
        user_id, places = recommendation_lists.read_with(session, login)
        recommendation_lists.mark_served(session, user_id, places)
        assert (user_id, len(places), len(note_statements)) == (ada.id, 6, expected)
        assert scans(session, note_statements) == []


def test_without_a_list_of_ones_own_too_indices_are_enough(session, ada, items, note_statements):
    assert len(recommendation_lists.read(session, ada.id)) == 6
    assert len(note_statements) == 3
    assert scans(session, note_statements) == []


def test_a_login_that_is_not_valid_reads_nothing(session, ada, items, put):
    put(of={generations.EVERYONE: [item.id for item in items]})
    login = Login.by_token(users.issue_token(session, ada.id, name="x"))
    session.flush()
    assert len(recommendation_lists.read_with(session, login)[1]) == 6
    with pytest.raises(UnauthorizedError):
        recommendation_lists.read_with(session, Login.by_token("another"))


def test_a_place_has_what_is_shown_of_its_item_and_images(session, ada, make_image, put):
    images = [make_image(thumbnails={"256": {"key": "a.webp"}}), make_image()]
    [item, other] = [session.get_one(ContentItem, image.content_id) for image in images]
    item.item_metadata, item.quality_score = {"seed": 2**53 - 1}, 0.1
    second = make_image()
    session.execute(
        update(ContentImage)
        .where(ContentImage.id == second.id)
        .values(content_id=item.id, position=1)
    )
    put(of={ada.id: [item.id, other.id]})
    [first, last] = recommendation_lists.read(session, ada.id)
    for name in Item._fields:
        assert getattr(first.item, name) == getattr(item, name), name
    assert [(one.content_id, one.position) for one in first.images] == [(item.id, 0), (item.id, 1)]
    assert first.images[0].thumbnails == {"256": {"key": "a.webp"}}
    assert [one.sha256 for one in last.images] == [images[1].sha256]


def test_a_place_tells_what_the_user_thinks_of_its_item(session, ada, make_user, items, put):
    liked, rated, both, taken_back = (item.id for item in items[:4])
    for item in (liked, both, taken_back):
        interactions.record(session, ada.id, item, Act.LIKE)
    interactions.record(session, ada.id, taken_back, Act.UNLIKE)
    for item in (rated, both):
        interactions.record(session, ada.id, item, Act.RATE, rating=4)
    interactions.record(session, make_user().id, items[4].id, Act.LIKE)
    ids = [item.id for item in items]
    expected = interactions.opinions(session, ada.id, ids)
    newest = recommendation_lists.read(session, ada.id)
    put(of={ada.id: ids})
    for places in (newest, recommendation_lists.read(session, ada.id)):
        assert {place.item.id: place.opinion for place in places} == expected
