"""Reckon with a user's wall clock: quiet hours and the hour of the daily digest.

Times of day are read off the wall, so a night with a change of the clock is longer or shorter but
begins and ends when the wall says so.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From when until when a user wants to hear nothing; past midnight if ``until`` is earlier."""

    begin: time
    end: time

    def holds(self, wall: time) -> bool:
        """Whether a wall that shows this time is within; the end is not."""
        if self.begin < self.end:
            return self.begin <= wall < self.end
        return wall >= self.begin or wall < self.end


_MINUTE = timedelta(minutes=1)


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """Give a zone; one that this machine has forgotten is UTC."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def quiet_until(hours: QuietHours | None, timezone: str, now: datetime) -> datetime | None:
    """Give when the quiet that holds ``now`` is over, in UTC; None when it is not quiet.

    That is the first minute whose wall is not within the hours: an end that the clock skips comes
    with the skip, one that is there twice ends the quiet twice.
    """
    where = zone(timezone)

    def _is_quiet(moment: datetime) -> bool:
        return hours is not None and hours.holds(moment.astimezone(where).time())

    if hours is None or not _is_quiet(now):
        return None
    today = now.astimezone(where).date()
    ends = (
        datetime.combine(today + timedelta(days=day), hours.end, where).replace(fold=fold)
        for day in (0, 1, 2)  # the end of a day may fall into what the clock skips
        for fold in (0, 1)
    )
    moments = (end.astimezone(UTC) for end in ends)
    over = min(moment for moment in moments if moment > now and not _is_quiet(moment))
    # Only where the clock skipped the end is it not quiet before it, by at most the skip.
    while over - _MINUTE > now and not _is_quiet(over - _MINUTE):
        over -= _MINUTE
    return over


def digest_day(timezone: str, hour: int, now: datetime) -> date:
    """Give the user's last day whose digest is due: today from ``hour`` on, else yesterday.

    So an hour that the clock skips is made up for at once, and one that is there twice counts once.
    """
    local = now.astimezone(zone(timezone))
    return local.date() if local.hour >= hour else local.date() - timedelta(days=1)
