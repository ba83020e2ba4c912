"""Show a user what happened."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from genonaut.api import answers, answers_notifications, pagination
from genonaut.api.answers import CHANGING, POSTING, READING, problems
from genonaut.api.deps import CallerDep, Id
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.requests_notifications import ReadRequest
from genonaut.domain import deliveries, notifications
from genonaut.domain.kinds import Kind

router = APIRouter(prefix="/notifications", tags=["notifications"])


@router.get(
    "",
    operation_id="listNotifications",
    responses={200: {"model": answers.NotificationPage}, **READING},
)
def list_notifications(
    request: Request,
    caller: CallerDep,
    unread: Annotated[bool, Query(description="Unread ones only.")] = False,
    kind: Annotated[list[Kind] | None, Query(description="Any of these.")] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List one's notifications, newest first."""
    before = pagination.decode(cursor)
    with caller.transaction() as (session, who):
        rows = notifications.list_for(
            session,
            who.user_id,
            unread=unread,
            kinds=kind or (),
            before=before,
            limit=limit + 1,
        )
    return pagination.page(request, rows, limit, notifications.public)


@router.get(
    "/unread-count",
    operation_id="countUnreadNotifications",
    responses={200: {"model": answers.Count}, **READING},
)
def unread_count(caller: CallerDep) -> Response:
    """Count one's unread notifications."""
    with caller.transaction() as (session, who):
        count = notifications.unread_count(session, who.user_id)
    return JSONResponse({"count": count})


@router.post(
    "/read-all",
    operation_id="readAllNotifications",
    responses={200: {"model": answers.Count}, **CHANGING},
)
def read_all(caller: CallerDep) -> Response:
    """Mark every notification read; answers how many were unread."""
    with caller.transaction(in_turn=True) as (session, who):
        count = notifications.mark_all_read(session, who.user_id)
    return JSONResponse({"count": count})


@router.get(
    "/{notification_id}",
    operation_id="readNotification",
    responses={200: {"model": answers.Notification}, **READING, **problems(404)},
)
def read(notification_id: Id, caller: CallerDep) -> Response:
    """Read a notification; it stays unread."""
    with caller.transaction() as (session, who):
        row = notifications.one(session, who.user_id, notification_id)
    return JSONResponse(notifications.public(row))


@router.get(
    "/{notification_id}/deliveries",
    operation_id="listNotificationDeliveries",
    responses={
        200: {"model": answers_notifications.DeliveryList},
        **READING,
        **problems(404),
    },
)
def list_deliveries(notification_id: Id, caller: CallerDep) -> Response:
    """List the messages that carry a notification, and how they went."""
    with caller.transaction() as (session, who):
        rows = deliveries.of_notification(session, who.user_id, notification_id)
    return JSONResponse({"items": [deliveries.public(row) for row in rows]})


@router.put(
    "/{notification_id}",
    operation_id="markNotification",
    responses={200: {"model": answers.Notification}, **POSTING, **problems(404)},
)
def mark(notification_id: Id, body: ReadRequest, caller: CallerDep) -> Response:
    """Mark a notification read or unread."""
    with caller.transaction(in_turn=True) as (session, who):
        row = notifications.mark(session, who.user_id, notification_id, read=body.read)
    return JSONResponse(notifications.public(row))


@router.delete(
    "/{notification_id}",
    status_code=204,
    operation_id="deleteNotification",
    responses={**CHANGING, **problems(404)},
)
def delete(notification_id: Id, caller: CallerDep) -> Response:
    """Delete a notification."""
    with caller.transaction(in_turn=True) as (session, who):
        notifications.delete(session, who.user_id, notification_id)
    return Response(status_code=204)
