"""Go through long lists by pages, with links that stay right while rows are added."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from fastapi import Request

from genonaut.api import pagination

Row = TypeVar("Row")


def split(
    request: Request,
    rows: Sequence[Row],
    limit: int,
    *,
    mark_of: Callable[[Row], int] = lambda row: row.id,  # type: ignore[attr-defined]
) -> tuple[list[Row], str | None]:
    """Give at most ``limit`` of ``rows`` and the address of the next page.

    One row more than ``limit`` means that there is one.
    """
    shown = list(rows[:limit])
    if len(rows) <= limit or not shown:
        return shown, None
    cursor = pagination.encode(mark_of(shown[-1]))
    following = request.url.include_query_params(cursor=cursor)
    return shown, f"{following.path}?{following.query}"


def before(request: Request) -> int | None:
    """Read where the page begins.

    Raises: InvalidInputError: the cursor is not one of ours.
    """
    return pagination.decode(request.query_params.get("cursor"))


def asked(request: Request, name: str, *, longest: int = 200) -> str:
    """Give what a filter's field holds, cut to ``longest`` and without what no text may hold."""
    value = request.query_params.get(name, "")
    return value.replace("\0", "").strip()[:longest]
