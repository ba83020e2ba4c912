"""Serve the one page: log in, see what is being made and what was made. It needs no scripts."""

from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, RedirectResponse, Response

from genonaut.api import auth
from genonaut.api.deps import Services, ServicesDep
from genonaut.api.routes.content import shown
from genonaut.core.errors import ForbiddenError, InvalidInputError, UnauthorizedError
from genonaut.core.tokens import csrf_token
from genonaut.domain import content, generation, notifications, users
from genonaut.domain.content import Filter
from genonaut.domain.lifecycle import UNFINISHED
from genonaut.domain.users import Principal

router = APIRouter(include_in_schema=False)

_PICTURES = 48
_JOBS = 20
_THUMBNAIL_EDGE = 256

_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1] / "web" / "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@router.get("/")
def home(request: Request, services: ServicesDep) -> Response:
    """Show the user's pictures and unfinished jobs, or the way in."""
    cookie = request.cookies.get(auth.cookie_name(services.settings))
    if not cookie:
        return _login_page(services)
    try:
        with services.database.transaction() as session:
            who = users.authenticate_session(session, cookie)
            found = _mine(session, who)
    except UnauthorizedError:
        response = _login_page(services)
        auth.clear_cookie(response, services.settings)
        return response
    return render("home.html", services, who=who, csrf=csrf_token(cookie), **found)


@router.get("/login")
def follow_link(services: ServicesDep, token: str = "") -> Response:
    """Log in with a one-time link."""
    try:
        with services.database.transaction() as session:
            who = users.redeem(session, token, "login")
            cookie = _open(session, services, who)
    except UnauthorizedError:
        return _login_page(services, "This link was used already or is too old.", 401)
    return _enter(services, cookie)


@router.post("/login")
async def log_in(request: Request, services: ServicesDep) -> Response:
    """Log in with an API token typed into the form."""
    auth.check_origin(request, services.settings)
    form = await _form(request)

    def work() -> str:
        with services.database.transaction() as session:
            who = users.authenticate_token(session, form.get("token", "").strip())
            return _open(session, services, who)

    try:
        cookie = await run_in_threadpool(work)
    except UnauthorizedError:
        return _login_page(services, "That token is not valid.", 401)
    return _enter(services, cookie)


@router.post("/logout")
async def log_out(request: Request, services: ServicesDep) -> Response:
    """End the session of this browser."""
    auth.check_origin(request, services.settings)
    form = await _form(request)
    cookie = request.cookies.get(auth.cookie_name(services.settings), "")
    if cookie:
        try:
            auth.check_csrf(cookie, form.get("csrf", ""))
        except ForbiddenError:
            return RedirectResponse("/", 303)

        def work() -> None:
            with services.database.transaction() as session:
                users.close_session(session, cookie)

        await run_in_threadpool(work)
    response = RedirectResponse("/", 303)
    auth.clear_cookie(response, services.settings)
    return response


async def _form(request: Request) -> dict[str, str]:
    text = (await request.body()).decode(errors="replace")
    try:
        fields = parse_qs(text, max_num_fields=20)
    except ValueError as error:
        raise InvalidInputError("the form has too many fields") from error
    return {name: values[0] for name, values in fields.items()}


def _open(session: Session, services: Services, who: Principal) -> str:
    ttl = timedelta(hours=services.settings.session_ttl_hours)
    return users.open_session(session, who.user_id, ttl=ttl, until=who.expires_at)


def _enter(services: Services, cookie: str) -> Response:
    response = RedirectResponse("/", 303)
    auth.set_cookie(response, services.settings, cookie)
    return response


def _login_page(services: Services, error: str = "", status: int = 200) -> Response:
    return render("login.html", services, status=status, error=error)


def render(name: str, services: Services, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Fill in a page."""
    text = _templates.get_template(name).render(
        simulated=services.settings.uses_simulator, environment=services.settings.app_env, **values
    )
    return HTMLResponse(text, status)


def _mine(session: Session, who: Principal) -> dict[str, Any]:
    items = content.list_visible(session, who.user_id, Filter(mine=True), limit=_PICTURES)
    images = content.images_of(session, items)
    jobs = generation.list_for(session, who.user_id, statuses=tuple(UNFINISHED), limit=_JOBS)
    places = generation.queue_positions(session, jobs)
    return {
        "pictures": [
            _picture(item, image)
            for item in (shown(item, images[item.id], who.user_id) for item in items)
            for image in item["images"]
        ],
        "jobs": [{**generation.public(job), "place": places.get(job.id)} for job in jobs],
        "unread": notifications.unread_count(session, who.user_id),
    }


def _picture(item: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """Choose the smallest thumbnail that is large enough, or the picture itself."""
    sizes = {int(size): made for size, made in image["thumbnails"].items()}
    large_enough = [size for size in sorted(sizes) if size >= _THUMBNAIL_EDGE]
    small = sizes[large_enough[0]] if large_enough else image
    return {
        "title": item["title"],
        "private": item["is_private"],
        "url": image["url"],
        "source": small["url"],
        "width": small["width"],
        "height": small["height"],
    }
