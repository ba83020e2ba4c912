"""Ask for pictures and watch them appear."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.responses import Response

from genonaut.api.deps import MAX_ID, Id
from genonaut.api.routes import generation_jobs
from genonaut.api.routes.content import shown
from genonaut.api.web import making
from genonaut.api.web.making import Filled
from genonaut.api.web.pictures import tile
from genonaut.api.web.rendering import toast
from genonaut.api.web.visitor import FormDep, PageRoute, View, Visitor, VisitorDep
from genonaut.core.errors import InvalidInputError, RateLimitedError
from genonaut.db.models import GenerationJob
from genonaut.domain import content, generation, interactions, timelines
from genonaut.domain.lifecycle import FINAL, UNFINISHED

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_UNFINISHED_SHOWN = 100
_ENDED_SHOWN = 40
_DAY = timedelta(hours=24)


@router.get("/")
def make(
    visitor: VisitorDep, like: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None
) -> Response:
    """Show the form, with the settings used last or those of the job ``like``, and the jobs."""
    return _page(visitor, like=like)


@router.get("/make")
def back(visitor: VisitorDep) -> Response:
    """Lead who comes back to a form that was shown again to the page it is of."""
    return visitor.lead("/")


@router.post("/make")
def submit(form: FormDep) -> Response:
    """Ask for pictures; what does not fit is told beside its field, and nothing typed is lost.

    Who asks for room for another LoRA is shown the form again, with what was typed.
    """
    filled = making.from_form(form)
    visitor = form.visitor
    if form.has("another_lora"):
        return _page(visitor, filled=filled)
    try:
        generation_jobs.create(making.request_of(filled), visitor.caller, visitor.services)
    except ValidationError as error:
        return _again(visitor, filled, making.wrongs(error), 422)
    except (InvalidInputError, RateLimitedError) as error:
        wrong = making.wrong_field(error.field, str(error))
        return _again(visitor, filled, wrong, error.http_status)
    return visitor.lead("/", "Asked for. It appears here when it is done.")


@router.get("/jobs/{job_id}")
def job(job_id: Id, visitor: VisitorDep, *, listed: bool = False) -> Response:
    """Show one's own job and tell its story; ``listed`` is asked for the card of a list."""
    with visitor.look() as view:
        found = generation.owned(view.session, view.who.user_id, job_id)
        card = _cards(view, [found])[0]
        story = timelines.tell(view.session, found)
    return visitor.show("job.html", view, active="make", job=card, story=story, listed=listed)


@router.post("/jobs/{job_id}/cancel")
def cancel(job_id: Id, form: FormDep) -> Response:
    """Cancel a job."""
    answer = generation_jobs.cancel(job_id, form.visitor.caller)
    told = "Cancelled." if answer.status_code == 200 else "Stopping; this takes a moment."
    return form.visitor.lead(f"/jobs/{job_id}" + "?listed=1" * form.has("listed"), told)


@router.post("/jobs/{job_id}/retry")
def retry(job_id: Id, form: FormDep) -> Response:
    """Repeat a failed or cancelled job."""
    visitor = form.visitor
    generation_jobs.retry(job_id, visitor.caller, visitor.services)
    return visitor.lead("/", "Asked for again.")


def _again(visitor: Visitor, filled: Filled, errors: dict[str, str], status: int) -> Response:
    refused = Filled(filled.values, filled.loras, filled.is_private, errors)
    response = _page(visitor, filled=refused, status=status)
    # To htmx: the form takes the place of the form, and not of the list it aims at.
    response.headers["HX-Retarget"] = response.headers["HX-Reselect"] = "#make-form"
    response.headers.update(toast("Not asked for: " + " ".join(errors.values()), "error"))
    return response


def _page(
    visitor: Visitor, *, like: int | None = None, filled: Filled | None = None, status: int = 200
) -> Response:
    options = visitor.caller.options()
    with visitor.look() as view:
        if filled is None:
            filled = _prefilled(view, like)
        jobs = _jobs(view)
    return visitor.show(
        "make.html",
        view,
        active="make",
        status=status,
        jobs=jobs,
        form=filled,
        options=options,
        sizes=making.SIZES,
        loras_max=making.LORAS_MAX,
    )


def _prefilled(view: View, like: int | None) -> Filled:
    session, user_id = view.session, view.who.user_id
    if like is not None:
        wanted = generation.owned(session, user_id, like)
        return making.from_job(generation.public(wanted), whole=True)
    newest = generation.list_for(session, user_id, limit=1)
    return making.from_job(generation.public(newest[0]) if newest else None, whole=False)


def _jobs(view: View) -> list[dict[str, Any]]:
    """Give what is unfinished, then what has ended and was asked for within a day."""
    session, user_id = view.session, view.who.user_id
    unfinished = generation.list_for(
        session, user_id, statuses=tuple(UNFINISHED), limit=_UNFINISHED_SHOWN
    )
    ended = generation.list_for(session, user_id, statuses=tuple(FINAL), limit=_ENDED_SHOWN)
    since = datetime.now(UTC) - _DAY
    return _cards(view, [*unfinished, *(one for one in ended if one.created_at > since)])


def _cards(view: View, jobs: list[GenerationJob]) -> list[dict[str, Any]]:
    session, user_id = view.session, view.who.user_id
    places = generation.queue_positions(session, jobs)
    wanted = {one.content_id for one in jobs if one.content_id is not None}
    items = content.visible_among(session, user_id, wanted)
    images = content.images_of(session, items)
    opinions = interactions.opinions(session, user_id, images)
    pictures = {}
    for item in items:
        answer = shown(item, images[item.id], user_id, opinions[item.id])
        pictures[item.id] = [tile(answer, image) for image in answer["images"]]
    return [
        {
            **generation.public(one),
            "place": places.get(one.id),
            "pictures": pictures.get(one.content_id or 0, []),
        }
        for one in jobs
    ]
