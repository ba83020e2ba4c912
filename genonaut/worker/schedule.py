"""Say when a schedule is due, by arithmetic on values alone.

A cron names wall-clock times ("walls": naive, whole minutes) of its zone. Putting a clock forward
leaves a *gap*, walls that do not exist that day; putting it back a *fold*, walls that exist twice.

- Every hour (``*`` or all 24): due whenever a clock on the wall reads a matching time, so neither
  change skips or doubles an hour.
- Any other hours: due once per matching wall. One in a gap is moved by the length of the gap
  (02:30 -> 03:30), one in a fold is due the first time only.

An interval knows no walls: it is due at its anchor and at every multiple after it.
"""

import re
from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal, Self
from zoneinfo import ZoneInfo, available_timezones

from celery.schedules import ParseException, crontab

from genonaut.core.errors import InvalidInputError

MAX_EVERY_S = 366 * 24 * 3600
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""The anchor of an interval that names none."""

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

# 29 February falls on a given weekday every 28 years, or 40 around 2100; other dates far oftener.
SEARCH_YEARS = 41

Mark = Literal["gap", "fold"]


@dataclass(frozen=True, slots=True)
class Timing:
    """When a schedule is due: a cron, or an interval counted from an anchor.

    ``cron`` has Celery's five fields; ``every_s`` is in whole seconds from ``anchor_at`` (aware,
    UTC; ``EPOCH`` if None). ``timezone`` is an IANA name and says whose walls ``cron`` means;
    intervals ignore it. Take input through ``parse``, which checks it.
    """

    cron: str | None = None
    every_s: int | None = None
    anchor_at: datetime | None = None
    timezone: str = "UTC"

    @classmethod
    def parse(
        cls,
        *,
        cron: str | None = None,
        every_s: int | None = None,
        anchor_at: datetime | None = None,
        timezone: str = "UTC",
    ) -> Self:
        """Check the values and put them in their usual form.

        Spaces in ``cron`` are evened out, ``@daily`` and its like spelt out, ``anchor_at`` is
        turned to UTC.

        Raises: InvalidInputError: both or neither of ``cron`` and ``every_s``, a cron that is
        malformed or never due, an interval below 1 s or above 366 days, an anchor without a zone,
        a zone that does not exist; ``field`` names the culprit.
        """
        if cron is not None and every_s is not None:
            raise InvalidInputError("give a cron or an interval, not both", field="every_s")
        if cron is None and every_s is None:
            raise InvalidInputError("give a cron or an interval", field="cron")
        if every_s is not None and not 1 <= every_s <= MAX_EVERY_S:
            raise InvalidInputError(f"an interval is 1 to {MAX_EVERY_S} seconds", field="every_s")
        if anchor_at is not None:
            anchor_at = _utc(anchor_at, "anchor_at")
        _zone(timezone)
        if cron is not None:
            cron = " ".join(cron.split())
            cron = NICKNAMES.get(cron.lower(), cron)
            _compile(cron)
        return cls(cron=cron, every_s=every_s, anchor_at=anchor_at, timezone=timezone)


@dataclass(frozen=True, slots=True)
class Firing:
    """A due time, as an operator sees it.

    ``local`` is the same instant in the schedule's zone, to be shown, not compared: Python holds
    times of two zones unequal where one is in a fold or gap. ``mark`` is ``gap`` if a wall that
    does not exist was moved here, ``fold`` if this wall exists twice that day.
    """

    due_at: datetime
    local: datetime
    mark: Mark | None


def next_due(timing: Timing, after: datetime) -> datetime:
    """Find the first due time later than ``after``, in UTC.

    Raises: InvalidInputError: ``after`` has no zone, or its year is not within 1900 to 9899.
    """
    return _step(timing, _utc(after, "after"))[0]


def due_times(timing: Timing, first: datetime, until: datetime, *, limit: int) -> list[datetime]:
    """List ``first``, itself due, and what is due after it up to and including ``until``.

    Oldest first, at most ``limit``; in UTC.
    """
    due, until = _utc(first, "first"), _utc(until, "until")
    found: list[datetime] = []
    while due <= until and len(found) < limit:
        found.append(due)
        due = next_due(timing, due)
    return found


def preview(timing: Timing, after: datetime, n: int) -> list[Firing]:
    """List the ``n`` due times after ``after``, found by the very step that fires."""
    zone = _zone(timing.timezone)
    at = _utc(after, "after")
    firings: list[Firing] = []
    for _ in range(n):
        at, mark = _step(timing, at)
        firings.append(Firing(due_at=at, local=at.astimezone(zone), mark=mark))
    return firings


@lru_cache(maxsize=1)
def zones() -> frozenset[str]:
    """Give the names of all zones this machine knows.

    A name that is not among them is never made a path: ``../etc`` is just not there.
    """
    return frozenset(available_timezones() - {"localtime", "Factory"})


@dataclass(frozen=True, slots=True)
class _Fields:
    """A parsed cron: ``times`` in minutes of the day and ``days`` of the month in order."""

    times: tuple[int, ...]
    every_hour: bool
    days: tuple[int, ...]
    months: frozenset[int]
    weekdays: frozenset[int]  # Sunday is 0


def _names(text: str) -> str:
    return "".join(f"|{name[:3]}|{name}" for name in text.split())


_MONTHS = _names(
    "january february march april may june july august september october november december"
)
_WEEKDAYS = _names("sunday monday tuesday wednesday thursday friday saturday")
_FIELDS = {"minute": "", "hour": "", "day of month": "", "month": _MONTHS, "day of week": _WEEKDAYS}


def _pattern(names: str) -> re.Pattern[str]:
    value = f"(?:[0-9]{{1,2}}{names})"
    return re.compile(rf"(?:\*|{value}-{value})(?:/[1-9][0-9]?)?|{value}", re.ASCII | re.IGNORECASE)


# Celery's parser ignores what follows a part it knows (``1-5!``) and takes any name in any field
# (minute ``mon`` is 1), so each part must look right before Celery says what it means.
_PATTERNS = {field: _pattern(names) for field, names in _FIELDS.items()}


@lru_cache(maxsize=4096)
def _compile(cron: str) -> _Fields:
    texts = cron.split()
    if len(texts) != len(_FIELDS):
        raise InvalidInputError(
            f"a cron has five fields ({', '.join(_FIELDS)}), not {len(texts)}", field="cron"
        )
    for (field, pattern), text in zip(_PATTERNS.items(), texts, strict=True):
        for part in text.split(","):
            if not pattern.fullmatch(part):
                raise InvalidInputError(f"{field}: cannot read {part!r}", field="cron")
    minute, hour, day, month, weekday = texts
    try:
        parsed = crontab(
            minute=minute,
            hour=hour,
            day_of_month=day,
            month_of_year=month,
            day_of_week=weekday,
        )
    except (ValueError, ParseException) as error:
        raise InvalidInputError(f"cron {cron!r}: {error}", field="cron") from error
    return _Fields(
        times=tuple(sorted(h * 60 + m for h in parsed.hour for m in parsed.minute)),
        every_hour=len(parsed.hour) == 24,
        days=tuple(sorted(parsed.day_of_month)),
        months=frozenset(parsed.month_of_year),
        weekdays=frozenset(parsed.day_of_week),
    )


def _step(timing: Timing, after: datetime) -> tuple[datetime, Mark | None]:
    if timing.cron is not None:
        return _next_wall(_compile(timing.cron), _zone(timing.timezone), after)
    if timing.every_s is None:
        raise InvalidInputError("give a cron or an interval", field="cron")
    anchor = timing.anchor_at or EPOCH
    if after < anchor:
        return anchor, None
    every = timedelta(seconds=timing.every_s)
    return anchor + ((after - anchor) // every + 1) * every, None


def _next_wall(fields: _Fields, zone: ZoneInfo, after: datetime) -> tuple[datetime, Mark | None]:
    """Turn walls into instants, in order, until none that follows can be the first."""
    local = after.astimezone(zone).replace(tzinfo=None)
    best: tuple[datetime, Mark | None] | None = None
    for wall in _walls(fields, local - _still_to_come(fields, zone, local)):
        first, second = _offsets(zone, wall)
        due = (wall - first).replace(tzinfo=UTC)
        if first < second:
            if due > after and not fields.every_hour:
                best = best or (due, "gap")
            continue
        mark: Mark | None = "fold" if first > second else None
        if due > after:
            return best if best and best[0] <= due else (due, mark)
        again = (wall - second).replace(tzinfo=UTC)
        if again > after and fields.every_hour:
            best = best or (again, mark)
    if best is None:
        raise InvalidInputError("this cron is never due", field="cron")
    return best


def _still_to_come(fields: _Fields, zone: ZoneInfo, local: datetime) -> timedelta:
    """Say how far before ``local``, the time on the wall, walls may lie that are due later."""
    first, second = _offsets(zone, local)
    if fields.every_hour:  # in the first pass of a fold: the second
        return first - second if local.fold == 0 else timedelta()
    # Just after a gap: what was moved out of it. No clock was ever moved by more than a day.
    moved = first - _offsets(zone, local - timedelta(days=1))[0]
    if moved > timedelta():
        before, behind = _offsets(zone, local - moved)
        if before < behind:
            return moved
    return timedelta()


def _offsets(zone: ZoneInfo, wall: datetime) -> tuple[timedelta, timedelta]:
    """Give the UTC offsets of both passes of ``wall``, whatever its fold.

    Alike on most days; the first is the larger in a fold. In a gap it is the smaller, the offset
    before the change, and so leads to the wall moved forward (PEP 495).
    """
    first = zone.utcoffset(wall.replace(fold=0))
    second = zone.utcoffset(wall.replace(fold=1))
    return first or timedelta(), second or timedelta()


def _walls(fields: _Fields, after: datetime) -> Iterator[datetime]:
    """Give the walls that match and are later than the minute of ``after``, in order."""
    passed = bisect_right(fields.times, after.hour * 60 + after.minute)
    for day in _days(fields, after.date()):
        midnight = datetime.combine(day, time())
        for index in range(passed if day == after.date() else 0, len(fields.times)):
            yield midnight + timedelta(minutes=fields.times[index])


def _days(fields: _Fields, first: date) -> Iterator[date]:
    """Give the matching days from ``first`` on, in order, month by month, to the search's end."""
    begin = first.year * 12 + first.month - 1
    for index in range(begin, begin + SEARCH_YEARS * 12):
        year, month = index // 12, index % 12 + 1
        if month not in fields.months:
            continue
        weekday, length = monthrange(year, month)  # of the 1st, Monday is 0
        for number in fields.days:
            if number > length:
                break
            if (weekday + number) % 7 in fields.weekdays and (index > begin or number >= first.day):
                yield date(year, month, number)


def _zone(name: str) -> ZoneInfo:
    if name not in zones():
        raise InvalidInputError(f"there is no time zone {name!r}", field="timezone")
    return ZoneInfo(name)


def _utc(moment: datetime, field: str) -> datetime:
    if moment.tzinfo is None:
        raise InvalidInputError(f"{field} has no time zone", field=field)
    if not 1900 <= moment.year < 9900:
        raise InvalidInputError(f"{field} is out of range", field=field)
    return moment.astimezone(UTC)
