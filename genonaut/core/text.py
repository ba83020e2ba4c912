"""Make words from outside fit to be kept."""

import unicodedata
from typing import Any

LONGEST_VALUE = 500


def storable(words: str) -> str:
    """Make words fit for PostgreSQL: it takes neither NUL nor half a character."""
    return words.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def storable_json(value: Any, *, longest: int = LONGEST_VALUE) -> Any:
    """Make any value fit for a JSONB column; what JSON does not know becomes its text.

    Texts are cut at ``longest`` characters; numbers that JSON does not know become their names.
    """
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else str(value)
    if isinstance(value, dict):
        return {
            storable(str(key)): storable_json(item, longest=longest) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [storable_json(item, longest=longest) for item in value]
    text = storable(str(value))
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def one_line(words: str, *, longest: int) -> str:
    """Make words fit for a line of their own, such as a title or a mail's header.

    Line breaks, control characters and what turns the direction of writing become spaces.
    """
    shown = (" " if is_unprinted(char) else char for char in storable(words)[: 4 * longest])
    line = " ".join("".join(shown).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def is_unprinted(char: str) -> bool:
    """Whether a character breaks or bends the line it is in; joiners, which emoji need, do not."""
    return unicodedata.category(char) in {"Cc", "Zl", "Zp"} or char in _BENDING


_BENDING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def pace(per_s: float, left: int) -> str:
    """Say how fast work goes, above 0 a second, and when what is ``left`` of it will be done."""
    return f"{per_s:.1f} a second, {duration(max(0, left) / per_s)} left"


def duration(seconds: float) -> str:
    """Say a duration as people do: ``40 s``, ``5 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"
