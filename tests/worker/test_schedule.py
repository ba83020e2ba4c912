"""A schedule is due when it says, also where the clocks change, and never twice."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from celery import Celery
from celery.schedules import crontab
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from genonaut.core.errors import InvalidInputError
from genonaut.worker.schedule import (
    MAX_EVERY_S,
    NICKNAMES,
    SEARCH_YEARS,
    Timing,
    due_times,
    next_due,
    preview,
    zones,
)

DOCS = Path(__file__).parents[2] / "docs" / "schedules.md"
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


def _local_day(cron: str, zone: str, day: date) -> list[str]:
    """Local times at which ``cron`` is due on ``day``, with the offset from UTC."""
    midnight = datetime.combine(day, datetime.min.time())
    begin, end = (
        at.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC) for at in (midnight, midnight + DAY)
    )
    timing = Timing.parse(cron=cron, timezone=zone)
    found = due_times(timing, next_due(timing, begin - MINUTE), end - MINUTE, limit=2000)
    return [f"{due.astimezone(ZoneInfo(zone)):%H:%M%z}" for due in found]


# What operators may type.


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "cron"),
        ({"cron": "0 2 * * *", "every_s": 60}, "every_s"),
        ({"every_s": 0}, "every_s"),
        ({"every_s": -5}, "every_s"),
        ({"every_s": MAX_EVERY_S + 1}, "every_s"),
        ({"every_s": 60, "anchor_at": datetime(2026, 1, 1)}, "anchor_at"),  # noqa: DTZ001
        ({"every_s": 60, "anchor_at": datetime.max.replace(tzinfo=UTC)}, "anchor_at"),
        ({"every_s": 60, "timezone": "Europe/Atlantis"}, "timezone"),
    ],
)
def test_wrong_values_are_refused_by_name(given: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        Timing.parse(**given)
    assert error.value.field == field


@pytest.mark.parametrize(
    "cron",
    [
        "",
        " ",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "* * * 13 *",
        "* * * * 7",
        "*/0 * * * *",
        "5/15 * * * *",
        "1,,2 * * * *",
        "1, 2 * * * *",
        "-5 * * * *",
        "1- * * * *",
        "*/ * * * *",
        "1-5! * * * *",
        "*/15/2 * * * *",
        "1-5-7 * * * *",
        "1_0 * * * *",
        "+5 * * * *",
        "٣ * * * *",
        "mon * * * *",
        "* * * mon *",
        "* * * * mar",
        "* * * * moonday",
        "0 0 30 2 *",
        "0 0 31 2 *",
        "0 0 31 4,6,9,11 mon",
        "0 0 L * *",
        "@reboot",
        "\0 * * * *",
        "9" * 5000 + " * * * *",
    ],
)
def test_a_cron_that_is_malformed_or_never_due_is_refused(cron: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        Timing.parse(cron=cron)
    assert error.value.field == "cron"


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "\0", "UTC\0", "../etc", "../UTC", "/etc/localtime", "Europe", "Europe/Berlin/"),
        *("Europe/../Europe/Berlin", "right/UTC", "posix/UTC", "posixrules", "localtime"),
        *("Factory", "zone.tab", "europe/berlin", "Europe/Atlantis", "\udcff", "x" * 5000),
    ],
)
def test_a_zone_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        Timing.parse(cron="0 2 * * *", timezone=name)
    assert error.value.field == "timezone"


@given(text=st.text(alphabet="0123456789*/-,@ monjaLW\0٣_+!", max_size=24))
def test_any_text_is_a_cron_that_is_due_or_an_error_with_a_field(text: str) -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    try:
        timing = Timing.parse(cron=text)
    except InvalidInputError as error:
        field = error.field
    else:
        assert next_due(timing, now) > now
        return
    assert field == "cron"


@given(moment=st.datetimes(timezones=st.sampled_from([None, UTC])))
def test_any_moment_has_a_next_due_time_or_is_an_error(moment: datetime) -> None:
    for timing in (Timing(cron="0 0 29 2 1", timezone="Europe/Berlin"), Timing(every_s=7)):
        if moment.tzinfo and 1900 <= moment.year < 9900:
            assert next_due(timing, moment) > moment
            continue
        with pytest.raises(InvalidInputError) as error:
            next_due(timing, moment)
        assert error.value.field == "after"


def test_a_timing_that_was_not_parsed_is_checked_when_it_is_used() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for timing, field in (
        (Timing(), "cron"),
        (Timing(cron="0 2"), "cron"),
        (Timing(cron="0 2 * * *", timezone="../etc"), "timezone"),
    ):
        with pytest.raises(InvalidInputError) as error:
            next_due(timing, now)
        assert error.value.field == field


def test_values_are_put_in_their_usual_form() -> None:
    berlin = datetime(2026, 1, 1, 13, tzinfo=ZoneInfo("Europe/Berlin"))
    assert Timing.parse(cron="  0\t2  * * * ").cron == "0 2 * * *"
    assert Timing.parse(cron="@Daily").cron == "0 0 * * *"
    anchor = Timing.parse(every_s=60, anchor_at=berlin).anchor_at
    assert anchor == berlin
    assert anchor.tzinfo is UTC


@pytest.mark.parametrize("name", sorted(NICKNAMES))
def test_nicknames_are_crons(name: str) -> None:
    assert Timing.parse(cron=name) == Timing.parse(cron=NICKNAMES[name])


def test_names_of_months_and_weekdays_may_be_short_or_long_and_wrap() -> None:
    now = datetime(2026, 7, 1, tzinfo=UTC)
    short = preview(Timing.parse(cron="0 0 * NOV-feb fri-mon"), now, 50)
    assert short == preview(Timing.parse(cron="0 0 * november-February 5,6,0,1"), now, 50)
    assert {firing.local.month for firing in short} <= {11, 12, 1, 2}
    assert {f"{firing.local:%a}" for firing in short} == {"Fri", "Sat", "Sun", "Mon"}


def test_every_zone_offered_can_be_used() -> None:
    now = datetime(2026, 3, 29, tzinfo=UTC)
    assert {"UTC", "Europe/Berlin", "America/New_York"} <= zones()
    for name in zones():
        assert next_due(Timing.parse(cron="30 2 * * *", timezone=name), now) <= now + 2 * DAY


# Days.


def test_day_of_month_and_day_of_week_must_both_match() -> None:
    timing = Timing.parse(cron="0 0 13 * fri")
    due = next_due(timing, datetime(2026, 4, 1, tzinfo=UTC))
    assert due == datetime(2026, 11, 13, tzinfo=UTC)


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("0 0 29 2 *", date(2096, 2, 29), date(2104, 2, 29)),
        ("0 0 29 2 1", date(2072, 2, 29), date(2112, 2, 29)),
        ("0 0 31 * *", date(2026, 1, 31), date(2026, 3, 31)),
        ("0 0 1 1 *", date(2026, 1, 1), date(2027, 1, 1)),
    ],
)
def test_the_next_matching_day_may_be_decades_away(cron: str, after: date, due: date) -> None:
    for zone in ("UTC", "Europe/Berlin", "Asia/Tokyo"):
        timing = Timing.parse(cron=cron, timezone=zone)
        at = datetime.combine(after, datetime.min.time(), ZoneInfo(zone))
        assert next_due(timing, at).astimezone(ZoneInfo(zone)).date() == due


def test_every_date_meets_every_weekday_within_the_search() -> None:
    worst = timedelta()
    for weekday in range(7):
        for month, day in ((1, 1), (2, 28), (2, 29), (3, 1), (12, 31)):
            timing = Timing.parse(cron=f"0 0 {day} {month} {weekday}")
            at = datetime(1999, 12, 31, tzinfo=UTC)
            while at.year < 2420:  # the calendar repeats itself after 400 years
                at, before = next_due(timing, at), at
                worst = max(worst, at - before)
    assert 39 * 365 * DAY < worst < (SEARCH_YEARS - 1) * 366 * DAY


# Changes of the clock.

CHANGES = {
    "Europe/Berlin": (date(2026, 3, 29), date(2026, 10, 25)),
    "America/New_York": (date(2026, 3, 8), date(2026, 11, 1)),
}


def _documented() -> Iterator[tuple[str, int, int, int]]:
    for line in DOCS.read_text(encoding="utf-8").splitlines():
        row = re.match(r"\| `([^`]+)` \| (\d+) \| (\d+) \| (\d+) \|", line)
        if row:
            yield row[1], int(row[2]), int(row[3]), int(row[4])


def test_the_documentation_has_the_table_that_is_checked() -> None:
    assert {"30 2 * * *", "0 * * * *", "*/15 * * * *"} <= {row[0] for row in _documented()}


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize(("cron", "usual", "spring", "autumn"), list(_documented()))
def test_the_counts_are_those_of_the_documentation(
    zone: str, cron: str, usual: int, spring: int, autumn: int
) -> None:
    forward, back = CHANGES[zone]
    counts = [len(_local_day(cron, zone, day)) for day in (forward - DAY, forward, back)]
    assert counts == [usual, spring, autumn]


@pytest.mark.parametrize("zone", CHANGES)
@pytest.mark.parametrize(("cron", "minutes"), [("15 * * * *", 60), ("*/15 * * * *", 15)])
def test_every_hour_means_even_steps_through_both_changes(
    zone: str, cron: str, minutes: int
) -> None:
    timing = Timing.parse(cron=cron, timezone=zone)
    for day in CHANGES[zone]:
        begin = datetime.combine(day - DAY, datetime.min.time(), UTC)
        firings = preview(timing, begin, 3 * 24 * 60 // minutes)
        assert {b.due_at - a.due_at for a, b in pairwise(firings)} == {minutes * MINUTE}


def test_fixed_hours_in_a_gap_are_moved_and_in_a_fold_come_once() -> None:
    spring, autumn = CHANGES["Europe/Berlin"]
    berlin = "Europe/Berlin"
    assert _local_day("30 2 * * *", berlin, spring) == ["03:30+0200"]
    assert _local_day("30 2 * * *", berlin, autumn) == ["02:30+0200"]
    assert _local_day("0 1-5 * * *", berlin, spring) == [
        *("01:00+0100", "03:00+0200", "04:00+0200", "05:00+0200")
    ]
    assert _local_day("0 1-5 * * *", berlin, autumn) == [
        *("01:00+0200", "02:00+0200", "03:00+0100", "04:00+0100", "05:00+0100")
    ]
    assert _local_day("0 */2 * * *", berlin, spring)[:3] == [
        *("00:00+0100", "03:00+0200", "04:00+0200")
    ]
    assert _local_day("0 */2 * * *", berlin, autumn)[:3] == [
        *("00:00+0200", "02:00+0200", "04:00+0100")
    ]
    # Moved times may come after later ones, and fall together with others.
    assert _local_day("45 2,3 * * *", berlin, spring) == ["03:45+0200"]
    assert _local_day("50 2,4 * * *", berlin, spring) == ["03:50+0200", "04:50+0200"]
    for hours in ("2", "2-3"):
        assert _local_day(f"*/20 {hours} * * *", berlin, spring) == [
            *("03:00+0200", "03:20+0200", "03:40+0200")
        ]


def test_a_change_of_half_an_hour() -> None:
    spring, autumn = date(2026, 10, 4), date(2026, 4, 5)  # the southern hemisphere
    howe = "Australia/Lord_Howe"
    assert _local_day("15 2 * * *", howe, spring) == ["02:45+1100"]
    assert _local_day("45 1 * * *", howe, autumn) == ["01:45+1100"]
    # Every hour: 02:15 does not exist in spring, 01:45 is there twice in autumn.
    assert len(_local_day("15 * * * *", howe, spring)) == 23
    assert len(_local_day("45 * * * *", howe, spring)) == 24
    assert len(_local_day("15 * * * *", howe, autumn)) == 24
    assert len(_local_day("45 * * * *", howe, autumn)) == 25
    assert len(_local_day("*/15 * * * *", howe, spring)) == 4 * 23 + 2
    assert len(_local_day("*/15 * * * *", howe, autumn)) == 4 * 24 + 2


def test_a_day_without_midnight_and_one_with_two() -> None:
    for zone, forward, back in (
        ("America/Sao_Paulo", date(2018, 11, 4), date(2018, 2, 17)),
        ("Asia/Beirut", date(2024, 3, 31), date(2024, 10, 26)),
    ):
        assert [due[:5] for due in _local_day("0 0 * * *", zone, forward)] == ["01:00"]
        assert [due[:5] for due in _local_day("30 23 * * *", zone, back)] == ["23:30"]
        assert len(_local_day("0 * * * *", zone, forward)) == 23
        assert len(_local_day("0 * * * *", zone, back)) == 25


def test_a_wall_moved_past_midnight_keeps_its_day_in_the_cron() -> None:
    # Nuuk goes from 23:00 on Saturday to 00:00 on Sunday.
    timing = Timing.parse(cron="30 23 * * sat", timezone="America/Nuuk")
    found = preview(timing, datetime(2024, 3, 30, 12, tzinfo=UTC), 2)
    assert [f"{firing.local:%a %H:%M}" for firing in found] == ["Sun 00:30", "Sat 23:30"]
    assert [firing.mark for firing in found] == ["gap", None]


def test_a_day_that_does_not_exist() -> None:
    # Samoa went from the 29th to the 31st of December 2011.
    timing = Timing.parse(cron="0 8 * * *", timezone="Pacific/Apia")
    found = preview(timing, datetime(2011, 12, 29, tzinfo=UTC), 4)
    assert [firing.local.day for firing in found] == [29, 31, 1, 2]
    hourly = Timing.parse(cron="0 * * * *", timezone="Pacific/Apia")
    every = preview(hourly, datetime(2011, 12, 29, tzinfo=UTC), 72)
    assert {b.due_at - a.due_at for a, b in pairwise(every)} == {60 * MINUTE}


def test_the_preview_marks_what_a_change_moves_or_doubles() -> None:
    spring, autumn = (
        datetime.combine(day, datetime.min.time(), UTC) for day in CHANGES["Europe/Berlin"]
    )
    nightly = Timing.parse(cron="30 2 * * *", timezone="Europe/Berlin")
    assert [firing.mark for firing in preview(nightly, spring - DAY, 3)] == [None, "gap", None]
    assert [firing.mark for firing in preview(nightly, autumn - DAY, 3)] == [None, "fold", None]
    hourly = Timing.parse(cron="0 * * * *", timezone="Europe/Berlin")
    marks = [(f"{f.local:%H%z}", f.mark) for f in preview(hourly, autumn - MINUTE, 3)]
    assert marks == [("02+0200", "fold"), ("02+0100", "fold"), ("03+0100", None)]
    both = preview(Timing.parse(cron="30 2,3 * * *", timezone="Europe/Berlin"), spring, 1)
    assert both[0].mark == "gap"  # 02:30 fell together with 03:30
    every = preview(Timing.parse(every_s=3600, timezone="Europe/Berlin"), autumn - MINUTE, 3)
    assert [f"{f.local:%H%z}" for f in every] == ["02+0200", "02+0100", "03+0100"]
    assert {firing.mark for firing in every} == {None}


def test_a_clock_put_back_asks_again_and_gets_the_same_answer() -> None:
    timing = Timing.parse(cron="0 * * * *", timezone="Europe/Berlin")
    now = datetime(2026, 7, 1, 12, 20, tzinfo=UTC)
    hour = timedelta(hours=1)
    assert next_due(timing, now) == now.replace(hour=13, minute=0)
    assert next_due(timing, now - hour) == now.replace(hour=12, minute=0)
    assert next_due(timing, now + hour) == now.replace(hour=14, minute=0)


# Intervals.


def test_an_interval_is_due_at_its_anchor_and_each_multiple_after() -> None:
    anchor = datetime(2026, 1, 1, 0, 0, 10, tzinfo=UTC)
    timing = Timing.parse(every_s=90, anchor_at=anchor, timezone="Europe/Berlin")
    assert next_due(timing, anchor - 400 * DAY) == anchor
    assert next_due(timing, anchor - timedelta(microseconds=1)) == anchor
    assert next_due(timing, anchor) == anchor + timedelta(seconds=90)
    assert next_due(timing, anchor + timedelta(seconds=91)) == anchor + timedelta(seconds=180)


def test_an_interval_without_an_anchor_counts_from_the_epoch() -> None:
    now = datetime(2026, 7, 1, 12, 7, 13, tzinfo=UTC)
    assert next_due(Timing.parse(every_s=900), now) == now.replace(minute=15, second=0)


@given(
    every_s=st.integers(1, MAX_EVERY_S),
    anchor=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
    after=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
)
def test_an_interval_is_never_more_than_one_step_ahead(
    every_s: int, anchor: datetime, after: datetime
) -> None:
    anchor, after = anchor.replace(tzinfo=UTC), after.replace(tzinfo=UTC)
    due = next_due(Timing.parse(every_s=every_s, anchor_at=anchor), after)
    step = timedelta(seconds=every_s)
    assert (due - anchor) % step == timedelta()
    assert due == anchor if after < anchor else after < due <= after + step


# Lists.


def test_due_times_include_both_ends_and_stop_at_the_limit() -> None:
    timing = Timing.parse(cron="0 * * * *")
    first = datetime(2026, 7, 1, 12, tzinfo=UTC)
    hours = [first + timedelta(hours=n) for n in range(4)]
    assert due_times(timing, first, hours[3], limit=100) == hours
    assert due_times(timing, first, hours[3] - MINUTE, limit=100) == hours[:3]
    assert due_times(timing, first, hours[3], limit=2) == hours[:2]
    assert due_times(timing, first, first, limit=100) == [first]
    assert due_times(timing, first, first - MINUTE, limit=100) == []
    assert due_times(timing, first, hours[3], limit=0) == []


def test_times_may_be_given_in_any_zone_and_come_back_in_utc() -> None:
    timing = Timing.parse(cron="0 9 * * *", timezone="America/New_York")
    tokyo = datetime(2026, 7, 1, 22, tzinfo=timezone(timedelta(hours=9)))
    due = next_due(timing, tokyo)
    assert due == datetime(2026, 7, 2, 13, tzinfo=UTC)
    assert due.tzinfo is UTC
    assert {at.tzinfo for at in due_times(timing, tokyo, due, limit=9)} == {UTC}


# What holds for every cron.


def _field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    ranges = st.builds("{}-{}".format, number, number)
    steps = st.builds("{}/{}".format, st.just("*") | ranges, st.integers(1, high))
    parts = st.lists(number | ranges | steps, min_size=1, max_size=3).map(",".join)
    return st.just("*") | number | steps | parts


MINUTES, HOURS = _field(0, 59), st.just("*") | _field(0, 23)
DAYS, MONTHS, WEEKDAYS = _field(1, 31), _field(1, 12), _field(0, 6)
CRONS = st.tuples(
    MINUTES, HOURS, st.just("*") | DAYS, st.just("*") | MONTHS, st.just("*") | WEEKDAYS
).map(" ".join)

TURNS = {
    "Europe/Berlin": ("2026-03-29T01", "2026-10-25T01"),
    "America/New_York": ("2026-03-08T07", "2026-11-01T06"),
    "Australia/Lord_Howe": ("2026-10-03T15", "2026-04-04T15"),
    "America/Sao_Paulo": ("2018-11-04T03", "2018-02-18T02"),
    "Asia/Beirut": ("2024-03-30T22", "2024-10-26T21"),
    "America/Nuuk": ("2024-03-31T01", "2024-10-27T01"),
    "Africa/Casablanca": ("2026-03-22T02", "2026-02-15T02"),
    "Antarctica/Troll": ("2026-03-29T01", "2026-10-25T01"),
    "Pacific/Apia": ("2011-12-30T10", "2012-03-31T14"),
    "Asia/Kathmandu": ("2026-03-29T01", "2026-10-25T01"),  # no change, an odd offset
}
PLACES = st.sampled_from([(zone, at) for zone, turns in TURNS.items() for at in turns])
SHIFTS = st.integers(-36 * 60, 12 * 60)


def _matches(sets: crontab, wall: datetime) -> bool:
    return (
        wall.minute in sets.minute
        and wall.hour in sets.hour
        and wall.day in sets.day_of_month
        and wall.month in sets.month_of_year
        and wall.isoweekday() % 7 in sets.day_of_week
    )


def _minute_by_minute(cron: str, zone: ZoneInfo, after: datetime, until: datetime) -> set[datetime]:
    """The definition, tried out on each minute: of UTC for every hour, of the wall otherwise."""
    sets = crontab.from_string(cron)
    instants = int((until - after) / MINUTE)
    if len(sets.hour) == 24:
        every = (after + n * MINUTE for n in range(1, instants + 1))
        return {at for at in every if _matches(sets, at.astimezone(zone))}
    naive = after.replace(tzinfo=None) - 2 * DAY
    walls = (naive + n * MINUTE for n in range(instants + 4 * 24 * 60))
    found = (wall.replace(tzinfo=zone).astimezone(UTC) for wall in walls if _matches(sets, wall))
    return {at for at in found if after < at <= until}


@settings(max_examples=150)
@given(cron=CRONS, place=PLACES, shift=SHIFTS)
@example(cron="* * * * *", place=("Europe/Berlin", "2026-10-25T01"), shift=-600)
@example(cron="* 0-22 * * *", place=("Europe/Berlin", "2026-10-25T01"), shift=-600)
@example(cron="* 1-23 * * *", place=("Europe/Berlin", "2026-03-29T01"), shift=-600)
@example(cron="*/7 2 * * *", place=("Australia/Lord_Howe", "2026-10-03T15"), shift=-600)
@example(cron="*/7 1-23 * * *", place=("Pacific/Apia", "2011-12-30T10"), shift=-600)
@example(cron="*/7 * * * *", place=("Antarctica/Troll", "2026-10-25T01"), shift=-600)
def test_nothing_is_missed_and_nothing_made_up(
    cron: str, place: tuple[str, str], shift: int
) -> None:
    name, turn = place
    try:
        timing = Timing.parse(cron=cron, timezone=name)
    except InvalidInputError:
        assume(False)
    after = datetime.fromisoformat(turn).replace(tzinfo=UTC) + shift * MINUTE
    until = after + 2 * DAY
    expected = sorted(_minute_by_minute(cron, ZoneInfo(name), after, until))
    first = next_due(timing, after)
    assert due_times(timing, first, until, limit=9999) == expected
    if expected:  # from anywhere between two, the next is the later
        halfway = [a + (b - a) / 2 for a, b in pairwise([after, *expected])]
        assert [next_due(timing, at) for at in halfway[::11]] == expected[::11]


@given(cron=CRONS, place=PLACES, shift=SHIFTS, seconds=st.floats(0, 59.9))
def test_due_times_increase_match_the_fields_and_are_those_of_the_preview(
    cron: str, place: tuple[str, str], shift: int, seconds: float
) -> None:
    name, turn = place
    try:
        timing = Timing.parse(cron=cron, timezone=name)
    except InvalidInputError:
        assume(False)
    sets, zone = crontab.from_string(cron), ZoneInfo(name)
    at = datetime.fromisoformat(turn).replace(tzinfo=UTC) + shift * MINUTE
    at += timedelta(seconds=seconds)
    for firing in preview(timing, at, 30):
        due = next_due(timing, at)
        assert due > at
        assert due == firing.due_at == firing.local.astimezone(UTC)
        assert due.tzinfo is UTC
        assert firing.local.tzinfo == zone
        assert firing.mark == "gap" or _matches(sets, firing.local)
        assert (due.second, due.microsecond) == (0, 0)
        at = due


@pytest.fixture(scope="module")
def utc_app() -> Celery:
    return Celery("schedules", set_as_current=False)


@given(
    cron=CRONS,
    after=st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
)
@example(cron="0 0 29 2 1", after=datetime(2072, 2, 29))  # noqa: DTZ001
def test_in_utc_celery_says_the_same(utc_app: Celery, cron: str, after: datetime) -> None:
    now = after = after.replace(tzinfo=UTC)
    try:
        celerys = crontab.from_string(cron)
    except ValueError:
        with pytest.raises(InvalidInputError):
            Timing.parse(cron=cron)
        return
    celerys.app, celerys.nowfun = utc_app, lambda: now
    due = next_due(Timing.parse(cron=cron), after)
    assert due == after + celerys.remaining_estimate(after)
    now = due - MINUTE / 60
    assert not celerys.is_due(after)[0]
    now = due
    assert celerys.is_due(after)[0]


@pytest.mark.parametrize(
    ("cron", "after", "limit_s"),
    [
        ("*/15 * * * *", datetime(2026, 7, 1, 12, 7, tzinfo=UTC), 0.001),
        ("30 2 * * *", datetime(2026, 7, 1, 12, 7, tzinfo=UTC), 0.001),
        ("0 0 29 2 *", datetime(2096, 3, 1, tzinfo=UTC), 0.005),
        ("0 0 29 2 1", datetime(2072, 3, 1, tzinfo=UTC), 0.005),
    ],
)
def test_an_answer_takes_no_time(cron: str, after: datetime, limit_s: float) -> None:
    timing = Timing.parse(cron=cron, timezone="Europe/Berlin")
    took = []
    for _ in range(50):
        begun = time.perf_counter()
        next_due(timing, after)
        took.append(time.perf_counter() - begun)
    assert min(took) < limit_s
