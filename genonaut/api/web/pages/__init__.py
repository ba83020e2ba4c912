"""One module for each group of pages; :func:`install` puts them all in."""

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from genonaut.api import errors
from genonaut.api.web.pages import (
    console,
    console_runs,
    console_schedule_form,
    console_schedules,
    console_users,
    entrance,
    gallery,
    make,
    notifications,
    preferences,
)
from genonaut.api.web.rendering import ASSETS, htmx_folder
from genonaut.api.web.visitor import error_page

_ROUTERS = (
    entrance.router,
    make.router,
    gallery.router,
    notifications.router,
    preferences.router,
    console.router,
    console_runs.router,
    console_schedule_form.router,
    console_schedules.router,
    console_users.router,
)


def install(app: FastAPI) -> None:
    """Serve the pages and what they are made of; errors of addresses are shown as pages, too."""
    for router in _ROUTERS:
        app.include_router(router)
    app.mount("/assets/htmx", StaticFiles(directory=htmx_folder()), name="htmx")
    app.mount("/assets", StaticFiles(directory=ASSETS), name="assets")
    app.add_exception_handler(HTTPException, _http)


async def _http(request: Request, error: Exception) -> Response:
    is_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith(
        "/api/"
    )
    if is_page and isinstance(error, HTTPException) and error.status_code == 404:
        return error_page(request, 404, "There is nothing at this address.")
    return await errors.http(request, error)
