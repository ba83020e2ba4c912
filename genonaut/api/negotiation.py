"""Choose among the types we have by what the client's ``Accept`` says (RFC 9110, 12.5.1)."""

from collections.abc import Sequence

_MAX_RANGES = 50


def best(accept: str | None, offers: Sequence[str], *, plain: str) -> str:
    """Give the type the client likes best, the earlier of ``offers`` where it likes two alike.

    ``plain``, which must be one of them, is what every client of a few years can read: it comes
    first for a client that names none of them, such as ``*/*``, and for one that takes none.
    """
    ranges = _ranges(accept or "*/*")

    def liking(offer: str) -> tuple[float, int, bool]:
        quality, exactness = _matched(offer, ranges)
        return quality, exactness, exactness < _EXACT and offer == plain

    favourite = max(offers, key=liking)  # the first of equals
    return favourite if liking(favourite)[0] > 0 else plain


_EXACT = 2


def _matched(offer: str, ranges: dict[str, float]) -> tuple[float, int]:
    """Give the quality of the range that names ``offer`` most exactly, and how exactly."""
    wildcard = f"{offer.partition('/')[0]}/*"
    for exactness, name in ((_EXACT, offer), (1, wildcard), (0, "*/*")):
        if name in ranges:
            return ranges[name], exactness
    return 0.0, 0


def _ranges(accept: str) -> dict[str, float]:
    """Read the ranges and their qualities; what is no quality counts as 1."""
    found: dict[str, float] = {}
    for item in accept.split(",")[:_MAX_RANGES]:
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = _quality(value.strip())
        if name:
            found[name] = max(quality, found.get(name, 0.0))
    return found


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 1.0
    return min(1.0, max(0.0, value)) if value == value else 1.0
