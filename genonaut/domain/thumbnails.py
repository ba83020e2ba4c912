"""Which pictures want thumbnails, how one gets them, and how it is written down."""

import operator
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeAlias

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Double,
    Select,
    Text,
    and_,
    case,
    cast,
    column,
    func,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, array
from sqlalchemy.orm import Session

from genonaut.clients.storage import Storage
from genonaut.core.errors import (
    NotFoundError,
    StoredFileError,
    UnreadableImageError,
)
from genonaut.core.text import storable
from genonaut.core.thumbnails import FORMATS, Thumbnails, ThumbSpec
from genonaut.db.models import ContentImage, ContentItem, RunFailure, TaskRun, User
from genonaut.domain.lifecycle import Status

MAKE_ONE = "thumbnails.make"
"""The task that makes one picture's thumbnails while somebody waits for them."""

MAX_ERROR = 500
_MOMENT_S = 1.0
_LATELY = 5

Entries: TypeAlias = dict[str, dict[str, Any]]
"""What ``ContentImage.thumbnails`` holds."""

Render: TypeAlias = Callable[[bytes, ThumbSpec], Thumbnails]


class Only(StrEnum):
    """Which pictures a backfill is about.

    ``missing`` were never tried, ``outdated`` were made by other settings, ``failed`` could not be
    made; each picture is in one of these states or has what it should have.
    """

    MISSING = "missing"
    OUTDATED = "outdated"
    FAILED = "failed"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Scope:
    """Pictures, and the thumbnails they should have.

    ``spec`` is what every picture of the collection should have, unless ``is_extra``: then its
    thumbnails are added to those a picture has, and one that lacks any of them is ``missing``.
    ``creator`` is a user name. ``first_id`` and ``last_id`` are inclusive. ``failed_in`` is a run,
    which could not do them.
    """

    spec: ThumbSpec
    only: Only = Only.MISSING
    is_extra: bool = False
    created_from: datetime | None = None
    created_before: datetime | None = None
    creator: str | None = None
    first_id: int | None = None
    last_id: int | None = None
    failed_in: int | None = None

    def pictures(self, *columns: Any) -> Select[Any]:
        """Give the query for ``columns`` of the pictures that want something, in no order."""
        query = select(*columns).where(self._state())
        for bounded, compare, bound in (
            (ContentImage.id, operator.ge, self.first_id),
            (ContentImage.id, operator.le, self.last_id),
            (ContentImage.created_at, operator.ge, self.created_from),
            (ContentImage.created_at, operator.lt, self.created_before),
        ):
            if bound is not None:
                query = query.where(compare(bounded, bound))
        if self.failed_in is not None:
            ref = func.concat(
                "content/", ContentImage.content_id, "/images/", ContentImage.position
            )
            failure = select(RunFailure.id).where(
                RunFailure.run_id == self.failed_in, RunFailure.ref == ref
            )
            query = query.where(failure.exists())
        if self.creator is not None:
            query = (
                query.join(ContentItem, ContentItem.id == ContentImage.content_id)
                .join(User, User.id == ContentItem.creator_id)
                .where(User.username == self.creator)
            )
        return query

    def _state(self) -> ColumnElement[bool]:
        is_untried = ContentImage.thumb_error.is_(None)
        match self.only:
            case Only.ALL:
                return true()
            case Only.FAILED:
                return ContentImage.thumb_error.is_not(None)
            case Only.OUTDATED:
                return and_(is_untried, ContentImage.thumb_spec != self.spec.hash)
        if self.is_extra:
            return and_(is_untried, ~ContentImage.thumbnails.has_all(array(entry_names(self.spec))))
        return and_(is_untried, ContentImage.thumb_spec.is_(None))


@dataclass(frozen=True, slots=True)
class Survey:
    """How much there is to do: pictures, the bytes of their files, and the last picture's id."""

    images: int
    bytes: int
    last_id: int


@dataclass(frozen=True, slots=True)
class Source:
    """A picture that wants thumbnails."""

    id: int
    content_id: int
    position: int
    storage_key: str

    @property
    def ref(self) -> str:
        """Name it as the API's addresses do."""
        return f"content/{self.content_id}/images/{self.position}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a picture: its thumbnails, or why there are none."""

    source: Source
    thumbnails: Entries | None = None
    error: str | None = None

    @property
    def bytes(self) -> int:
        """The bytes of its thumbnails."""
        return sum(entry["bytes"] for entry in (self.thumbnails or {}).values())


def standard(sizes: str, formats: str) -> ThumbSpec:
    """Say which thumbnails every picture should have; both as the settings have them."""
    edges = tuple(dict.fromkeys(int(edge) for edge in sizes.split(",")))
    chosen = set(formats.split(","))
    return ThumbSpec(sizes=edges, formats=tuple(form for form in FORMATS if form in chosen))


def entry_name(edge: int, form: str) -> str:
    """Name a thumbnail among its picture's: ``512`` for WebP, ``512.avif`` for other formats."""
    return str(edge) if form == "webp" else f"{edge}.{form}"


def entry_names(spec: ThumbSpec) -> list[str]:
    """Name every thumbnail of ``spec``."""
    return [entry_name(edge, form) for edge in spec.sizes for form in spec.formats]


def survey(session: Session, scope: Scope) -> Survey:
    """Count what there is to do, in one pass."""
    counted = scope.pictures(
        func.count(), func.coalesce(func.sum(ContentImage.bytes), 0), func.max(ContentImage.id)
    )
    images, size, last_id = session.execute(counted).one()
    return Survey(images, int(size), last_id or 0)


