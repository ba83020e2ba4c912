"""Answer every error as a problem (RFC 9457), without a trace of the inside."""

import json
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from genonaut.core.errors import GenonautError, RateLimitedError, RetryableError
from genonaut.domain.runs import AlreadyRunningError

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
DATABASE_AWAY = (OperationalError, InterfaceError, DisconnectionError, PoolTimeoutError)
"""What is raised while PostgreSQL does not answer."""

_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed"}
_POINTER_MAX = 200
_DETAIL_MAX = 1000
_NOT_JSON = "the body is not JSON"


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    errors: Iterable[dict[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    **members: Any,
) -> Response:
    """Make a problem; ``code`` is stable, ``detail`` is for people, ``members`` are its own."""
    body: dict[str, Any] = {
        **members,
        "type": f"urn:genonaut:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    if listed := list(errors):
        body["errors"] = listed
    # Escaped to ASCII: a message may name a field with characters UTF-8 cannot carry.
    content = json.dumps(body).encode("ascii")
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def unavailable(detail: str, code: str = "unavailable") -> Response:
    """Say that waiting may cure it."""
    return problem(503, code, detail, headers={"Retry-After": "5"})


def install(app: FastAPI) -> None:
    """Answer each kind of error; what is left over is the middleware's."""
    app.add_exception_handler(GenonautError, _ours)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, http)
    for kind in DATABASE_AWAY:
        app.add_exception_handler(kind, database_unavailable)


async def _ours(_: Request, error: Exception) -> Response:
    return of(error) if isinstance(error, GenonautError) else unexpected(error)


def of(error: GenonautError) -> Response:
    """Make the problem that tells of one of our own errors."""
    headers = {}
    if isinstance(error, RateLimitedError):
        wait_s = str(math.ceil(error.retry_after_s))
        headers = {
            "Retry-After": wait_s,
            "RateLimit-Limit": str(error.limit),
            "RateLimit-Remaining": str(error.remaining),
            "RateLimit-Reset": wait_s,
        }
    elif isinstance(error, RetryableError):
        headers = {"Retry-After": "5"}
    elif error.http_status == 401:
        headers = {"WWW-Authenticate": "Bearer"}
    elif error.code == "request_in_flight":
        headers = {"Retry-After": "1"}
    detail = str(error)[:_DETAIL_MAX]
    errors = [_at(error.field, detail)] if error.field else []
    members = {"run_id": error.run_id} if isinstance(error, AlreadyRunningError) else {}
    return problem(error.http_status, error.code, detail, errors=errors, headers=headers, **members)


def unexpected(error: Exception) -> Response:
    """Log a mistake of ours and say no more than that it was one."""
    log.error("request_failed", exc_info=error)
    return problem(500, "internal_error", "something went wrong on our side")


def _at(name: str, detail: str) -> dict[str, str]:
    if name == "Idempotency-Key":
        return {"header": name, "detail": detail}
    return {"pointer": _pointer(name.split(".")), "detail": detail}


async def _invalid(_: Request, error: Exception) -> Response:
    """Name each wrong field; never repeat the value, it may be a secret."""
    if not isinstance(error, RequestValidationError):
        return unexpected(error)
    if isinstance(error.body, bytes) and error.body:
        return problem(415, "unsupported_media_type", "the body must be application/json")
    found = error.errors()
    if any(item["type"] == "json_invalid" for item in found):
        return problem(400, _CODES[400], _NOT_JSON)
    errors = []
    for item in found:
        where, *path = [str(part) for part in item["loc"]] or ["body"]
        detail = item["msg"].removeprefix("Value error, ")
        if where == "body":
            errors.append({"pointer": _pointer(path), "detail": detail})
        else:
            errors.append({where: ".".join(path)[:_POINTER_MAX], "detail": detail})
    where = _where(errors[0]) if errors else ""
    detail = f"{where}: {errors[0]['detail']}" if errors and where else "the request is not valid"
    return problem(422, "invalid_input", detail, errors=errors)


def _pointer(path: list[str]) -> str:
    escaped = (part.replace("~", "~0").replace("/", "~1") for part in path)
    return "#" + "".join(f"/{part}" for part in escaped)[:_POINTER_MAX]


def _where(item: dict[str, str]) -> str:
    name = next(value for key, value in item.items() if key != "detail")
    return name.removeprefix("#/").replace("/", ".").removeprefix("#") or "body"


async def http(_: Request, error: Exception) -> Response:
    """Answer what the routes themselves refuse."""
    if not isinstance(error, HTTPException):
        return unexpected(error)
    status = error.status_code
    detail = {
        400: _NOT_JSON,
        404: "there is nothing at this address",
        405: "this address does not take that method",
    }.get(status, str(error.detail))
    return problem(status, _CODES.get(status, "http_error"), detail, headers=error.headers)


async def database_unavailable(_: Request, error: Exception) -> Response:
    """Answer that PostgreSQL is away, and note it."""
    log.warning("database_unavailable", error=type(error).__name__)
    return database_away()


def database_away() -> Response:
    """Say that PostgreSQL is away."""
    return unavailable("the database does not answer; try again shortly", "database_unavailable")
