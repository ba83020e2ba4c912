"""Look at pictures, like and rate them, and find more like them."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import select
from starlette.responses import Response

from genonaut.api.deps import Id, ServicesDep
from genonaut.api.requests import Day
from genonaut.api.requests_recommendations import InteractionRequest
from genonaut.api.routes import content as content_routes
from genonaut.api.routes import recommendations as recommendation_routes
from genonaut.api.routes.content import shown
from genonaut.api.web import lists
from genonaut.api.web.checking import FormError, check
from genonaut.api.web.pictures import tiles
from genonaut.api.web.visitor import Form, FormDep, PageRoute, View, VisitorDep, own_path
from genonaut.core.errors import InvalidInputError
from genonaut.db.models import ContentItem, GenerationJob
from genonaut.domain import content, generation, interactions, recommendation_lists, users
from genonaut.domain.content import Filter

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_ASKED = ("q", "model", "since", "until", "mine", "liked")
_PAGE = 24
_FOR_YOU = 6
_MODELS = 100


class _Days(BaseModel):
    """The days that the gallery may be narrowed to."""

    since: Day | None
    until: Day | None


@router.get("/gallery")
def gallery(request: Request, visitor: VisitorDep) -> Response:
    """Show a page of pictures, newest first; before the first, what the visitor might like."""
    asked = {name: lists.asked(request, name, longest=255) for name in _ASKED}
    before = lists.before(request)
    wanted, errors = _wanted(asked)
    items: list[ContentItem] = []
    with visitor.look() as view:
        if not errors:
            items = content.list_visible(
                view.session, view.who.user_id, wanted, before=before, limit=_PAGE + 1
            )
        items, following = lists.split(request, items, _PAGE)
        pictures = tiles(_answers(view, items))
        is_plain = wanted == Filter() and not errors
        suggested = _for_you(view) if is_plain and before is None else []
    options = visitor.services.options.get(wait_s=0)
    return visitor.show(
        "gallery.html",
        view,
        active="gallery",
        status=422 if errors else 200,
        pictures=pictures,
        following=following,
        suggested=suggested,
        asked=asked,
        models=options.checkpoints[:_MODELS] if options else (),
        errors=errors,
        is_plain=is_plain and before is None,
        is_liked=wanted == Filter(liked=True) and before is None,
        here=f"{request.url.path}?{request.url.query}",
    )


def _wanted(asked: dict[str, str]) -> tuple[Filter, dict[str, str]]:
    """Read what was asked for, and say what is wrong with which field."""
    try:
        days = check(_Days, {name: asked[name] or None for name in _Days.model_fields})
        return Filter(
            mine=asked["mine"] == "1",
            liked=asked["liked"] == "1",
            model=asked["model"] or None,
            text=asked["q"] or None,
            since=days.since,
            until=days.until,
        ), {}
    except FormError as error:
        return Filter(), error.errors
    except InvalidInputError as error:
        return Filter(), {error.field or "": str(error)}


def _answers(view: View, items: list[ContentItem]) -> list[dict[str, Any]]:
    images = content.images_of(view.session, items)
    opinions = interactions.opinions(view.session, view.who.user_id, images)
    return [shown(item, images[item.id], view.who.user_id, opinions[item.id]) for item in items]


def _for_you(view: View) -> list[dict[str, Any]]:
    places = recommendation_lists.read(view.session, view.who.user_id, limit=_FOR_YOU)
    recommendation_lists.mark_served(view.session, view.who.user_id, places)
    words = {place.item.id: place.words for place in places}
    viewer_id = view.who.user_id
    found = tiles([shown(one.item, one.images, viewer_id, one.opinion) for one in places])
    return [{**one, "words": words[one["id"]]} for one in found]


@router.get("/pictures/{content_id}")
def picture(content_id: Id, visitor: VisitorDep) -> Response:
    """Show an item: its images, what made it, and what one thinks of it."""
    with visitor.look() as view:
        item = content.visible(view.session, view.who.user_id, content_id)
        [answer] = _answers(view, [item])
        stands = interactions.standing(view.session, view.who.user_id, content_id)
        newer, older = _neighbours(view, content_id)
        job = _job(view, content_id)
        is_own_job = job is not None and job.user_id == view.who.user_id
        author = users.name_of(view.session, item.creator_id)
    return visitor.show(
        "picture.html",
        view,
        active="gallery",
        item=answer,
        stands=stands,
        newer=newer,
        older=older,
        parameters=_parameters(answer, job),
        job_id=job.id if job is not None and is_own_job else None,
        author=author,
    )


def _neighbours(view: View, content_id: int) -> tuple[int | None, int | None]:
    seen = select(ContentItem.id).where(content.visible_to(view.who.user_id)).limit(1)
    newer = seen.where(ContentItem.id > content_id).order_by(ContentItem.id)
    older = seen.where(ContentItem.id < content_id).order_by(ContentItem.id.desc())
    return view.session.scalar(newer), view.session.scalar(older)


def _job(view: View, content_id: int) -> GenerationJob | None:
    return view.session.scalar(select(GenerationJob).where(GenerationJob.content_id == content_id))


def _parameters(item: dict[str, Any], job: GenerationJob | None) -> dict[str, Any]:
    """Give what made an item: by its job, or as it was read when it was brought in."""
    found: dict[str, Any] = dict(item["metadata"])
    if job is not None:
        made = generation.public(job)
        if made["has_workflow"]:
            return {"workflow": "one of its author's", **found}
        loras = [f"{one['name']} ({one.get('strength_model', 1)})" for one in made["lora_models"]]
        found |= {
            "negative_prompt": made["negative_prompt"],
            "model": made["checkpoint_model"],
            "LoRAs": ", ".join(loras),
            **made["sampler_params"],
        }
    return {name: value for name, value in found.items() if value not in (None, "")}


@router.post("/pictures/{content_id}/like")
def like(content_id: Id, form: FormDep) -> Response:
    """Like a picture, or take it back; leads back to where one was."""
    kind = "unlike" if form.get("liked") == "1" else "like"
    _record(form, content_id, InteractionRequest(kind=kind))  # type: ignore[arg-type]
    return form.visitor.lead(own_path(form.get("back"), f"/pictures/{content_id}"))


@router.post("/pictures/{content_id}/rate")
def rate(content_id: Id, form: FormDep) -> Response:
    """Give a picture one to five stars.

    Leads back to where one was; to htmx in a grid it answers the picture's stars alone.
    """
    stars = form.get("rating")
    if stars not in set("12345"):
        raise InvalidInputError("choose one to five stars", field="rating")
    _record(form, content_id, InteractionRequest(kind="rate", rating=int(stars)))
    back = form.get("back")
    if not form.has("piece"):
        return form.visitor.lead(own_path(back, f"/pictures/{content_id}"), "Rated.")
    with form.visitor.look() as view:
        item = content.visible(view.session, view.who.user_id, content_id)
        return form.visitor.show(
            "rating.html", view, active="gallery", item=item, stars=int(stars), back=back
        )


@router.post("/pictures/{content_id}/noted")
def noted(content_id: Id, form: FormDep) -> Response:
    """Take down that a picture was looked at for a moment, or downloaded.

    The page's script tells it, since to read a page must change nothing: browsers fetch ahead.
    """
    kind = "download" if form.get("kind") == "download" else "view"
    _record(form, content_id, InteractionRequest(kind=kind))  # type: ignore[arg-type]
    return Response(status_code=204)


def _record(form: Form, content_id: int, asked: InteractionRequest) -> None:
    recommendation_routes.record(content_id, asked, form.visitor.caller)


@router.post("/pictures/{content_id}/delete")
def delete(content_id: Id, form: FormDep, services: ServicesDep) -> Response:
    """Delete one's own picture, with its files."""
    content_routes.delete(content_id, form.visitor.caller, services)
    return form.visitor.lead("/gallery", "The picture is deleted.")


@router.post("/pictures/{content_id}/dismiss")
def dismiss(content_id: Id, form: FormDep) -> Response:
    """Never suggest a picture again."""
    recommendation_routes.dismiss(content_id, form.visitor.caller)
    return form.visitor.lead("/gallery", "It will not be suggested again.")


@router.post("/pictures/{content_id}/recall")
def recall(content_id: Id, form: FormDep) -> Response:
    """Let a picture be suggested again."""
    recommendation_routes.recall(content_id, form.visitor.caller)
    return form.visitor.lead(f"/pictures/{content_id}", "It may be suggested again.")
