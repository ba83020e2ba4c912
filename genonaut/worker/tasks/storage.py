"""Keep storage and database of one mind."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import TypeVar

from pydantic import BaseModel, Field

from genonaut.clients.storage import LocalStorage
from genonaut.core.clock import utcnow
from genonaut.core.errors import GenonautError
from genonaut.domain import orphans
from genonaut.domain.orphans import Named
from genonaut.worker.pace import Pace
from genonaut.worker.task import Failure, TaskContext, TaskParams, TaskResult, task

T = TypeVar("T")

TURN_S = 600.0
_FEW = 100
_PAGE = 500
_REMOVED_AT_ONCE = 20


class Params(TaskParams):
    """What an operator may choose."""

    min_age_h: int = Field(
        default=24, ge=24, le=87_600, description="Files stored later than so many hours ago stay."
    )
    max_share: float = Field(
        default=0.2,
        ge=0,
        le=1,
        description="Remove nothing when more than this share of all files is unnamed.",
    )
    limit: int = Field(
        default=50_000, ge=1, le=200_000, description="Files removed at most; the rest next time."
    )
    look_at_rows: bool = Field(
        default=True, description="Look for rows without files too, which asks for each file."
    )


class Result(TaskResult):
    """Counts of files and rows, and bytes."""

    files: int
    orphans: int
    """Files without a row, old enough to go."""
    orphan_bytes: int
    removed: int = 0
    removed_bytes: int = 0
    rows: int = 0
    lost: int = 0
    """Rows whose original is gone: listed as failed items."""
    queued_again: int = 0
    """Rows whose thumbnails are gone, which the next backfill makes anew."""


class Swept(BaseModel):
    """What is behind a run: the files, and the rows up to an id."""

    files: Result
    after: int = 0
    rows: int = 0
    lost: int = 0
    queued_again: int = 0


class TooManyOrphansError(GenonautError):
    """More files are without a row than a sweep should remove unasked."""

    code = "too_many_orphans"


@task(
    "storage.sweep_orphans",
    title="Sweep storage",
    queue="maintenance",
    soft_limit_s=4 * 3600,
    max_attempts=20,
    dry_run=True,
)
def sweep_orphans(ctx: TaskContext, params: Params) -> Result:
    """Remove files that no row names, and report rows whose files are gone.

    Files are removed only if they were stored a day ago or earlier, and after another look under
    the lock that storing a picture takes too. All are counted first: where more are unnamed than
    `max_share`, as after going back to an older database, nothing is removed and the run fails.
    Rows whose original is gone are listed as failed items; lost thumbnails are queued for the
    next backfill. Every ten minutes a run that looks at rows queues again behind what else waits.
    Safe to run twice. A dry run counts and changes nothing.
    """
    at = ctx.resume(Swept)
    if at is None:
        at = Swept(files=_sweep_files(ctx, params))
        if not ctx.dry_run:
            with ctx.transaction() as session:
                ctx.checkpoint(session, at)
    if params.look_at_rows:
        at = _look_at_rows(ctx, at)
    return at.files.model_copy(update=at.model_dump(include={"rows", "lost", "queued_again"}))


def _sweep_files(ctx: TaskContext, params: Params) -> Result:
    not_after = utcnow() - timedelta(hours=params.min_age_h)
    files = found = size = 0
    doomed: list[tuple[str, int]] = []
    for page in _pages(ctx.storage.list_files(), _PAGE):
        old = {file.key: file.size for file in page if file.modified_at <= not_after}
        with ctx.transaction() as session:
            unnamed = old.keys() - orphans.named(session, old)
        files += len(page)
        found += len(unnamed)
        size += sum(old[key] for key in unnamed)
        doomed += [(key, old[key]) for key in sorted(unnamed)][: params.limit - len(doomed)]
        ctx.progress(0, None, f"{files} files looked at, {found} without a row")
    result = Result(files=files, orphans=found, orphan_bytes=size)
    if ctx.dry_run:
        return result
    if isinstance(ctx.storage, LocalStorage):
        ctx.log.info("swept_unfinished", files=ctx.storage.sweep_temp(utcnow()))
    if found > max(_FEW, params.max_share * files):
        raise TooManyOrphansError(
            f"{found} of {files} files are without a row; if the database is the right one, run"
            " it again with a greater max_share"
        )
    return result.model_copy(update=_remove(ctx, doomed, not_after))


def _remove(ctx: TaskContext, doomed: list[tuple[str, int]], not_after: datetime) -> dict[str, int]:
    removed = size = 0
    sizes = dict(doomed)
    for some in _pages(sizes, _REMOVED_AT_ONCE):
        with ctx.transaction() as session:
            gone = orphans.remove(session, ctx.storage, some, not_after=not_after)
        removed += len(gone)
        size += sum(sizes[key] for key in gone)
        ctx.progress(0, None, f"{removed} of {len(sizes)} files removed")
    ctx.log.info("removed", files=removed, bytes=size)
    return {"removed": removed, "removed_bytes": size}


def _look_at_rows(ctx: TaskContext, at: Swept) -> Swept:
    pace = Pace(turn_s=TURN_S)
    with ctx.transaction() as session:
        last = orphans.last_named(session)
    while page := _next_page(ctx, at, last):
        lost = [row for row in page if not ctx.storage.exists(row.original)]
        again = [row.image_id for row in page if row not in lost and _lacks_one(ctx, row)]
        with ctx.transaction() as session:
            lost = orphans.still_there(session, lost)
            at = at.model_copy(
                update={
                    "after": page[-1].image_id,
                    "rows": at.rows + len(page),
                    "lost": at.lost + len(lost),
                    "queued_again": at.queued_again + len(again),
                }
            )
            ctx.fail_items(session, [Failure(row.ref, "its file is gone") for row in lost])
            if not ctx.dry_run:
                orphans.want_again(session, again)
                ctx.checkpoint(session, at)
        ctx.progress(at.after, last, f"{at.rows} rows looked at, {at.lost} without their file")
        if pace.turn_is_over and not ctx.dry_run:
            ctx.pause("others have their turn", for_s=0)
    return at


def _next_page(ctx: TaskContext, at: Swept, last: int) -> list[Named]:
    with ctx.transaction() as session:
        page = orphans.next_named(session, after=at.after, limit=_PAGE)
    return [row for row in page if row.image_id <= last]


def _lacks_one(ctx: TaskContext, row: Named) -> bool:
    return not all(ctx.storage.exists(key) for key in row.thumbnails)


def _pages(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page
