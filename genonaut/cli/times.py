"""Read spans and moments as people write them."""

import re
from datetime import datetime, timedelta

import typer

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SPAN = re.compile(r"([0-9]{1,9})([smhd]?)", re.ASCII)


def seconds(word: str) -> int:
    """Read ``90``, ``90s``, ``15m``, ``2h`` or ``1d``.

    Raises: BadParameter: it is none of these.
    """
    found = _SPAN.fullmatch(word.strip())
    if not found:
        raise typer.BadParameter(f"{word!r} is no span: write 90s, 15m, 2h or 1d")
    number, unit = found.groups()
    return int(number) * _UNITS[unit or "s"]


def moment(word: str, now: datetime) -> datetime:
    """Read a date and time, of the machine's zone if it names none, or a span from ``now``.

    Raises: BadParameter: it is neither.
    """
    try:
        return datetime.fromisoformat(word.strip()).astimezone()
    except (ValueError, OverflowError):
        pass
    try:
        return now + timedelta(seconds=seconds(word))
    except (typer.BadParameter, OverflowError) as error:
        raise typer.BadParameter(
            f"{word!r} is no time: write 2026-01-05T10:00, or a span such as 2h"
        ) from error


def span(number: int) -> str:
    """Write seconds in the largest unit that leaves no rest: ``90s``, ``15m``."""
    name, unit = next((n, u) for n, u in reversed(_UNITS.items()) if number % u == 0)
    return f"{number // unit}{name}" if number else "0s"
