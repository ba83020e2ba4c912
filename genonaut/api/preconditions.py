"""Let a change count only for the version it was made on (RFC 9110, ``ETag`` and ``If-Match``)."""

from typing import Annotated, Any

from fastapi import Header

from genonaut.core.errors import GenonautError
from genonaut.domain.schedules import StaleVersionError

IfMatchHeader = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="Needed: the `ETag` of the version that was read. `*` is any version.",
    ),
]

ETAG: dict[str, Any] = {"ETag": {"description": "Its version.", "schema": {"type": "string"}}}


class PreconditionRequiredError(GenonautError):
    """Read it first, and send its ETag as If-Match."""

    code = "precondition_required"
    http_status = 428


def etag(version: int) -> dict[str, str]:
    """Give the header that names a version."""
    return {"ETag": f'"{version}"'}


def check(if_match: str | None, version: int) -> None:
    """Check that a change was made on ``version``.

    Raises:
        PreconditionRequiredError: it does not say.
        StaleVersionError: it was made on another.
    """
    if if_match is None:
        raise PreconditionRequiredError
    if not {"*", f'"{version}"'} & {tag.strip() for tag in if_match.split(",")}:
        raise StaleVersionError
