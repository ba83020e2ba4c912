"""Show operators what was sent and how the channels do; let them send again and announce."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_notifications as answers
from genonaut.api import pagination, repeats
from genonaut.api.answers import CHANGING, POSTING, READING, Count, problems
from genonaut.api.deps import CallerDep, Id
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.repeats import KeyHeader
from genonaut.api.requests import storable
from genonaut.api.requests_notifications import AnnouncementRequest
from genonaut.domain import deliveries, delivery_health, notifications, users
from genonaut.domain.deliveries import Wanted
from genonaut.domain.idempotency import Answer
from genonaut.domain.lifecycle import Status
from genonaut.domain.users import Role
from genonaut.worker import discovery

router = APIRouter(prefix="/admin", tags=["notifications"])

Name = Annotated[str, AfterValidator(storable)]


@router.get(
    "/deliveries",
    operation_id="listDeliveries",
    responses={200: {"model": answers.AdminDeliveryPage}, **READING, **problems(403)},
)
def list_deliveries(
    request: Request,
    caller: CallerDep,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    channel: Annotated[Name | None, Query(description="Over this channel only.")] = None,
    user_id: Annotated[UUID | None, Query(description="To this user only.")] = None,
    notification_id: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List everyone's messages, newest first; where they go is not shown."""
    before = pagination.decode(cursor)
    wanted = Wanted(status or (), channel, user_id, notification_id)
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        found = deliveries.list_all(session, wanted, before=before, limit=limit + 1)
    return pagination.page(request, found, limit, deliveries.public_to_operators)


@router.get(
    "/deliveries/{delivery_id}",
    operation_id="readDelivery",
    responses={200: {"model": answers.AdminDelivery}, **READING, **problems(403, 404)},
)
def read(delivery_id: Id, caller: CallerDep) -> Response:
    """Read how a message went."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        row = deliveries.one(session, delivery_id)
    return JSONResponse(deliveries.public_to_operators(row))


@router.post(
    "/deliveries/{delivery_id}/redeliver",
    status_code=202,
    operation_id="redeliver",
    responses={202: {"model": answers.AdminDelivery}, **CHANGING, **problems(403, 404, 409)},
)
def redeliver(delivery_id: Id, caller: CallerDep, key: KeyHeader = None) -> Response:
    """Send a message that has ended once more, under the same message id."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):

        def make() -> tuple[Answer, dict[str, str]]:
            row = deliveries.redeliver(session, delivery_id)
            users.audit(
                session, who, "delivery.redeliver", f"delivery:{row.id}", {"of": delivery_id}
            )
            location = f"/api/v1/admin/deliveries/{row.id}"
            return Answer(202, location, deliveries.public_to_operators(row)), {}

        asked = {"delivery_id": delivery_id}
        return repeats.once(session, who, key, act="delivery.redeliver", asked=asked, make=make)


@router.get(
    "/delivery-health",
    operation_id="readDeliveryHealth",
    responses={200: {"model": answers.DeliveryHealth}, **READING, **problems(403)},
)
def health(caller: CallerDep) -> Response:
    """Read how each channel does: what waits, what failed lately, which addresses rest."""
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        counted = delivery_health.by_channel(session)
    shown: dict[str, Any] = {}
    for name, channel in discovery.channels().items():
        if channel.has_addresses:
            why_not = channel.why_not(caller.services.settings)
            told = counted.get(name) or delivery_health.nothing()
            shown[name] = {"configured": why_not is None, "reason": why_not, **told}
    return JSONResponse({"channels": shown})


@router.post(
    "/notifications",
    status_code=201,
    operation_id="announce",
    responses={201: {"model": Count}, **POSTING, **problems(403, 404, 409)},
)
def announce(body: AnnouncementRequest, caller: CallerDep, key: KeyHeader = None) -> Response:
    """Tell one user, or everyone, something; answers how many are told."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):

        def make() -> tuple[Answer, dict[str, str]]:
            count = notifications.announce(session, body.username, title=body.title, body=body.body)
            details = {"title": body.title, "users": count}
            users.audit(session, who, "notification.announce", body.username or "all", details)
            return Answer(201, None, {"count": count}), {}

        asked = body.model_dump()
        return repeats.once(session, who, key, act="notification.announce", asked=asked, make=make)
