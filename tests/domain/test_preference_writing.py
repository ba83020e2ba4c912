"""What users want is kept, and what waited for a digest that they end is told."""

from datetime import UTC, datetime, time

import pytest
from sqlalchemy import select

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import NotificationDelivery, NotificationPreference
from genonaut.domain import notifications, preference_writing, preferences
from genonaut.domain.preferences import Preferences
from genonaut.domain.quiet import QuietHours

CHANNELS = ("in_app", "email", "webhook")


def test_what_is_saved_is_read_again(session, make_user):
    user = make_user()
    wanted = Preferences(
        {"job_failed": {"email": False}},
        timezone="Asia/Tokyo",
        quiet=QuietHours(time(22), time(7)),
        is_daily=True,
        digest_hour=6,
        group_window_s=60,
    )
    assert preference_writing.save(session, user.id, wanted, channels=CHANNELS) == wanted
    assert preferences.read(session, user.id) == wanted
    assert not wanted.wants("job_failed", "email")
    assert wanted.public(CHANNELS)["quiet_until"] == "07:00"
    assert (
        preference_writing.save(session, user.id, Preferences(), channels=CHANNELS) == Preferences()
    )


@pytest.mark.parametrize(
    ("choices", "field"),
    [
        ({"job_exploded": {"email": True}}, "kinds.job_exploded"),
        ({"job_failed": {"pigeon": True}}, "kinds.job_failed.pigeon"),
    ],
)
def test_what_there_is_not_is_named(session, make_user, choices, field):
    with pytest.raises(InvalidInputError) as refused:
        preference_writing.save(session, make_user().id, Preferences(choices), channels=CHANNELS)
    assert refused.value.field == field


def test_whoever_begins_with_digests_gets_the_first_for_what_comes(session, make_user):
    user = make_user()
    old = notifications.notify(session, user.id, "system", dedupe_key="k", title="Old")
    preference_writing.save(session, user.id, Preferences(is_daily=True), channels=CHANNELS)
    row = session.get_one(NotificationPreference, user.id)
    assert row.digested_to == old.id
    assert row.digested_on is not None
    newer = notifications.notify(session, user.id, "system", dedupe_key="l", title="New")
    daily = Preferences(is_daily=True, digest_hour=9)
    preference_writing.save(session, user.id, daily, channels=CHANNELS)
    assert session.get_one(NotificationPreference, user.id).digested_to == old.id < newer.id


def save(session, user, **wanted):
    preference_writing.save(session, user.id, Preferences(**wanted), channels=CHANNELS)


def planned(session, user):
    query = select(NotificationDelivery).where(NotificationDelivery.user_id == user.id)
    return list(session.scalars(query.order_by(NotificationDelivery.id)))


def test_whoever_ends_digests_gets_a_last_one_of_what_has_waited(session, make_user, make_address):
    user = make_user()
    make_address(user)
    save(session, user, is_daily=True)
    for key in "ab":
        notifications.notify(session, user.id, "system", dedupe_key=key, title="News")
    save(session, user, is_daily=True, digest_hour=3)
    assert planned(session, user) == []
    save(session, user)
    (last,) = planned(session, user)
    assert (last.purpose, last.data["total"]) == ("digest", 2)
    assert last.available_at <= datetime.now(UTC)
    notifications.notify(session, user.id, "system", dedupe_key="c", title="At once")
    save(session, user, timezone="Asia/Tokyo")
    assert [row.purpose for row in planned(session, user)] == ["digest", "notification"]


def test_whoever_changes_to_and_fro_gets_each_notice_once(session, make_user, make_address):
    user = make_user()
    make_address(user)
    for key in "ab":
        save(session, user, is_daily=True)
        notifications.notify(session, user.id, "system", dedupe_key=key, title="News")
        save(session, user)
        save(session, user, is_daily=True)
        save(session, user)
    named = [row.data["notification_ids"] for row in planned(session, user)]
    assert [len(ids) for ids in named] == [1, 1]
    assert named[0] != named[1]


def test_the_last_digest_waits_for_the_group_that_is_in_it(session, make_user, make_address):
    user = make_user()
    make_address(user)
    save(session, user, is_daily=True, group_window_s=600)
    lead = notifications.notify(session, user.id, "job_completed", dedupe_key="a", title="Done")
    save(session, user, group_window_s=600)
    (last,) = planned(session, user)
    assert last.data["notification_ids"] == [lead.id]
    assert last.available_at > lead.group_until
    notifications.notify(session, user.id, "job_completed", dedupe_key="b", title="Done")
    assert len(planned(session, user)) == 1, "it is told by the group"


def test_who_ends_digests_when_there_is_nothing_new_gets_none(session, make_user, make_address):
    user = make_user()
    make_address(user)
    save(session, user, is_daily=True)
    save(session, user)
    assert planned(session, user) == []
