"""Answer in the shapes of ComfyUI's web server, and misbehave where a fault says so."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from genonaut.local.comfy.connections import reset
from genonaut.local.comfy.faults import FaultBox
from genonaut.local.comfy.sockets import MAX_UPLOAD_BYTES

log = structlog.get_logger(__name__)

Endpoint = Callable[[Request], Awaitable[Response]]

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class TooLargeError(Exception):
    """The body is over the limit."""


def as_json(body: Any, status: int = 200) -> Response:
    """Answer with JSON."""
    return Response(json.dumps(body), status, media_type="application/json; charset=utf-8")


def empty(status: int = 200) -> Response:
    """Answer with no body and no content type."""
    return Response(status_code=status)


def text(body: str, status: int, headers: dict[str, str] | None = None) -> Response:
    """Answer with plain text."""
    return Response(body, status, headers, media_type="text/plain")


def trouble() -> Response:
    """Answer as ComfyUI does to whatever its handlers did not expect."""
    return text("500 Internal Server Error\n\nServer got itself in trouble", 500)


def not_found() -> Response:
    """Answer for a path that is no route."""
    return Response(status_code=404, media_type="application/octet-stream")


async def read_body(request: Request) -> bytes:
    """Read the whole body.

    Raises: TooLargeError: it is over the limit; all of it has been read, so that the client
        gets the answer.
    """
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= MAX_UPLOAD_BYTES:
            chunks.append(chunk)
    if size > MAX_UPLOAD_BYTES:
        raise TooLargeError
    return b"".join(chunks)


async def read_json(request: Request) -> Any:
    """Read JSON whatever the content type; malformed JSON raises ValueError, which is a 500."""
    return json.loads(await read_body(request))


async def misbehave(how: str, scope: Scope) -> Response:
    """Do what a fault says instead of answering."""
    if "hang" in how:
        await asyncio.Event().wait()
    if "reset" in how:
        reset(scope)
        return empty()
    if how == "garbage":
        return Response('{"exec_info": {', 200, media_type="application/json; charset=utf-8")
    return text("503: Service Unavailable", 503) if how.startswith("503") else trouble()


def guarded(endpoint: Endpoint) -> Endpoint:
    """Turn what an endpoint did not expect into the recorded 500, and a large body into a 413."""

    async def answer(request: Request) -> Response:
        try:
            return await endpoint(request)
        except TooLargeError:
            return text(f"Maximum request body size {MAX_UPLOAD_BYTES} exceeded.", 413)
        except Exception as error:  # noqa: BLE001 - as the real server answers whatever happens
            log.info("request failed", path=request.url.path, error=repr(error))
            return trouble()

    return answer


class Border:
    """Stand around the routes: /api prefix, Origin guard, faults for all."""

    def __init__(self, app: ASGIApp, faults: FaultBox) -> None:
        self.app = app
        self.faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or socket."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path: str = scope["path"]
        if path.startswith("/api/"):
            scope["path"] = path.removeprefix("/api")
            scope["raw_path"] = scope.get("raw_path", b"").removeprefix(b"/api")
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        response = await self._instead(scope, path)
        if response is not None:
            await response(scope, receive, send)
            return
        await self.app(scope, receive, send)

    async def _instead(self, scope: Scope, path: str) -> Response | None:
        request = Request(scope)
        if not path.startswith("/simulator/") and self.faults.now.all_http:
            return await misbehave(self.faults.now.all_http, scope)
        origin = request.headers.get("origin")
        host = request.headers.get("host", "").rpartition(":")[0]
        if origin and host in LOOPBACK and origin.partition("://")[2].rpartition(":")[0] != host:
            return empty(403)
        return empty() if request.method == "OPTIONS" else None
