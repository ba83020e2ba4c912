"""Make words from outside fit to be kept."""

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
