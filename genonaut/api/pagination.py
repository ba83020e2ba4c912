"""Give lists page by page, with cursors that stay right while rows are added."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from starlette.responses import JSONResponse

from genonaut.core.errors import InvalidInputError

Row = TypeVar("Row")

LimitParam = Annotated[int, Query(ge=1, le=100, description="Rows per page.")]
CursorParam = Annotated[
    str | None, Query(max_length=64, description="`next_cursor` of the page before.")
]

_MARK = b"v1:"
_MAX_ID = 2**63 - 1


def encode(last_id: int) -> str:
    """Make the cursor of the page after the row ``last_id``."""
    return base64.urlsafe_b64encode(_MARK + str(last_id).encode()).rstrip(b"=").decode()


def decode(cursor: str | None) -> int | None:
    """Read a cursor.

    Raises: InvalidInputError: it is not one of ours.
    """
    if cursor is None:
        return None
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        digits = raw.removeprefix(_MARK).decode("ascii")
        if raw.startswith(_MARK) and digits.isdecimal() and int(digits) <= _MAX_ID:
            return int(digits)
    except (binascii.Error, ValueError):
        pass
    raise InvalidInputError("this cursor did not come from here", field="cursor")


def page(
    request: Request,
    rows: Sequence[Row],
    limit: int,
    show: Callable[[Row], dict[str, Any]],
    *,
    cursor_of: Callable[[Row], str] | None = None,
    **members: Any,
) -> JSONResponse:
    """Answer with at most ``limit`` of ``rows``; one row more than that means there is a next page.

    Each row has an ``id`` by which the list is ordered, or else ``cursor_of`` gives the cursor of
    what follows it. ``members`` go beside the items.
    """
    shown = rows[:limit]
    cursor = None
    if len(rows) > limit and shown:
        cursor = cursor_of(shown[-1]) if cursor_of else encode(shown[-1].id)  # type: ignore[attr-defined]
    headers = {}
    if cursor is not None:
        following = request.url.include_query_params(cursor=cursor)
        headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'
    return JSONResponse(
        {**members, "items": [show(row) for row in shown], "next_cursor": cursor}, headers=headers
    )
