"""Show what was made to those who may see it, and let its owner take it away."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple, TypeAlias, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Table,
    delete,
    exists,
    func,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from genonaut.core.errors import ForbiddenError, InvalidInputError, NotFoundError
from genonaut.db.models import ContentImage, ContentItem, GenerationJob, UserInteraction


class Item(NamedTuple):
    """What is shown of an item: on hot ways making an object of a row takes longer than reading."""

    id: int
    title: str
    prompt: str | None
    creator_id: UUID
    is_private: bool
    quality_score: float | None
    item_metadata: dict[str, Any]
    created_at: datetime


class Picture(NamedTuple):
    """What is shown of an image."""

    content_id: int
    position: int
    mime: str
    width: int
    height: int
    bytes: int
    sha256: str
    thumbnails: dict[str, Any]


ShownItem: TypeAlias = ContentItem | Item
ShownImage: TypeAlias = ContentImage | Picture

_ITEMS = cast(Table, ContentItem.__table__)
_IMAGES = cast(Table, ContentImage.__table__)
_ENDLESS = {
    "infinity": datetime.max.replace(tzinfo=UTC),
    "-infinity": datetime.min.replace(tzinfo=UTC),
}


@dataclass(frozen=True, slots=True)
class Unused:
    """A stored file that no row names any more, and when its row was made.

    A file put again since then (same bytes, same key) belongs to a row that is about to be
    committed: leave it.
    """

    storage_key: str
    made_at: datetime


@dataclass(frozen=True, slots=True)
class Filter:
    """What to list.

    ``mine`` one's own only, ``liked`` what one likes, ``model`` a checkpoint, ``text`` in the
    prompt, ``since`` and ``until`` the first and the last day of its making, UTC.

    Raises: InvalidInputError: the last day is before the first.
    """

    mine: bool = False
    liked: bool = False
    model: str | None = None
    text: str | None = None
    since: date | None = None
    until: date | None = None

    def __post_init__(self) -> None:
        if self.since and self.until and self.until < self.since:
            raise InvalidInputError("must not be before the first day", field="until")


def visible_to(user_id: UUID) -> ColumnElement[bool]:
    """Say which items a user may see: public ones and their own, whatever their role."""
    return or_(~ContentItem.is_private, ContentItem.creator_id == user_id)


def list_visible(
    session: Session, user_id: UUID, wanted: Filter, *, before: int | None = None, limit: int = 50
) -> list[ContentItem]:
    """List what a user may see, newest first, older than the id ``before``."""
    own = ContentItem.creator_id == user_id
    query: Select[ContentItem] = select(ContentItem).where(
        own if wanted.mine else visible_to(user_id)
    )
    if wanted.liked:
        query = query.where(
            exists().where(
                UserInteraction.user_id == user_id,
                UserInteraction.content_id == ContentItem.id,
                UserInteraction.kind == "like",
                UserInteraction.times > 0,
            )
        )
    if wanted.model is not None:
        query = query.where(
            exists().where(
                GenerationJob.content_id == ContentItem.id,
                GenerationJob.checkpoint_model == wanted.model,
            )
        )
    if wanted.text:
        query = query.where(ContentItem.prompt.icontains(wanted.text, autoescape=True))
    if wanted.since is not None:
        query = query.where(ContentItem.created_at >= _begin(wanted.since))
    if wanted.until is not None and wanted.until < date.max:
        query = query.where(ContentItem.created_at < _begin(wanted.until + timedelta(days=1)))
    if before is not None:
        query = query.where(ContentItem.id < before)
    return list(session.scalars(query.order_by(ContentItem.id.desc()).limit(limit)))


def _begin(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def images_of(session: Session, items: Sequence[ContentItem]) -> dict[int, list[ContentImage]]:
    """Give the images of each item, in batch order."""
    images: dict[int, list[ContentImage]] = {item.id: [] for item in items}
    if images:
        rows = session.scalars(
            select(ContentImage)
            .where(ContentImage.content_id.in_(images))
            .order_by(ContentImage.content_id, ContentImage.position)
        )
        for row in rows:
            images[row.content_id].append(row)
    return images


def item_with_pictures() -> ColumnElement[Any]:
    """Give an item and its images, in batch order, as one JSON value of a query on items."""
    picture = func.json_build_array(*(_IMAGES.c[name] for name in Picture._fields))
    pictures = (
        select(func.json_agg(aggregate_order_by(picture, _IMAGES.c.position)))
        .where(_IMAGES.c.content_id == _ITEMS.c.id)
        .correlate_except(_IMAGES)
        .scalar_subquery()
    )
    return func.json_build_array(*(_ITEMS.c[name] for name in Item._fields), pictures)


def item_of(values: Sequence[Any]) -> tuple[Item, list[Picture]]:
    """Read what :func:`item_with_pictures` gave."""
    id_, title, prompt, creator_id, is_private, quality, metadata, created_at, pictures = values
    made_at = _ENDLESS.get(created_at) or datetime.fromisoformat(created_at)
    item = Item(id_, title, prompt, UUID(creator_id), is_private, quality, metadata, made_at)
    return item, [Picture(*picture) for picture in pictures or ()]


def visible(session: Session, user_id: UUID, content_id: int, *, hold: bool = False) -> ContentItem:
    """Give an item the user may see; with ``hold`` nobody can delete it before the commit.

    Raises: NotFoundError: it does not exist or is another user's private one.
    """
    query = select(ContentItem).where(ContentItem.id == content_id, visible_to(user_id))
    if hold:
        query = query.with_for_update(read=True, key_share=True)
    item = session.scalars(query).one_or_none()
    if item is None:
        raise NotFoundError("there is no such item")
    return item


def visible_among(session: Session, user_id: UUID, ids: Collection[int]) -> list[ContentItem]:
    """Give those of some items that the user may see, in no order."""
    if not ids:
        return []
    query = select(ContentItem).where(ContentItem.id.in_(ids), visible_to(user_id))
    return list(session.scalars(query))


def visible_image(session: Session, user_id: UUID, content_id: int, position: int) -> ContentImage:
    """Give one image of an item the user may see; positions begin with 0.

    Raises: NotFoundError: it does not exist or belongs to another user's private item.
    """
    image = session.scalars(
        select(ContentImage)
        .join(ContentItem, ContentItem.id == ContentImage.content_id)
        .where(
            ContentImage.content_id == content_id,
            ContentImage.position == position,
            visible_to(user_id),
        )
    ).one_or_none()
    if image is None:
        raise NotFoundError("there is no such image")
    return image


def delete_own(session: Session, user_id: UUID, content_id: int) -> list[Unused]:
    """Delete an item and its images; its job stays, without a result.

    Returns: the originals to remove once this is committed. A file is named by the hash of its
    bytes, so one that another image names too is not among them. Thumbnails never are: different
    originals can share one, and which rows name a thumbnail no index tells. The storage sweep,
    which reads every row, takes them.

    Raises:
        NotFoundError: it does not exist or is another user's private one.
        ForbiddenError: it is another user's public one.
    """
    item = visible(session, user_id, content_id)
    if item.creator_id != user_id:
        raise ForbiddenError("only its creator may delete an item")
    images = images_of(session, [item])[item.id]
    session.execute(
        delete(ContentItem)
        .where(ContentItem.id == item.id)
        .execution_options(synchronize_session=False)
    )
    kept = set(
        session.scalars(
            select(ContentImage.sha256).where(
                ContentImage.sha256.in_({image.sha256 for image in images})
            )
        )
    )
    unused = {i.storage_key: i.created_at for i in images if i.sha256 not in kept}
    return [Unused(key, made_at) for key, made_at in unused.items()]
