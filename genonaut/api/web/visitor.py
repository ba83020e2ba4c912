"""Know who is at a page, what their form says, and where to lead them next.

A page acts through the API's own endpoint functions, as the caller its cookie makes; so rights and
checks are the API's. Every act is a form that posts and is led back to a page: the same with htmx,
which picks the part it wants from that page, and without.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qs, quote, unquote, urlencode

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session
from starlette.responses import HTMLResponse, RedirectResponse, Response

from genonaut.api import auth, errors
from genonaut.api.auth import Credentials, CsrfError
from genonaut.api.config import Settings
from genonaut.api.deps import Caller, Services, ServicesDep
from genonaut.api.errors import DATABASE_AWAY
from genonaut.api.web import words
from genonaut.api.web.checking import FormError
from genonaut.api.web.rendering import render, toast
from genonaut.core.errors import GenonautError, InvalidInputError, UnauthorizedError
from genonaut.core.tokens import csrf_token
from genonaut.domain import notifications
from genonaut.domain.users import Principal, Role

THEMES = ("auto", "light", "dark")

_FLASH = "genonaut_flash"
_THEME = "genonaut_theme"
_FIELDS_MAX = 200
_TITLES = {
    403: "Not for your role",
    404: "Nothing here",
    409: "That cannot be done now",
    422: "Something is not right",
    429: "Too much at once",
    503: "Not just now",
}

_LOGGED_OUT = "You are logged out. Copy what you typed, then load this page again."
_CHANGED = "You logged in anew since this page was loaded. Copy what you typed, and load it again."


@dataclass(frozen=True, slots=True)
class View:
    """What a page is made from: the request's transaction, who asks, and what the frame shows."""

    session: Session
    who: Principal
    unread: int


@dataclass(frozen=True, slots=True)
class Visitor:
    """Somebody with a session cookie; it is checked in the transaction that serves the page."""

    request: Request
    services: Services
    cookie: str

    @property
    def caller(self) -> Caller:
        """Give what the API's endpoints take."""
        return Caller(self.services, Credentials(cookie=self.cookie))

    @contextmanager
    def look(self, role: Role = Role.USER) -> Iterator[View]:
        """Begin the page's one transaction.

        Raises:
            UnauthorizedError: the session has ended.
            ForbiddenError: its role is a lesser one than ``role``.
        """
        with self.caller.transaction(role=role) as (session, who):
            yield View(session, who, notifications.unread_count(session, who.user_id))

    def show(
        self, name: str, view: View, *, active: str, status: int = 200, **values: Any
    ) -> Response:
        """Fill in a page inside the frame; ``active`` names its place in the navigation.

        ``status`` says why a form is shown again: see :func:`form_status`.
        """
        told = unquote(self.request.cookies.get(_FLASH, ""))
        response = render(
            name,
            self.services.settings,
            status=form_status(self.request, status),
            who=view.who,
            may=view.who.role.includes,
            role=Role,
            unread=view.unread,
            csrf=csrf_token(self.cookie),
            theme=theme(self.request),
            active=active,
            path=self.request.url.path,
            told=told,
            **values,
        )
        if told:
            response.delete_cookie(_FLASH, path="/")
        return response

    def lead(self, to: str, told: str = "") -> Response:
        """Lead on to a page of ours, which says what was done."""
        response = RedirectResponse(to, 303)
        if told:
            response.set_cookie(
                _FLASH,
                quote(told[:300]),
                max_age=60,
                path="/",
                secure=self.services.settings.cookie_secure,
                httponly=True,
                samesite="lax",
            )
        return response


@dataclass(frozen=True, slots=True)
class Form:
    """What a visitor's form holds, after it was seen that it came from a page of ours."""

    visitor: Visitor
    fields: dict[str, list[str]]

    def get(self, name: str, default: str = "") -> str:
        """Give a field's last value, without the blanks around it."""
        return (self.fields.get(name) or [default])[-1].strip()

    def all(self, name: str) -> list[str]:
        """Give all values of a field."""
        return self.fields.get(name, [])

    def has(self, name: str) -> bool:
        """Whether a box is ticked."""
        return bool(self.get(name))


async def get_visitor(request: Request, services: ServicesDep) -> Visitor:
    """Read the session cookie; a page without one leads to the login."""
    cookie = request.cookies.get(auth.cookie_name(services.settings), "")
    if not cookie:
        raise UnauthorizedError
    return Visitor(request, services, cookie)


