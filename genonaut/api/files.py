"""Send stored pictures: validators, ranges, and no more work than the client needs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from anyio import CapacityLimiter, to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from genonaut.api.errors import problem
from genonaut.clients.storage import Storage, StoredFile
from genonaut.core.errors import NotFoundError

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


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where pictures are, and the threads that ask for them.

    They are not those of the other requests: a store that hangs keeps none of these waiting.
    """

    storage: Storage
    threads: CapacityLimiter


def respond(
    shelf: Shelf,
    picture: Picture,
    headers: Mapping[str, str],
    method: str,
    *,
    absent: Callable[[], Response] | None = None,
) -> Response:
    """Answer GET or HEAD: 200, 206 for one range, 304 when the client has it, 416.

    Pictures need a login, so only the browser may keep them (``private``), for the login it used.
    The store is asked when the answer is sent. If the file is not there then, ``absent`` gives the
    answer; without it that is 404.
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
    wanted = headers.get("range") if headers.get("if-range", etag) == etag else None
    return _Later(shelf, lambda: _open(shelf, picture, answer, wanted, method), absent)


def _open(
    shelf: Shelf, picture: Picture, answer: dict[str, str], wanted: str | None, method: str
) -> Response:
    stored = shelf.storage.open(picture.storage_key)
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
    return _Stream(shelf, stored, first, last - first + 1, status, answer)


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


class _Later(Response):
    """Send what is found when it is sent, or what stands in for it."""

    def __init__(
        self, shelf: Shelf, find: Callable[[], Response], absent: Callable[[], Response] | None
    ) -> None:
        super().__init__()
        self._shelf = shelf
        self._find = find
        self._absent = absent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            found = await to_thread.run_sync(self._find, limiter=self._shelf.threads)
        except NotFoundError:
            if self._absent is None:
                raise
            found = await to_thread.run_sync(self._absent)
        await found(scope, receive, send)


class _Stream(Response):
    """Send a part of an open file in chunks, and close it however that ends."""

    def __init__(
        self,
        shelf: Shelf,
        stored: StoredFile,
        first: int,
        length: int,
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(None, status, headers)
        self._threads = shelf.threads
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
                size = min(_CHUNK, left)
                chunk = await to_thread.run_sync(file.read, size, limiter=self._threads)
                if not chunk:
                    break
                left -= len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
        finally:
            file.close()
