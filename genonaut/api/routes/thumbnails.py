"""Send thumbnails, have those made that are missing, and show where they stand."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_thumbnails as answers
from genonaut.api import files, thumbnails
from genonaut.api.answers import READING, Documented, problems
from genonaut.api.deps import CallerDep, Id, ServicesDep
from genonaut.api.files import Picture
from genonaut.api.routes.content import PICTURE, Position
from genonaut.core.errors import NotFoundError
from genonaut.core.thumbnails import ThumbSpec
from genonaut.db.models import ContentImage
from genonaut.domain import content, orphans, runs, thumbnail_counts
from genonaut.domain import thumbnails as rules
from genonaut.domain.runs import Trigger
from genonaut.domain.users import Role
from genonaut.worker import task as tasks

router = APIRouter()

Size = Annotated[int, Path(ge=1, le=4096, description="Longer edge, pixels.")]
Version = Annotated[str | None, Query(max_length=64, description="As the item's URL has it.")]

_RETRY_AFTER_S = 2

_THUMBNAIL: Documented = {
    **PICTURE,
    202: {
        "content": {"image/svg+xml": {}},
        "description": "It is being made; a grey field of its shape meanwhile.",
        "headers": {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}},
    },
}


@router.head("/content/{content_id}/thumbnails/{size}", include_in_schema=False)
@router.get(
    "/content/{content_id}/thumbnails/{size}",
    tags=["content"],
    operation_id="readFirstThumbnail",
    response_class=Response,
    responses=_THUMBNAIL,
)
def first_thumbnail(
    request: Request,
    content_id: Id,
    size: Size,
    caller: CallerDep,
    services: ServicesDep,
    v: Version = None,
) -> Response:
    """Send a thumbnail of an item's first image."""
    return thumbnail(request, content_id, 0, size, caller, services, v)


@router.head("/content/{content_id}/images/{position}/thumbnails/{size}", include_in_schema=False)
@router.get(
    "/content/{content_id}/images/{position}/thumbnails/{size}",
    tags=["content"],
    operation_id="readThumbnail",
    response_class=Response,
    responses=_THUMBNAIL,
)
def thumbnail(
    request: Request,
    content_id: Id,
    position: Position,
    size: Size,
    caller: CallerDep,
    services: ServicesDep,
    v: Version = None,
) -> Response:
    """Send a thumbnail as WebP, AVIF or JPEG, whichever there is that `Accept` likes best.

    It may be made anew, so only the versioned URL is kept for long. One that every image should
    have and this one lacks, or whose file is lost, is made now: 202, and a placeholder.
    """
    settings = services.settings
    usual = rules.standard(settings.thumbnail_sizes, settings.thumbnail_formats)
    with caller.transaction() as (session, who):
        row = content.visible_image(session, who.user_id, content_id, position)
        sized = thumbnails.by_size(row).get(size)
        if sized is None:
            _have_made(session, row, size, usual)
    if sized is None:
        return _placeholder(row, size)
    mime, made = sized.best(request.headers.get("accept"))
    name, _, extension = made["key"].rpartition("/")[2].partition(".")
    picture = Picture(
        storage_key=made["key"],
        etag=name,
        mime=mime,
        filename=f"genonaut-{content_id}-{position}-{size}.{extension}",
        immutable=v == sized.version,
        varies_by_type=True,
    )

    def is_lost() -> Response:
        with caller.transaction() as (session, who):
            row = content.visible_image(session, who.user_id, content_id, position)
            orphans.want_again(session, [row.id])
            _have_made(session, row, size, usual)
        return _placeholder(row, size)

    return files.respond(services.shelf, picture, request.headers, request.method, absent=is_lost)


def _placeholder(row: ContentImage, size: int) -> Response:
    headers = {"Retry-After": str(_RETRY_AFTER_S), "Cache-Control": "no-store"}
    return Response(thumbnails.placeholder(row, size), 202, headers, "image/svg+xml")


def _have_made(session: Session, row: ContentImage, size: int, usual: ThumbSpec) -> None:
    """Have a picture's thumbnails made, once however many ask.

    Raises: NotFoundError: no picture has that size, or this one's thumbnails cannot be made.
    """
    if size not in usual.sizes:
        raise NotFoundError("there is no thumbnail of that size")
    if row.thumb_error is not None:
        raise NotFoundError("the thumbnails of this image cannot be made")
    task = tasks.find(rules.MAKE_ONE)
    wanted = task.validate({"image_id": row.id})
    runs.trigger(session, task.request(wanted, trigger=Trigger.SYSTEM))


@router.get(
    "/admin/thumbnails",
    tags=["operations"],
    operation_id="readThumbnailState",
    responses={200: {"model": answers.ThumbnailState}, **READING, **problems(403)},
)
def read_state(caller: CallerDep) -> Response:
    """Count the images by the state of their thumbnails, and by the settings that made them."""
    settings = caller.services.settings
    usual = rules.standard(settings.thumbnail_sizes, settings.thumbnail_formats)
    with caller.transaction(role=Role.AUDITOR) as (session, _):
        counts = thumbnail_counts.count(session, usual)
    return JSONResponse(counts.public())
