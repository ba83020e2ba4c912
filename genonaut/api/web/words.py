"""Say times, sizes and numbers the way people read them."""

from datetime import UTC, datetime, timedelta
from typing import Any

from markupsafe import Markup

NOTHING = "\u2013"
"""Stands where there is no value."""

_STEPS = ((86_400 * 365, "year"), (86_400 * 30, "month"), (86_400, "day"), (3600, "h"), (60, "min"))
_UNITS = ("kB", "MB", "GB", "TB")


def moment(value: datetime | str) -> datetime:
    """Read a time as our answers hold it."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value


def exact(value: datetime | str) -> str:
    """Give a time in full, in UTC: ``2026-03-01 14:05:09 UTC``."""
    return moment(value).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def wall(value: datetime | str) -> str:
    """Give a time as a clock of its own zone shows it: ``Sat 2026-03-28 14:05:09 +01:00``."""
    at = moment(value)
    text = at.isoformat(sep=" ", timespec="seconds")
    return f"{at:%a} {text[:-6]} {text[-6:]}"


def relative(value: datetime | str, now: datetime) -> str:
    """Give a time as its distance from ``now``: ``just now``, ``4 min ago``, ``in 2 h``."""
    seconds = (moment(value) - now).total_seconds()
    if abs(seconds) < 45:
        return "just now" if seconds <= 0 else "in a moment"
    for size, unit in _STEPS:
        if abs(seconds) >= size or unit == "min":
            count = max(1, round(abs(seconds) / size))
            plural = "s" if count > 1 and unit in {"year", "month", "day"} else ""
            text = f"{count} {unit}{plural}"
            return f"{text} ago" if seconds < 0 else f"in {text}"
    raise AssertionError


def time_tag(value: datetime | str | None) -> Markup:
    """Give a ``<time>``: relative, the exact one on hover, kept fresh by the scripts."""
    if value is None:
        return Markup('<span class="quiet">never</span>')
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment(value).isoformat(), exact(value), relative(value, datetime.now(UTC))
    )


def duration(seconds: float | timedelta | None) -> str:
    """Give how long: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 4 min``, ``3 d 4 h``."""
    if seconds is None:
        return NOTHING
    if isinstance(seconds, timedelta):
        seconds = seconds.total_seconds()
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def between(start: datetime | str | None, end: datetime | str | None) -> str:
    """Give how long it took from one time to another, or to now."""
    if start is None:
        return NOTHING
    until = datetime.now(UTC) if end is None else moment(end)
    return duration(max(0.0, (until - moment(start)).total_seconds()))


def size(count: int | None) -> str:
    """Give bytes in decimal units, three digits: ``912 B``, ``1.4 MB``."""
    if count is None:
        return NOTHING
    if count < 1000:
        return f"{count} B"
    value, unit = float(count), iter(_UNITS)
    named = ""
    while value >= 999.5 and (following := next(unit, "")):
        value, named = value / 1000, following
    return f"{value:.3g} {named}"


def number(value: float | None) -> str:
    """Give a number with thin spaces between thousands."""
    if value is None:
        return NOTHING
    return f"{value:,}".replace(",", "\u202f")


def plural(count: int, word: str, many: str | None = None) -> str:
    """Give a count with its noun: ``1 picture``, ``3 pictures``."""
    return f"{number(count)} {word if count == 1 else many or word + 's'}"


def capitalized(text: str) -> str:
    """Begin a sentence: the first letter alone, names within keep theirs."""
    return text[:1].upper() + text[1:]


def human(name: Any) -> str:
    """Turn a name of ours into words: ``waiting_for_backend`` to ``waiting for backend``."""
    return str(name).replace("_", " ")
