"""Log in and out, and say who one is."""

from datetime import timedelta

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from genonaut.api import answers, auth
from genonaut.api.answers import CHANGING, POSTING, READING
from genonaut.api.deps import CallerDep, ServicesDep
from genonaut.api.requests import LoginRequest
from genonaut.core.tokens import csrf_token
from genonaut.domain import logins, users

router = APIRouter(tags=["session"])


@router.post(
    "/session",
    operation_id="logIn",
    responses={200: {"model": answers.Me}, **POSTING},
)
def log_in(request: Request, body: LoginRequest, services: ServicesDep) -> Response:
    """Exchange an API token for a session cookie, and the CSRF token that goes with it."""
    settings = services.settings
    auth.check_origin(request, settings)
    with services.database.transaction() as session:
        ttl = timedelta(hours=settings.session_ttl_hours)
        who, cookie = logins.by_token(session, body.token, ttl=ttl)
    response = JSONResponse(_shown(who, cookie))
    auth.set_cookie(response, settings, cookie)
    return response


@router.delete("/session", status_code=204, operation_id="logOut", responses={**CHANGING})
def log_out(caller: CallerDep, services: ServicesDep) -> Response:
    """End the session of the cookie; a bearer token stays valid."""
    with caller.transaction() as (session, _):
        if caller.credentials.cookie is not None:
            users.close_session(session, caller.credentials.cookie)
    response = Response(status_code=204)
    auth.clear_cookie(response, services.settings)
    return response


@router.post(
    "/session/ticket",
    operation_id="issueSocketTicket",
    responses={200: {"model": answers.SocketTicket}, **CHANGING},
)
def issue_ticket(caller: CallerDep, services: ServicesDep) -> Response:
    """Give a ticket that opens one WebSocket: `/ws/me?ticket=…`."""
    ttl_s = services.settings.ticket_ttl_s
    with caller.transaction() as (session, who):
        ticket = users.issue_ticket(
            session,
            who.user_id,
            ttl=timedelta(seconds=ttl_s),
            until=who.expires_at,
            login=who.login,
        )
    return JSONResponse({"ticket": ticket, "expires_in_s": ttl_s})


@router.get("/me", operation_id="readMe", responses={200: {"model": answers.Me}, **READING})
def me(caller: CallerDep) -> Response:
    """Say who is logged in."""
    with caller.transaction() as (_, who):
        return JSONResponse(_shown(who, caller.credentials.cookie))


def _shown(who: users.Principal, cookie: str | None) -> dict[str, str | None]:
    return {
        "id": str(who.user_id),
        "username": who.username,
        "role": who.role,
        "csrf_token": csrf_token(cookie) if cookie else None,
    }
