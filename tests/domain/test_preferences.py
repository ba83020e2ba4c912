"""What users never said has a default."""

from datetime import UTC, datetime, time

from genonaut.domain import preferences
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


def test_quiet_hours_are_the_users_own():
    wanted = Preferences(timezone="Asia/Tokyo", quiet=QuietHours(time(22), time(7)))
    evening = datetime(2026, 1, 5, 13, 30, tzinfo=UTC)  # 22:30 there
    assert wanted.quiet_until(evening) == datetime(2026, 1, 5, 22, tzinfo=UTC)
