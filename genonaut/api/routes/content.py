"""Show what was made, send its pictures, and let its owner take it away."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Query, Request
from starlette.responses import JSONResponse, Response

from genonaut.api import answers, files, pagination, thumbnails
from genonaut.api.answers import CHANGING, READING, Documented, problems
from genonaut.api.deps import CallerDep, Id, Services, ServicesDep
from genonaut.api.files import Picture
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.requests import Day
from genonaut.core.errors import GenonautError, InvalidInputError
from genonaut.db.session import on_commit
from genonaut.domain import content, interactions, orphans
from genonaut.domain.content import Filter, ShownImage, ShownItem, Unused
from genonaut.domain.interactions import Opinion

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/content", tags=["content"])

Position = Annotated[int, Path(ge=0, le=999, description="From 0, in batch order.")]

_METADATA = ("model", "seed", "steps", "cfg", "sampler_name", "scheduler", "width", "height")

PICTURE: Documented = {
    200: {"content": {"image/*": {}}, "description": "The picture."},
    206: {"content": {"image/*": {}}, "description": "The range asked for."},
    304: {"description": "The client has it already."},
    **READING,
    **problems(404, 416),
}


@router.get(
    "",
    operation_id="listContent",
    responses={200: {"model": answers.ContentPage}, **READING},
)
def list_content(
    request: Request,
    caller: CallerDep,
    mine: Annotated[bool, Query(description="One's own only.")] = False,
    liked: Annotated[bool, Query(description="What one likes only.")] = False,
    model: Annotated[str | None, Query(max_length=255, description="Checkpoint.")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Part of the prompt.")] = None,
    since: Annotated[Day | None, Query(description="First day, UTC.")] = None,
    until: Annotated[Day | None, Query(description="Last day, UTC; it counts in full.")] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List public items and one's own, newest first."""
    before = pagination.decode(cursor)
    for name, value in (("model", model), ("q", q)):
        if value is not None and "\0" in value:
            raise InvalidInputError("must not contain NUL characters", field=name)
    with caller.transaction() as (session, who):
        wanted = Filter(mine=mine, liked=liked, model=model, text=q, since=since, until=until)
        items = content.list_visible(session, who.user_id, wanted, before=before, limit=limit + 1)
        images = content.images_of(session, items)
        opinions = interactions.opinions(session, who.user_id, images)
    return pagination.page(
        request,
        items,
        limit,
        lambda item: shown(item, images[item.id], who.user_id, opinions[item.id]),
    )


@router.get(
    "/{content_id}",
    operation_id="readContent",
    responses={200: {"model": answers.Content}, **READING, **problems(404)},
)
def read(content_id: Id, caller: CallerDep) -> Response:
    """Read an item one may see."""
    with caller.transaction() as (session, who):
        item = content.visible(session, who.user_id, content_id)
        images = content.images_of(session, [item])[item.id]
        opinion = interactions.opinions(session, who.user_id, [item.id])[item.id]
    return JSONResponse(shown(item, images, who.user_id, opinion))


@router.delete(
    "/{content_id}",
    status_code=204,
    operation_id="deleteContent",
    responses={**CHANGING, **problems(404)},
)
def delete(content_id: Id, caller: CallerDep, services: ServicesDep) -> Response:
    """Delete one's own item, its images and their files."""
    with caller.transaction() as (session, who):
        unused = content.delete_own(session, who.user_id, content_id)
        on_commit(session, lambda: _remove(services, unused))
    return Response(status_code=204)


@router.head("/{content_id}/images/{position}", include_in_schema=False)
@router.get(
    "/{content_id}/images/{position}",
    operation_id="readImage",
    response_class=Response,
    responses=PICTURE,
)
def image(
    request: Request, content_id: Id, position: Position, caller: CallerDep, services: ServicesDep
) -> Response:
    """Send a picture. It never changes, so it may be kept; `Range` and `If-None-Match` work."""
    with caller.transaction() as (session, who):
        row = content.visible_image(session, who.user_id, content_id, position)
    picture = Picture(
        storage_key=row.storage_key,
        etag=row.sha256,
        mime=row.mime,
        filename=f"genonaut-{content_id}-{position}{PurePosixPath(row.storage_key).suffix}",
        immutable=True,
    )
    return files.respond(services.shelf, picture, request.headers, request.method)


def shown(
    item: ShownItem, images: Sequence[ShownImage], user_id: UUID, opinion: Opinion
) -> dict[str, Any]:
    """Give what a user who may see an item sees of it, and their opinion."""
    return {
        "id": item.id,
        "title": item.title,
        "prompt": item.prompt,
        "creator_id": str(item.creator_id),
        "is_mine": item.creator_id == user_id,
        "is_private": item.is_private,
        "quality_score": item.quality_score,
        "liked": opinion.liked,
        "rating": opinion.rating,
        "metadata": _shown_metadata(item.item_metadata),
        "created_at": item.created_at.isoformat(),
        "images": [shown_image(image) for image in images],
    }


def _shown_metadata(found: object) -> dict[str, str | int | float]:
    """Choose what may be known of a picture's making; where it was drawn is nobody's business."""
    if not isinstance(found, dict):  # items of before the merge hold any JSON
        return {}
    chosen = {name: found[name] for name in _METADATA if name in found}
    return {name: value for name, value in chosen.items() if isinstance(value, str | int | float)}


def shown_image(image: ShownImage) -> dict[str, Any]:
    """Give what a user who may see an image sees of it."""
    url = f"/api/v1/content/{image.content_id}/images/{image.position}"
    return {
        "position": image.position,
        "url": url,
        "mime": image.mime,
        "width": image.width,
        "height": image.height,
        "bytes": image.bytes,
        "sha256": image.sha256,
        "thumbnails": thumbnails.shown(image, url),
    }


def _remove(services: Services, unused: list[Unused]) -> None:
    """Remove files no row names; what fails, or was put again meanwhile, is left to the sweep."""
    for file in unused:
        try:
            with services.database.transaction() as session:
                orphans.remove(
                    session, services.storage, [file.storage_key], not_after=file.made_at
                )
        except GenonautError as error:
            log.warning("file_not_removed", key=file.storage_key, error=str(error))
