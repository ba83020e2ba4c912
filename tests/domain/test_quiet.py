"""Quiet hours and digests go by the wall, also when the clock is changed."""

from datetime import UTC, date, datetime, time, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from genonaut.domain.quiet import QuietHours, digest_day, quiet_until, zone

NIGHT = QuietHours(time(22), time(7))
BERLIN = "Europe/Berlin"


def berlin(*wall: int, fold: int = 0) -> datetime:
    return datetime(*wall, tzinfo=zone(BERLIN), fold=fold)


def over(hours: QuietHours, now: datetime, timezone: str = BERLIN) -> datetime | None:
    return quiet_until(hours, timezone, now.astimezone(UTC))


def test_the_night_ends_in_the_morning_before_and_after_midnight():
    morning = berlin(2026, 1, 6, 7)
    assert over(NIGHT, berlin(2026, 1, 5, 22)) == morning
    assert over(NIGHT, berlin(2026, 1, 5, 23, 59)) == morning
    assert over(NIGHT, berlin(2026, 1, 6, 6, 59)) == morning
    assert over(NIGHT, berlin(2026, 1, 6, 7)) is None
    assert over(NIGHT, berlin(2026, 1, 5, 21, 59)) is None
    assert quiet_until(None, BERLIN, datetime.now(UTC)) is None


def test_a_quiet_noon_ends_the_same_day():
    assert over(QuietHours(time(12), time(14)), berlin(2026, 1, 5, 13)) == berlin(2026, 1, 5, 14)


def test_the_night_of_a_change_is_an_hour_shorter_or_longer():
    short = over(NIGHT, berlin(2026, 3, 28, 22)) - berlin(2026, 3, 28, 22).astimezone(UTC)
    long = over(NIGHT, berlin(2026, 10, 24, 22)) - berlin(2026, 10, 24, 22).astimezone(UTC)
    assert (short, long) == (timedelta(hours=8), timedelta(hours=10))


def test_an_end_that_the_clock_skips_comes_with_the_skip():
    assert over(QuietHours(time(22), time(2, 30)), berlin(2026, 3, 29, 1)) == berlin(2026, 3, 29, 3)


def test_where_the_clock_skips_from_the_end_to_the_beginning_it_is_quiet_for_a_day_more():
    for end in (time(2), time(2, 30)):
        hours = QuietHours(time(3), end)
        day_after = berlin(2026, 3, 30, end.hour, end.minute)
        assert over(hours, berlin(2026, 3, 28, 13)) == day_after


def test_an_end_that_is_there_twice_ends_the_quiet_twice():
    hours = QuietHours(time(22), time(2, 30))
    assert over(hours, berlin(2026, 10, 25, 1)) == berlin(2026, 10, 25, 2, 30).astimezone(UTC)
    second = berlin(2026, 10, 25, 2, 10, fold=1)
    assert over(hours, second) == berlin(2026, 10, 25, 2, 30, fold=1).astimezone(UTC)


WALLS = st.times().map(lambda t: t.replace(second=0, microsecond=0))
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2028, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC)
)
ZONES = st.sampled_from(
    ["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"]
)


@given(WALLS, WALLS, MOMENTS, ZONES)
def test_quiet_lasts_until_the_first_moment_that_is_not_quiet(begin, end, now, timezone):
    assume(begin != end)
    hours = QuietHours(begin, end)
    until = quiet_until(hours, timezone, now)
    if until is None:
        return
    assert now < until <= now + timedelta(hours=26)
    assert quiet_until(hours, timezone, until) is None
    between = now + timedelta(minutes=1)
    while between < until:
        assert quiet_until(hours, timezone, between) is not None
        between += timedelta(minutes=17)


def test_a_zone_that_is_forgotten_is_utc():
    assert zone("Mars/Olympus").key == "UTC"


def test_the_digest_of_today_is_due_from_its_hour_on():
    assert digest_day(BERLIN, 8, berlin(2026, 1, 5, 7, 59)) == date(2026, 1, 4)
    assert digest_day(BERLIN, 8, berlin(2026, 1, 5, 8)) == date(2026, 1, 5)
    assert digest_day("America/New_York", 8, berlin(2026, 1, 5, 8)) == date(2026, 1, 4)


def test_an_hour_that_the_clock_skips_is_made_up_for_and_one_there_twice_counts_once():
    assert digest_day(BERLIN, 2, berlin(2026, 3, 29, 1, 59)) == date(2026, 3, 28)
    assert digest_day(BERLIN, 2, berlin(2026, 3, 29, 3)) == date(2026, 3, 29)
    for fold in (0, 1):
        assert digest_day(BERLIN, 2, berlin(2026, 10, 25, 2, 5, fold=fold)) == date(2026, 10, 25)
