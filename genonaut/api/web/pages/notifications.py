"""Read what one was told, and go to what it is about."""

import json
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from genonaut.api.deps import Id
from genonaut.api.requests_notifications import ReadRequest
from genonaut.api.routes import notifications as routes
from genonaut.api.web import lists
from genonaut.api.web.visitor import FormDep, PageRoute, VisitorDep
from genonaut.domain import notifications

router = APIRouter(prefix="/notifications", include_in_schema=False, route_class=PageRoute)

_PAGE = 30
_HERE = "/notifications"


@router.get("")
def inbox(request: Request, visitor: VisitorDep) -> Response:
    """List notifications, newest first."""
    unread = lists.asked(request, "unread") == "1"
    before = lists.before(request)
    with visitor.look() as view:
        rows = notifications.list_for(
            view.session, view.who.user_id, unread=unread, before=before, limit=_PAGE + 1
        )
        rows, following = lists.split(request, rows, _PAGE)
        notices = [notifications.public(row) for row in rows]
    return visitor.show(
        "notifications.html",
        view,
        active="notifications",
        notices=[{**one, "leads": _place(one["data"]) is not None} for one in notices],
        following=following,
        only_unread=unread,
    )


def _place(data: Any) -> str | None:
    """Say where the page is that a notice is about."""
    if not isinstance(data, dict):
        return None
    if content_id := data.get("content_id"):
        return f"/pictures/{content_id}"
    if job_id := data.get("job_id"):
        return f"/jobs/{job_id}"
    if run_id := data.get("run_id"):
        return f"/console/runs/{run_id}"
    return "/gallery" if data.get("content_ids") else None


@router.post("/{notification_id}/open")
def open_notice(notification_id: Id, form: FormDep) -> Response:
    """Mark a notice read and lead to what it is about.

    It is a form and no link, since to follow a link must change nothing.
    """
    answer = routes.mark(notification_id, ReadRequest(read=True), form.visitor.caller)
    return form.visitor.lead(_place(json.loads(bytes(answer.body))["data"]) or _HERE)


@router.post("/read-all")
def read_all(form: FormDep) -> Response:
    """Mark all read."""
    routes.read_all(form.visitor.caller)
    return form.visitor.lead(_HERE, "All are read.")


@router.post("/{notification_id}/mark")
def mark(notification_id: Id, form: FormDep) -> Response:
    """Mark one read or unread."""
    routes.mark(notification_id, ReadRequest(read=form.get("read") == "1"), form.visitor.caller)
    return form.visitor.lead(_HERE)


@router.post("/{notification_id}/delete")
def delete(notification_id: Id, form: FormDep) -> Response:
    """Delete one."""
    routes.delete(notification_id, form.visitor.caller)
    return form.visitor.lead(_HERE, "The notification is deleted.")