VisitorDep = Annotated[Visitor, Depends(get_visitor)]


async def get_form(request: Request, visitor: VisitorDep) -> Form:
    """Read a form and see that a page of ours sent it."""
    auth.check_origin(request, visitor.services.settings)
    fields = await read_fields(request)
    auth.check_csrf(visitor.cookie, fields.get("csrf", [""])[-1])
    return Form(visitor, fields)


FormDep = Annotated[Form, Depends(get_form)]


async def read_fields(request: Request) -> dict[str, list[str]]:
    """Read a form's fields.

    Raises: InvalidInputError: there are too many.
    """
    text = (await request.body()).decode(errors="replace")
    try:
        return parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS_MAX)
    except ValueError as error:
        raise InvalidInputError("the form has too many fields") from error


def theme(request: Request) -> str:
    """Give the look the visitor chose; ``auto`` follows the system."""
    chosen = request.cookies.get(_THEME, "auto")
    return chosen if chosen in THEMES else "auto"


def set_theme(response: Response, settings: Settings, chosen: str) -> None:
    """Keep the look the visitor chose, for a year."""
    response.set_cookie(
        _THEME,
        chosen if chosen in THEMES else "auto",
        max_age=365 * 86_400,
        path="/",
        secure=settings.cookie_secure,
        samesite="lax",
    )


def own_path(given: str, default: str = "/") -> str:
    """Give a path of ours to go back to; anything else gives ``default``."""
    is_ours = given.startswith("/") and not given.startswith(("//", "/\\"))
    return given if is_ours and given.isprintable() else default


class PageRoute(APIRoute):
    """Answer errors with a page, and who is not logged in with the way there."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Wrap the usual handler."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except UnauthorizedError:
                return _to_login(request)
            except CsrfError:
                return error_page(request, 403, _CHANGED, title="This page is too old")
            except GenonautError as error:
                return error_page(request, error.http_status, str(error))
            except FormError as error:
                return error_page(request, 422, str(error))
            except RequestValidationError:
                return error_page(request, 404, "There is nothing at this address.")
            except DATABASE_AWAY as error:
                # Told to the log as the API tells it.
                await errors.database_unavailable(request, error)
                return error_page(request, 503, "The database does not answer; try again shortly.")
            except Exception as error:  # noqa: BLE001 - logged, and people are shown a page
                errors.unexpected(error)
                return error_page(request, 500, "Something went wrong on our side; it is logged.")

        return answer


def _to_login(request: Request) -> Response:
    wanted = request.url.path if request.method == "GET" else "/"
    if request.url.query and request.method == "GET":
        wanted += f"?{request.url.query}"
    login = "/login" if wanted == "/" else f"/login?{urlencode({'next': wanted})}"
    settings = request.app.state.services.settings
    response: Response
    if is_htmx(request) and request.method == "GET":
        response = HTMLResponse("", 401, headers={"HX-Redirect": "/login"})
    elif is_htmx(request):  # what was typed must not be gone with the page
        response = HTMLResponse("", 401, headers=toast(_LOGGED_OUT, "error"))
    else:
        response = RedirectResponse(login, 303)
    if auth.cookie_name(settings) in request.cookies:
        auth.clear_cookie(response, settings)
    return response


def is_htmx(request: Request) -> bool:
    """Whether htmx asks, so that only a part of the answer is shown."""
    return request.headers.get("hx-request") == "true"


def form_status(request: Request, status: int) -> int:
    """Give the status of a page that shows a form again.

    For a browser it is 200: for others it writes an error into its console, and htmx would not show
    the page.
    """
    return 200 if "sec-fetch-mode" in request.headers or is_htmx(request) else status


def error_page(
    request: Request, status: int, detail: str, *, title: str | None = None
) -> HTMLResponse:
    """Say what is wrong, on a page or, to htmx, in a toast."""
    sentence = words.capitalized(detail)
    if not sentence.endswith((".", "!", "?")):
        sentence += "."
    return render(
        "error.html",
        request.app.state.services.settings,
        status=status,
        headers={"Retry-After": "5"} | toast(sentence, "error")
        if status == 503
        else toast(sentence, "error"),
        title=title or _TITLES.get(status, "That did not work"),
        detail=sentence,
        back=request.url.path if request.method == "GET" and status == 503 else "/",
        theme=theme(request),
    )
