"""Keep what is counted about the collection fresh, and take existing pictures in."""

from collections.abc import Iterator
from itertools import islice

from pydantic import BaseModel, Field

from genonaut.core.errors import InvalidInputError
from genonaut.domain import importing, orphans, stats, users
from genonaut.domain.importing import Imported
from genonaut.domain.run_attempts import MAX_REF
from genonaut.worker import importing as folders
from genonaut.worker.importing import Found, Refused
from genonaut.worker.task import Failure, TaskContext, TaskParams, TaskResult, task

_BATCH = 20


class Params(TaskParams):
    """What an operator may choose."""

    days: int | None = Field(
        default=None, ge=1, le=36500, description="Only so many days, today among them; else all."
    )


class Result(TaskResult):
    """What was counted."""

    rows: int
    """Combinations of creator, model and day."""


@task("content.refresh_stats", title="Count the collection", queue="maintenance", soft_limit_s=600)
def refresh_stats(ctx: TaskContext, params: Params) -> Result:
    """Count pictures per creator, model and day anew, for `GET /api/v1/stats`.

    Safe to run twice or in parallel: counts are replaced, never added to.
    """
    with ctx.transaction() as session:
        rows = stats.refresh(session, days=params.days)
    ctx.log.info("counted", rows=rows, days=params.days)
    return Result(rows=rows)


class ImportParams(TaskParams):
    """Which folder, and whose its pictures become."""

    folder: str = Field(
        max_length=1000, description="Path below IMPORT_ROOT; `.` is that folder itself."
    )
    creator: str = Field(max_length=255, description="Name of the user whose they become.")
    private: bool = Field(default=False, description="Whether only the creator may see them.")


class ImportResult(TaskResult):
    """Counts of files."""

    files: int
    """Files that are named like pictures, and folders that cannot be read."""
    imported: int = 0
    known: int = 0
    """The creator had them already."""
    failed: int = 0


class ImportedUpTo(BaseModel):
    """Where an import is: the last file it has come to, and its counts."""

    place: folders.Place
    counts: ImportResult


@task(
    "content.import_folder",
    title="Import pictures",
    queue="maintenance",
    soft_limit_s=4 * 3600,
    overlap_key=lambda params: f"{params.creator}:{params.folder}",
    dry_run=True,
)
def import_folder(ctx: TaskContext, params: ImportParams) -> ImportResult:
    """Take the pictures in a folder below `IMPORT_ROOT` into the collection, each once.

    Where a file tells how ComfyUI made it, prompt and settings are kept with it. Safe to run twice:
    what the creator has already, by the hash of its bytes, is left out. No link is followed. A file
    that is no picture and a folder that cannot be read are listed with the reason. A killed run
    goes on where it stopped; thumbnails are made by the next backfill. A dry run counts files.
    """
    if ctx.settings.import_root is None:
        raise InvalidInputError("IMPORT_ROOT is not set, so nothing can be imported")
    with ctx.transaction() as session:
        creator_id = users.find_user(session, params.creator).id
    with folders.opened(ctx.settings.import_root, params.folder) as folder:
        total = sum(1 for _ in folders.walk(folder))
        at = ctx.resume(ImportedUpTo) or ImportedUpTo(place=(), counts=ImportResult(files=total))
        if ctx.dry_run:
            return at.counts
        rest = (found for found in folders.walk(folder) if found.place > at.place)
        while batch := list(islice(rest, _BATCH)):
            outcomes = list(_taken(ctx, folder, batch, at.counts, total))
            pictures = [one for one in outcomes if isinstance(one, Imported)]
            refused = [one for one in outcomes if isinstance(one, Refused)]
            with ctx.transaction() as session:
                orphans.keep(session, ctx.storage, [one.storage_key for one in pictures])
                new = importing.add(session, pictures, creator_id, is_private=params.private)
                ctx.fail_items(
                    session, [Failure(one.path[-MAX_REF:], one.error) for one in refused]
                )
                at = _past(at, batch, new, len(pictures) - new, len(refused))
                ctx.checkpoint(session, at)
    return at.counts


def _taken(
    ctx: TaskContext, folder: int, batch: list[Found], counts: ImportResult, total: int
) -> Iterator[Imported | Refused]:
    done = counts.imported + counts.known + counts.failed
    for number, found in enumerate(batch, done + 1):
        yield folders.take(folder, found, ctx.storage, ctx.renderer)
        ctx.progress(number, total, found.path)


def _past(at: ImportedUpTo, batch: list[Found], new: int, known: int, failed: int) -> ImportedUpTo:
    counts = at.counts
    return ImportedUpTo(
        place=batch[-1].place,
        counts=counts.model_copy(
            update={
                "imported": counts.imported + new,
                "known": counts.known + known,
                "failed": counts.failed + failed,
            }
        ),
    )
