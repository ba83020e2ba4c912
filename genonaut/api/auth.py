"""Read who is asking from a request or a socket.

A bearer token, or the session cookie a page has. The browser sends a cookie by itself, also for
another site's page, so a request that changes something must show the CSRF token too, and a socket
must come from one of our own pages.
"""

import hmac
import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from fastapi import Response
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from genonaut.api.config import Settings
from genonaut.core.errors import ForbiddenError, UnauthorizedError
from genonaut.core.tokens import csrf_token
from genonaut.domain import users
from genonaut.domain.users import Login, Principal

CSRF_HEADER = "X-CSRF-Token"

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_FORWARDED = re.compile(r"forwarded|via|x-real-ip|x-forwarded-.+")
_THIS_MACHINE = re.compile(r"(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?", re.IGNORECASE)


class CsrfError(ForbiddenError):
    """What is sent comes from a page of another session, or of none."""

    code = "csrf_failed"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows of itself; nothing is checked against the database yet."""

    bearer: str | None = None
    cookie: str | None = None
    ticket: str | None = None

    def login(self) -> Login:
        """Give the login to look up; the bearer token counts before the cookie.

        Raises: UnauthorizedError: there is none.
        """
        if self.bearer is not None:
            return Login.by_token(self.bearer)
        if self.cookie is not None:
            return Login.by_session(self.cookie)
        raise UnauthorizedError("log in with a bearer token or a session")

    def authenticate(self, session: Session, *, in_turn: bool = False) -> Principal:
        """Find the user; the bearer token counts before the ticket, the ticket before the cookie.

        With ``in_turn`` the transaction also takes the user's turn.

        Raises: UnauthorizedError: there is no valid login.
        """
        if self.ticket is not None and self.bearer is None:
            return users.redeem(session, self.ticket, "ticket")
        return users.authenticate(session, self.login(), in_turn=in_turn)


def cookie_name(settings: Settings) -> str:
    """Name the session cookie; environments on one machine share their cookies' host."""
    return f"genonaut_{settings.app_env}_session"


def of_request(connection: HTTPConnection, settings: Settings) -> Credentials:
    """Read a request's login.

    Raises:
        UnauthorizedError: it has none.
        ForbiddenError: it changes something and could be another site's doing.
    """
    bearer = _bearer(connection)
    if bearer is not None:
        return Credentials(bearer=bearer)
    cookie = connection.cookies.get(cookie_name(settings))
    if not cookie:
        raise UnauthorizedError("log in with a bearer token or a session")
    if connection.scope["method"] not in _SAFE:
        check_origin(connection, settings)
        check_csrf(cookie, connection.headers.get(CSRF_HEADER, ""))
    return Credentials(cookie=cookie)


def of_socket(connection: HTTPConnection, settings: Settings) -> Credentials:
    """Read a socket's login: header, ticket in the query, or cookie of our own page.

    Raises: ForbiddenError: it has a cookie but another site's page opened it.
    """
    bearer = _bearer(connection)
    if bearer is not None:
        return Credentials(bearer=bearer)
    ticket = connection.query_params.get("ticket")
    if ticket:
        return Credentials(ticket=ticket)
    cookie = connection.cookies.get(cookie_name(settings))
    if cookie:
        check_origin(connection, settings, required=True)
    return Credentials(cookie=cookie or None)


def _bearer(connection: HTTPConnection) -> str | None:
    kind, _, value = connection.headers.get("authorization", "").partition(" ")
    return value.strip() if kind.lower() == "bearer" else None


def is_local(connection: HTTPConnection) -> bool:
    """Whether a program on this machine asks for itself.

    Behind a reverse proxy on this machine every peer is loopback. So what was forwarded does not
    count, as its headers say, nor what asks for a host of another name, which most proxies keep.
    """
    if connection.client is None or any(map(_FORWARDED.fullmatch, connection.headers)):
        return False
    if not _THIS_MACHINE.fullmatch(connection.headers.get("host", "")):
        return False
    try:
        return ip_address(connection.client.host).is_loopback
    except ValueError:
        return False


def check_origin(connection: HTTPConnection, settings: Settings, *, required: bool = False) -> None:
    """Refuse what a page of another site sent; programs send no Origin.

    Raises: ForbiddenError: the Origin is not ours.
    """
    origin = connection.headers.get("origin")
    if origin is None and not required:
        return
    # Compared as text: an Origin that is malformed, or more than an origin, equals none of ours.
    host = connection.headers.get("host", "")
    own = urlsplit(settings.base_url)
    if origin not in {f"http://{host}", f"https://{host}", f"{own.scheme}://{own.netloc}"}:
        raise ForbiddenError("the request comes from another site's page", code="wrong_origin")


def check_csrf(cookie: str, given: str) -> None:
    """Check the token a page sends beside its cookie.

    Raises: CsrfError: it is missing or belongs to another session.
    """
    if not hmac.compare_digest(csrf_token(cookie).encode(), given.encode(errors="replace")):
        raise CsrfError(f"a session cookie needs the matching {CSRF_HEADER} header")


def set_cookie(response: Response, settings: Settings, token: str) -> None:
    """Give the browser its session."""
    response.set_cookie(
        cookie_name(settings),
        token,
        max_age=settings.session_ttl_hours * 3600,
        path="/",
        secure=settings.cookie_secure,
        httponly=True,
        samesite="lax",
    )


def clear_cookie(response: Response, settings: Settings) -> None:
    """Take the session from the browser."""
    response.delete_cookie(
        cookie_name(settings),
        path="/",
        secure=settings.cookie_secure,
        httponly=True,
        samesite="lax",
    )
