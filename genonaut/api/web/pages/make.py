"""Ask for pictures and watch them appear."""

from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from genonaut.api.routes.content import shown
from genonaut.api.web.pictures import tiles
from genonaut.api.web.visitor import PageRoute, View, VisitorDep
from genonaut.domain import content, generation
from genonaut.domain.content import Filter
from genonaut.domain.lifecycle import UNFINISHED

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_PICTURES = 48
_JOBS = 20


@router.get("/")
def make(visitor: VisitorDep) -> Response:
    """Show what is in the works, and the newest pictures."""
    with visitor.look() as view:
        jobs, pictures = _jobs(view), _pictures(view)
    return visitor.show("make.html", view, active="make", jobs=jobs, pictures=pictures)


def _jobs(view: View) -> list[dict[str, Any]]:
    session = view.session
    jobs = generation.list_for(session, view.who.user_id, statuses=tuple(UNFINISHED), limit=_JOBS)
    places = generation.queue_positions(session, jobs)
    return [{**generation.public(job), "place": places.get(job.id)} for job in jobs]


def _pictures(view: View) -> list[dict[str, Any]]:
    items = content.list_visible(view.session, view.who.user_id, Filter(mine=True), limit=_PICTURES)
    images = content.images_of(view.session, items)
    answers = [shown(item, images[item.id], view.who.user_id) for item in items]
    return tiles(answers)
