"""Log in and out of the pages, and choose their look."""

from datetime import timedelta

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from genonaut.api import auth
from genonaut.api.deps import Services, ServicesDep
from genonaut.api.web.rendering import render
from genonaut.api.web.visitor import (
    FormDep,
    PageRoute,
    form_status,
    own_path,
    read_fields,
    set_theme,
    theme,
)
from genonaut.core.errors import ForbiddenError, UnauthorizedError
from genonaut.domain import logins, users

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_WRONG_TOKEN = "That token is not valid."  # noqa: S105 - says so
_OVER = "This link was used already or is too old."


@router.get("/login")
def enter(
    request: Request,
    services: ServicesDep,
    token: str | None = None,
    next: str = "/",
) -> Response:
    """Ask for a token, or log in with a one-time link."""
    if token is None:
        return _ask(request, services, own_path(next))
    try:
        with services.database.transaction() as session:
            _, cookie = logins.by_link(session, token, ttl=_ttl(services))
    except UnauthorizedError:
        return _ask(request, services, own_path(next), _OVER)
    return _let_in(services, cookie, own_path(next))


@router.post("/login")
async def log_in(request: Request, services: ServicesDep) -> Response:
    """Log in with an API token typed into the form."""
    auth.check_origin(request, services.settings)
    fields = await read_fields(request)
    to = own_path(fields.get("next", ["/"])[-1])

    def work() -> str:
        with services.database.transaction() as session:
            token = fields.get("token", [""])[-1].strip()
            return logins.by_token(session, token, ttl=_ttl(services))[1]

    try:
        cookie = await run_in_threadpool(work)
    except UnauthorizedError:
        return _ask(request, services, to, _WRONG_TOKEN)
    return _let_in(services, cookie, to)


@router.post("/logout")
async def log_out(request: Request, services: ServicesDep) -> Response:
    """End the session of this browser."""
    auth.check_origin(request, services.settings)
    cookie = request.cookies.get(auth.cookie_name(services.settings), "")
    if cookie:
        try:
            auth.check_csrf(cookie, (await read_fields(request)).get("csrf", [""])[-1])
        except ForbiddenError:
            return RedirectResponse("/", 303)

        def work() -> None:
            with services.database.transaction() as session:
                users.close_session(session, cookie)

        await run_in_threadpool(work)
    response = RedirectResponse("/login", 303)
    auth.clear_cookie(response, services.settings)
    return response


@router.post("/theme")
def choose_theme(form: FormDep, services: ServicesDep) -> Response:
    """Show the pages light, dark, or as the system is."""
    response = RedirectResponse(own_path(form.get("back")), 303)
    set_theme(response, services.settings, form.get("theme"))
    return response


def _ttl(services: Services) -> timedelta:
    return timedelta(hours=services.settings.session_ttl_hours)


def _let_in(services: Services, cookie: str, to: str) -> Response:
    response = RedirectResponse(to, 303)
    auth.set_cookie(response, services.settings, cookie)
    return response


def _ask(request: Request, services: Services, to: str, error: str = "") -> Response:
    return render(
        "login.html",
        services.settings,
        status=form_status(request, 401 if error else 200),
        error=error,
        next=to,
        theme=theme(request),
    )
