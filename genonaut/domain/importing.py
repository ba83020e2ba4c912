"""Take existing pictures into the collection, each once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from genonaut.core.embedded_graph import Made
from genonaut.core.text import storable
from genonaut.db.models import ContentImage, ContentItem

MAX_TITLE = 80
MAX_PATH = 1000


@dataclass(frozen=True, slots=True)
class Imported:
    """A picture whose file is stored, what its own file said of it, and where it was found."""

    storage_key: str
    mime: str
    width: int
    height: int
    bytes: int
    made: Made
    path: str

    @property
    def sha256(self) -> str:
        """The hash of the stored bytes."""
        return PurePosixPath(self.storage_key).stem


def add(
    session: Session, pictures: Sequence[Imported], creator_id: UUID, *, is_private: bool
) -> int:
    """Make an item of each picture whose bytes its creator does not have; give their number.

    Two who add the same picture at once make one item of it.
    """
    for digest in sorted({picture.sha256 for picture in pictures}):
        turn = func.hashtextextended(f"{creator_id}:{digest}", 0)
        session.execute(select(func.pg_advisory_xact_lock(turn)))
    added = 0
    for picture in pictures:
        if not _is_known(session, picture.sha256, creator_id):
            _add(session, picture, creator_id, is_private=is_private)
            added += 1
    return added


def _add(session: Session, picture: Imported, creator_id: UUID, *, is_private: bool) -> None:
    item = ContentItem(
        title=_title(picture),
        prompt=picture.made.prompt,
        creator_id=creator_id,
        is_private=is_private,
        item_metadata=_metadata(picture),
    )
    session.add(item)
    session.flush()  # the image names the item's id
    session.add(
        ContentImage(
            content_id=item.id,
            position=0,
            storage_key=picture.storage_key,
            sha256=picture.sha256,
            mime=picture.mime,
            width=picture.width,
            height=picture.height,
            bytes=picture.bytes,
        )
    )
    session.flush()  # the next picture may be the same


def _is_known(session: Session, sha256: str, creator_id: UUID) -> bool:
    found = session.scalar(
        select(ContentImage.id)
        .join(ContentItem, ContentItem.id == ContentImage.content_id)
        .where(ContentImage.sha256 == sha256, ContentItem.creator_id == creator_id)
        .limit(1)
    )
    return found is not None


def _title(picture: Imported) -> str:
    words = picture.made.prompt or PurePosixPath(picture.path).stem
    line = " ".join(storable(words).split()) or "picture"
    return line if len(line) <= MAX_TITLE else line[: MAX_TITLE - 1].rstrip() + "…"


def _metadata(picture: Imported) -> dict[str, Any]:
    found: dict[str, Any] = {"imported_from": storable(picture.path)[:MAX_PATH]}
    if picture.made.negative_prompt:
        found["negative_prompt"] = picture.made.negative_prompt
    return {**found, **picture.made.settings}
