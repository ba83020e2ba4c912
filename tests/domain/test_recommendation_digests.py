"""Who asked for it hears once a week of what is new to them, and nobody else does."""

import re
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, select, update

from genonaut.db.models import (
    ContentItem,
    NotificationDelivery,
    Recommendation,
    UserNotification,
)
from genonaut.domain import interactions, preference_writing
from genonaut.domain import recommendation_digests as digests
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.interactions import Act
from genonaut.domain.preferences import Preferences

CHANNELS = ("in_app", "email", "webhook")
WEEK, NEXT = "2026-W48", "2026-W49"


@pytest.fixture
def ask(session, make_user):
    """Make a user who chose the kind for a channel."""

    def make(channel="in_app", *, is_wanted=True, **columns):
        user = make_user(**columns)
        wanted = Preferences({"recommendation": {channel: is_wanted}})
        preference_writing.save(session, user.id, wanted, channels=CHANNELS)
        return user

    return make


@pytest.fixture
def items(session, make_user):
    made = [ContentItem(title=f"item\n{n}", creator_id=make_user().id) for n in range(8)]
    session.add_all(made)
    session.flush()
    return made


@pytest.fixture
def put(session, items):
    """Make a generation in which every one of some users has all items."""

    def make(*users):
        made = generations.begin(
            session,
            run_id=None,
            algorithm="x",
            as_of=datetime.now(UTC),
            fingerprint={},
            evaluation=None,
        )
        session.add_all(
            Recommendation(
                generation_id=made,
                user_id=user,
                rank=n,
                content_id=item.id,
                score=1 / n,
                reason=1,
            )
            for user in users
            for n, item in enumerate(items, start=1)
        )
        session.flush()
        generations.switch(session, made, users=len(users), rows=0)

    return make


def notices(session, user):
    return session.scalars(
        select(UserNotification)
        .where(UserNotification.user_id == user.id)
        .order_by(UserNotification.id)
    ).all()


def test_a_week_is_named_as_iso_does(session):
    year, week, _ = datetime.now(UTC).isocalendar()
    assert digests.week(session) == f"{year}-W{week:02d}"
    assert re.fullmatch(r"\d{4}-W\d\d", digests.week(session))


def test_only_those_who_asked_are_told_page_by_page(session, ask, make_user):
    asked = sorted(ask(channel).id for channel in CHANNELS)
    ask(is_wanted=False)
    ask(is_active=False)
    make_user()
    preference_writing.save(session, make_user().id, Preferences(), channels=CHANNELS)
    assert digests.untold(session, WEEK, after=None, limit=9) == asked
    assert digests.untold(session, WEEK, after=None, limit=2) == asked[:2]
    assert digests.untold(session, WEEK, after=asked[1], limit=2) == asked[2:]


def test_a_week_has_one_notice_with_the_best_few(session, ask, items, put):
    ada = ask()
    put(ada.id)
    assert digests.tell(session, ada.id, WEEK)
    assert digests.untold(session, WEEK, after=None, limit=9) == []
    assert not digests.tell(session, ada.id, WEEK)
    [told] = notices(session, ada)
    assert (told.kind, told.title) == ("recommendation", "5 pictures you might like")
    assert told.body.startswith("item 0 · item 1 · ")
    assert told.data == {
        "content_ids": [item.id for item in items[:5]],
        "titles": [f"item {n}" for n in range(5)],
        "week": WEEK,
        "link": "/gallery",
    }
    assert told.read_at is None


def test_what_was_told_taken_up_or_may_not_be_shown_is_not_told(session, ask, items, put):
    ada = ask()
    put(ada.id)
    session.execute(
        update(ContentItem).where(ContentItem.id == items[0].id).values(is_private=True)
    )
    session.execute(delete(ContentItem).where(ContentItem.id == items[1].id))
    interactions.record(session, ada.id, items[2].id, Act.VIEW)
    interactions.record(session, ada.id, items[3].id, Act.LIKE)
    interactions.record(session, ada.id, items[3].id, Act.UNLIKE)
    assert digests.tell(session, ada.id, WEEK)
    [told] = notices(session, ada)
    assert told.data["content_ids"] == [item.id for item in items[3:]]
    assert not digests.tell(session, ada.id, NEXT), "nothing is new"
    interactions.record(session, ada.id, items[3].id, Act.VIEW)
    session.delete(told)
    session.flush()
    for item in items[5:]:
        interactions.record(session, ada.id, item.id, Act.DISMISS)
    assert digests.tell(session, ada.id, NEXT)
    assert [one.title for one in notices(session, ada)] == ["A picture you might like"]


def test_who_has_no_list_is_told_of_what_is_popular(session, ask, put):
    ada = ask()
    put(generations.EVERYONE)
    assert digests.tell(session, ada.id, WEEK)


def test_before_there_are_lists_nothing_is_told(session, ask, items):
    assert not digests.tell(session, ask().id, WEEK)


def test_who_asked_for_mail_alone_gets_mail_alone(session, ask, put, make_address):
    ada = ask("email")
    make_address(ada)
    make_address(ada, "webhook", "https://example.org/")
    put(ada.id)
    assert digests.tell(session, ada.id, WEEK)
    [told] = notices(session, ada)
    assert told.is_hidden
    planned = session.execute(
        select(NotificationDelivery.channel).where(
            NotificationDelivery.notification_id == told.id,
            NotificationDelivery.channel != "in_app",
        )
    )
    assert planned.scalars().all() == ["email"]
