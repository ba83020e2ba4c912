"""Send stored pictures: validators, ranges, and no more work than the client needs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from anyio import to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from genonaut.api.errors import problem
from genonaut.clients.storage import Storage, StoredFile

_CHUNK = 256 * 1024
_VARY = "Authorization, Cookie"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True)
class Picture:
    """A stored picture: where it is, what identifies its bytes, and what to call it."""

    storage_key: str
    etag: str
    mime: str
    filename: str
    immutable: bool
    varies_by_type: bool = False
    """Whether another ``Accept`` is answered with other bytes."""


def respond(
    storage: Storage, picture: Picture, headers: Mapping[str, str], method: str
) -> Response:
    """Answer GET or HEAD: 200, 206 for one range, 304 when the client has it, 416.

    Pictures need a login, so only the browser may keep them (``private``), for the login it used.

    Raises: NotFoundError: the file is not there.
    """
    etag = f'"{picture.etag}"'
    keep = "max-age=31536000, immutable" if picture.immutable else "max-age=60"
    answer = {
        "ETag": etag,
        "Cache-Control": f"private, {keep}",
        "Vary": f"Accept, {_VARY}" if picture.varies_by_type else _VARY,
        "Accept-Ranges": "bytes",
    }
    if _matches(headers.get("if-none-match"), etag):
        return Response(status_code=304, headers=answer)
    stored = storage.open(picture.storage_key)
    wanted = headers.get("range") if headers.get("if-range", etag) == etag else None
    found = _range(wanted, stored.size)
    if found is None:
        stored.file.close()
        answer = {"Content-Range": f"bytes */{stored.size}", "Accept-Ranges": "bytes"}
        return problem(416, "range_not_satisfiable", "outside the file", headers=answer)
    first, last, partial = found
    answer |= {
        "Content-Type": picture.mime,
        "Content-Length": str(last - first + 1),
        "Content-Disposition": f'inline; filename="{picture.filename}"',
    }
    if partial:
        answer["Content-Range"] = f"bytes {first}-{last}/{stored.size}"
    status = 206 if partial else 200
    if method == "HEAD":
        stored.file.close()
        return Response(status_code=status, headers=answer)
    return _Stream(stored, first, last - first + 1, status, answer)


def _matches(header: str | None, etag: str) -> bool:
    if header is None:
        return False
    given = {part.strip().removeprefix("W/") for part in header.split(",")}
    return "*" in given or etag in given


def _range(header: str | None, size: int) -> tuple[int, int, bool] | None:
    """Give (first, last, whether it is a part); None when nothing of it lies in the file.

    Several ranges at once, or what we do not understand, is answered with the whole file.
    """
    whole = (0, size - 1, False)
    match = _RANGE.fullmatch(header.strip()) if header and len(header) < 100 else None
    if match is None:
        return whole
    start, end = match.groups()
    if not start:
        if not end:
            return whole
        tail = min(int(end), size)
        return (size - tail, size - 1, True) if tail else None
    first, last = int(start), min(int(end), size - 1) if end else size - 1
    if end and int(end) < first:
        return whole
    return (first, last, True) if first < size else None


class _Stream(Response):
    """Send a part of an open file in chunks, and close it however that ends."""

    def __init__(
        self, stored: StoredFile, first: int, length: int, status: int, headers: dict[str, str]
    ) -> None:
        super().__init__(None, status, headers)
        self._stored = stored
        self._first = first
        self._length = length

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        file, left = self._stored.file, self._length
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            file.seek(self._first)
            while left > 0:
                chunk = await to_thread.run_sync(file.read, min(_CHUNK, left))
                if not chunk:
                    break
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
        finally:
            file.close()
