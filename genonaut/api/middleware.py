"""Wrap every request: size limit, security headers, one log line, no leaked failure."""

import logging
import random
import re
import time
from asyncio import timeout
from urllib.parse import quote

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars, unbind_contextvars

from genonaut.api.errors import problem, unexpected

log = structlog.get_logger(__name__)

_QUERY = re.compile(r"\?\S*")
_PATH_SAFE = "/:@-._~!$&'()*+,;="

SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
]
CSP = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    b" connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)


class Envelope:
    """Give each answer its headers and a log line, and turn what nobody caught into a 500.

    Query strings are not logged: tickets and login links are in them. Paths are logged quoted, so
    that none can hold a line of its own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"{random.getrandbits(64):016x}"
        added = [*SECURITY_HEADERS, (b"x-request-id", request_id.encode())]
        began = time.perf_counter()
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"] = [*message.get("headers", ()), *added]
                kinds = {name for name, _ in headers}
                if b"content-security-policy" not in kinds:
                    headers.append((b"content-security-policy", CSP))
                if b"cache-control" not in kinds:
                    headers.append((b"cache-control", _caching(scope, status)))
            await send(message)

        bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:  # noqa: BLE001 - logged with its traceback, told without
            answer = unexpected(error)
            if status == 0:
                await answer(scope, receive, send_with_headers)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=quote(scope["path"], safe=_PATH_SAFE),
                status=status or None,
                ms=round((time.perf_counter() - began) * 1000, 1),
            )
            unbind_contextvars("request_id")


def _caching(scope: Scope, status: int) -> bytes:
    """Let browsers keep assets: for good under an address that has their hash in it."""
    if not scope["path"].startswith("/assets/"):
        return b"no-store"
    is_hashed = status < 400 and scope["query_string"].startswith(b"v=")
    return b"public, max-age=31536000, immutable" if is_hashed else b"public, no-cache"


class BodyLimit:
    """Refuse bodies above a size, also in chunks that do not say how long, and those that stop.

    An unfinished body may pause ``idle_timeout_s``; then its request is answered 408.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, idle_timeout_s: float = 30.0) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._idle_timeout_s = idle_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting what it brings."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        declared = _content_length(scope)
        if declared is not None and declared > self._max_bytes:
            await self._refuse(scope, receive, send)
            return
        seen = 0
        whole = answering = False

        async def counted() -> Message:
            nonlocal seen, whole
            try:
                # After a whole body only the client's leaving is waited for, as long as it takes.
                async with timeout(None if whole or answering else self._idle_timeout_s):
                    message = await receive()
            except TimeoutError as error:
                raise _TooSlowError from error
            if message["type"] == "http.request":
                whole = not message.get("more_body", False)
                seen += len(message.get("body", b""))
                if seen > self._max_bytes and not answering:
                    raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal answering
            answering = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLargeError:
            await self._refuse(scope, receive, send)
        except _TooSlowError:
            detail = f"the body paused for more than {self._idle_timeout_s:g} s"
            answer = problem(408, "body_too_slow", detail, headers={"Connection": "close"})
            await answer(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = problem(
            413,
            "body_too_large",
            f"the body may have at most {self._max_bytes // 1024} KiB",
            headers={"Connection": "close"},
        )
        await answer(scope, receive, send)


class _TooLargeError(BaseException):
    """Pass through FastAPI, which would turn an Exception while reading a body into a 400."""


class _TooSlowError(BaseException):
    """Pass through FastAPI, as above."""


def _content_length(scope: Scope) -> int | None:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() else None
    return None


class _WithoutQuery(logging.Filter):
    """Cut query strings off the server's own lines."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep every line."""
        if isinstance(record.args, tuple):
            record.args = tuple(
                _QUERY.sub("", arg) if isinstance(arg, str) else arg for arg in record.args
            )
        return True


def quiet_server_logs() -> None:
    """Leave one line per request, ours; the server's would show tickets and login links."""
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("uvicorn.error").addFilter(_WithoutQuery())
