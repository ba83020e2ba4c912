"""A day is told once, at the hour its owner chose."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select, update

from genonaut.db.models import NotificationDelivery, NotificationPreference, UserNotification
from genonaut.domain import digests, notifications, preference_writing
from genonaut.domain.preferences import Preferences


@pytest.fixture
def daily(session, make_user, make_address):
    """A user whose digest of today is due, with news of an hour ago."""

    def make(count=3, *, since=timedelta(days=1), **wanted):
        user = make_user()
        make_address(user)
        preference_writing.save(
            session,
            user.id,
            Preferences(is_daily=True, digest_hour=0, **wanted),
            channels=["in_app", "email"],
        )
        for number in range(count):
            notifications.notify(
                session, user.id, "system", dedupe_key=f"{number}", title=f"News {number}"
            )
        session.execute(
            update(UserNotification)
            .where(UserNotification.user_id == user.id)
            .values(created_at=datetime.now(UTC) - timedelta(hours=1))
        )
        session.execute(
            update(NotificationPreference)
            .where(NotificationPreference.user_id == user.id)
            .values(digested_on=(datetime.now(UTC) - since).date())
        )
        session.expire_all()
        return user

    return make


def planned(session, user) -> list[NotificationDelivery]:
    query = select(NotificationDelivery).where(NotificationDelivery.user_id == user.id)
    return list(session.scalars(query))


def plan(session, user) -> int:
    rows = [(row, day) for row, day in digests.due(session, limit=100) if row.user_id == user.id]
    return sum(digests.make(session, row, day) for row, day in rows)


def test_the_news_of_a_day_are_one_message(session, daily):
    user = daily()
    assert plan(session, user) == 1
    (row,) = planned(session, user)
    assert (row.purpose, row.data["total"], len(row.data["notification_ids"])) == ("digest", 3, 3)
    session.expire_all()
    assert plan(session, user) == 0


def test_a_day_without_news_is_not_told(session, daily):
    user = daily(0)
    assert plan(session, user) == 0
    assert planned(session, user) == []
    session.expire_all()
    assert digests.due(session, limit=10) == []


def test_the_next_day_tells_only_what_is_new(session, daily):
    user = daily()
    plan(session, user)
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    session.execute(update(NotificationPreference).values(digested_on=yesterday))
    session.execute(update(NotificationDelivery).values(subject="digest:yesterday"))
    session.expire_all()
    assert plan(session, user) == 0


def test_what_is_not_wanted_by_mail_is_left_out_but_what_is_hidden_in_the_inbox_is_not(
    session, daily
):
    unwanted = daily(choices={"system": {"email": False}})
    assert plan(session, unwanted) == 0
    hidden = daily(choices={"system": {"in_app": False}})
    assert plan(session, hidden) == 1


def test_a_group_that_is_still_open_waits_for_the_next_with_what_came_after_it(session, daily):
    user = daily(3)
    first, lead, later = session.scalars(
        select(UserNotification)
        .where(UserNotification.user_id == user.id)
        .order_by(UserNotification.id)
    ).all()
    lead.group_until = datetime.now(UTC) + timedelta(minutes=5)
    session.flush()
    assert plan(session, user) == 1
    assert planned(session, user)[0].data["notification_ids"] == [first.id]
    lead.group_until = datetime.now(UTC) - timedelta(hours=1)
    session.flush()
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    session.execute(update(NotificationPreference).values(digested_on=yesterday))
    session.execute(update(NotificationDelivery).values(subject="digest:yesterday"))
    session.expire_all()
    assert plan(session, user) == 1
    assert planned(session, user)[-1].data["notification_ids"] == [lead.id, later.id]


def test_a_long_day_is_counted_and_named_in_part(session, daily, monkeypatch):
    monkeypatch.setattr(digests, "NAMED_AT_MOST", 2)
    user = daily(5)
    plan(session, user)
    (row,) = planned(session, user)
    ids = session.scalars(
        select(UserNotification.id)
        .where(UserNotification.user_id == user.id)
        .order_by(UserNotification.id)
    ).all()
    assert (row.data["total"], row.data["notification_ids"]) == (5, list(ids[-2:]))


def test_the_hour_is_that_of_the_users_wall(session, daily):
    user = daily()
    now = datetime.now(UTC)
    ahead = (now + timedelta(hours=1)).hour
    if ahead == 0:
        return  # the next hour is another day
    session.execute(
        update(NotificationPreference)
        .where(NotificationPreference.user_id == user.id)
        .values(digest_hour=ahead)
    )
    session.expire_all()
    assert plan(session, user) == 0
    session.execute(
        update(NotificationPreference)
        .where(NotificationPreference.user_id == user.id)
        .values(timezone="Etc/GMT-1")  # an hour ahead of UTC
    )
    session.expire_all()
    assert plan(session, user) == 1


def test_two_who_look_at_once_do_not_plan_the_same(committed_database, make_user, make_address):
    user = make_user()
    make_address(user)
    with committed_database.transaction() as session:
        preference_writing.save(
            session, user.id, Preferences(is_daily=True, digest_hour=0), channels=["email"]
        )
        session.execute(update(NotificationPreference).values(digested_on=None))
    with committed_database.transaction() as one, committed_database.transaction() as two:
        assert len(digests.due(one, limit=10)) == 1
        assert digests.due(two, limit=10) == []
