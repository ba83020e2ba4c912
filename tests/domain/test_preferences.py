"""What users want is kept, and what they never said has a default."""

from datetime import UTC, datetime, time

import pytest

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import NotificationPreference
from genonaut.domain import notifications, preferences
from genonaut.domain.preferences import Preferences
from genonaut.domain.quiet import QuietHours

CHANNELS = ("in_app", "email", "webhook")


def test_who_never_said_hears_all_but_a_few_kinds_everywhere(session, make_user):
    wanted = preferences.read(session, make_user().id)
    assert wanted == Preferences()
    assert wanted.wants("job_failed", "email")
    assert wanted.wants("job_cancelled", "in_app")
    assert not wanted.wants("job_cancelled", "email")
    for channel in CHANNELS:
        assert not wanted.wants("recommendation", channel)
    assert set(wanted.public(CHANNELS)["kinds"]["job_completed"]) == set(CHANNELS)


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
    assert preferences.save(session, user.id, wanted, channels=CHANNELS) == wanted
    assert preferences.read(session, user.id) == wanted
    assert not wanted.wants("job_failed", "email")
    assert wanted.public(CHANNELS)["quiet_until"] == "07:00"
    assert preferences.save(session, user.id, Preferences(), channels=CHANNELS) == Preferences()


@pytest.mark.parametrize(
    ("choices", "field"),
    [
        ({"job_exploded": {"email": True}}, "kinds.job_exploded"),
        ({"job_failed": {"pigeon": True}}, "kinds.job_failed.pigeon"),
    ],
)
def test_what_there_is_not_is_named(session, make_user, choices, field):
    with pytest.raises(InvalidInputError) as refused:
        preferences.save(session, make_user().id, Preferences(choices), channels=CHANNELS)
    assert refused.value.field == field


def test_whoever_begins_with_digests_gets_the_first_for_what_comes(session, make_user):
    user = make_user()
    old = notifications.notify(session, user.id, "system", dedupe_key="k", title="Old")
    preferences.save(session, user.id, Preferences(is_daily=True), channels=CHANNELS)
    row = session.get_one(NotificationPreference, user.id)
    assert row.digested_to == old.id
    assert row.digested_on is not None
    newer = notifications.notify(session, user.id, "system", dedupe_key="l", title="New")
    daily = Preferences(is_daily=True, digest_hour=9)
    preferences.save(session, user.id, daily, channels=CHANNELS)
    assert session.get_one(NotificationPreference, user.id).digested_to == old.id < newer.id


def test_quiet_hours_are_the_users_own():
    wanted = Preferences(timezone="Asia/Tokyo", quiet=QuietHours(time(22), time(7)))
    evening = datetime(2026, 1, 5, 13, 30, tzinfo=UTC)  # 22:30 there
    assert wanted.quiet_until(evening) == datetime(2026, 1, 5, 22, tzinfo=UTC)