def up_to(scope: Scope, last_id: int) -> Scope:
    """Give the scope without the pictures that came after ``last_id``."""
    return replace(scope, last_id=last_id)


def lately_per_s(session: Session, task: str) -> float | None:
    """Give how many pictures a second the last runs of ``task`` did, each alone; None at first."""
    seconds = TaskRun.result["seconds"].as_float()
    lately = (
        select(TaskRun.result["made"].as_float().label("made"), seconds.label("seconds"))
        .where(
            TaskRun.task == task,
            TaskRun.status == Status.COMPLETED,
            ~TaskRun.dry_run,
            TaskRun.params["rate"].astext.is_(None),
            TaskRun.params["parallelism"].as_integer() == 1,
            seconds > 0,
        )
        .order_by(TaskRun.id.desc())
        .limit(_LATELY)
        .subquery()
    )
    made, took_s = session.execute(
        select(func.sum(lately.c.made), func.sum(lately.c.seconds))
    ).one()
    return made / took_s if made else None


def shards(session: Session, scope: Scope, count: int) -> list[tuple[int, int]]:
    """Cut the pictures into at most ``count`` ranges of ids with about as many in each."""
    parts = [n / count for n in range(1, count + 1)]
    cuts = func.percentile_disc(cast(parts, ARRAY(Double))).within_group(ContentImage.id)
    found = session.scalar(scope.pictures(cuts))
    ends = sorted({int(end) for end in found or () if end is not None})
    firsts = [scope.first_id or 1, *(end + 1 for end in ends)]
    return list(zip(firsts, ends, strict=False))


def next_batch(session: Session, scope: Scope, *, after: int, limit: int) -> list[Source]:
    """Give the next pictures with an id above ``after``, by id."""
    rows = session.execute(
        scope.pictures(
            ContentImage.id,
            ContentImage.content_id,
            ContentImage.position,
            ContentImage.storage_key,
        )
        .where(ContentImage.id > after)
        .order_by(ContentImage.id)
        .limit(limit)
    )
    return [Source(*row) for row in rows]


def make(source: Source, spec: ThumbSpec, storage: Storage, render: Render) -> Outcome:
    """Make the thumbnails of one stored picture, or say why there are none.

    Their files are safe in storage when this returns; made twice they are the same files.

    Raises: RetryableError: the store does not answer, or has no room; the picture is not at fault.
    """
    try:
        data = _read(storage, source.storage_key)
        return Outcome(source, thumbnails=store(data, spec, storage, render))
    except NotFoundError as error:
        return Outcome(source, error=f"Its file is gone. ({error.code})")
    except UnreadableImageError as error:
        return Outcome(source, error=f"{error} ({error.code})")


def store(data: bytes, spec: ThumbSpec, storage: Storage, render: Render) -> Entries:
    """Make and store the thumbnails of a picture's bytes, for its row.

    Raises:
        UnreadableImageError: none can be made, however often it is tried.
        RetryableError: the store does not take them now.
    """
    return {
        entry_name(edge, form): {
            "key": storage.put(made.data, mime=made.mime),
            "width": made.width,
            "height": made.height,
            "bytes": len(made.data),
        }
        for (edge, form), made in render(data, spec).items()
    }


def _read(storage: Storage, key: str) -> bytes:
    with suppress(StoredFileError):
        return storage.read(key)
    storage.check()  # which fails as well if it is the store and not this file
    time.sleep(_MOMENT_S)  # for what passes, as while a disk is mounted anew
    try:
        return storage.read(key)
    except StoredFileError as error:
        raise UnreadableImageError(f"The file cannot be read. {error}") from error


def record(session: Session, scope: Scope, outcomes: Sequence[Outcome]) -> set[int]:
    """Write down what became of pictures, their files stored already; give the ids of those left.

    A picture that could not be done keeps the thumbnails it had. Usual ones take the place of usual
    ones of other settings, and are added to extra ones that came before any.
    """
    if not outcomes:
        return set()
    rows = [
        {
            "id": o.source.id,
            "made": o.thumbnails,
            "error": o.error and storable(o.error)[:MAX_ERROR],
        }
        for o in outcomes
    ]
    new = (
        func.jsonb_to_recordset(cast(rows, JSONB))
        .table_valued(column("id", BigInteger), column("made", JSONB), column("error", Text))
        .render_derived(name="new", with_types=True)
    )
    # Runs that meet in the same pictures lock them in the same order.
    ids = [row["id"] for row in rows]
    in_order = select(ContentImage.id).where(ContentImage.id.in_(ids)).order_by(ContentImage.id)
    session.execute(in_order.with_for_update(key_share=True))
    is_made = new.c.error.is_(None)
    old = ContentImage.thumbnails
    added = true() if scope.is_extra else ContentImage.thumb_spec.is_(None)
    values: dict[str, Any] = {
        "thumb_error": new.c.error,
        "thumbnails": case(
            (and_(is_made, added), old + new.c.made), (is_made, new.c.made), else_=old
        ),
    }
    if not scope.is_extra:
        values["thumb_spec"] = case((is_made, scope.spec.hash), else_=ContentImage.thumb_spec)
    left = session.scalars(
        update(ContentImage)
        .where(ContentImage.id == new.c.id)
        .values(**values)
        .returning(ContentImage.id)
        .execution_options(synchronize_session=False)
    )
    return set(left)
