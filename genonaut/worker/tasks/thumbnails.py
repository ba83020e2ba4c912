"""Make thumbnails that were never made, could not be made, or were made by older settings."""

import socket
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Annotated, NoReturn, Self

from pydantic import AwareDatetime, BaseModel, Field, model_validator
from sqlalchemy.orm import Session

from genonaut.core.errors import StorageFullError
from genonaut.core.thumbnails import FORMATS, Format, ThumbSpec
from genonaut.domain import thumbnails, yielding
from genonaut.domain.thumbnails import Only, Outcome, Scope, Source
from genonaut.worker import sharing
from genonaut.worker.pace import Pace
from genonaut.worker.queues import GENERATION
from genonaut.worker.sharing import Plan
from genonaut.worker.task import Failure, TaskContext, TaskParams, TaskResult, task

NAME = "thumbnails.backfill"

TURN_S = 600.0
_BATCH_S = 60.0
_SHORT_OF_DISK_S = 60.0
_BEHIND_JOBS_S = 10.0

Edge = Annotated[int, Field(ge=1, le=4096)]


class Params(TaskParams):
    """What an operator may choose."""

    only: Only = Field(
        default=Only.MISSING,
        description="Pictures without thumbnails, with older ones, that failed, or all.",
    )
    sizes: tuple[Edge, ...] | None = Field(
        default=None,
        min_length=1,
        description="Edges in pixels, to be had beside the usual ones; default: the usual ones.",
    )
    formats: tuple[Format, ...] | None = Field(
        default=None,
        min_length=1,
        description="Formats, to be had beside the usual ones; default: the usual ones.",
    )
    created_from: AwareDatetime | None = Field(
        default=None, description="Only pictures made at this time or later."
    )
    created_before: AwareDatetime | None = Field(
        default=None, description="Only pictures made before this time."
    )
    creator: str | None = Field(
        default=None, max_length=255, description="Only pictures of the user of this name."
    )
    first_id: int | None = Field(
        default=None, ge=1, le=2**63 - 1, description="Only pictures from this id on."
    )
    last_id: int | None = Field(
        default=None, ge=1, le=2**63 - 1, description="Only pictures up to this id."
    )
    failed_in: int | None = Field(
        default=None,
        ge=1,
        le=2**63 - 1,
        description="Only pictures that the run of this id could not do; with `only=failed`.",
    )
    limit: int | None = Field(default=None, ge=1, description="At most so many pictures.")
    rate: float | None = Field(
        default=None, ge=0.01, le=10_000, description="At most so many pictures per second."
    )
    parallelism: int = Field(
        default=1, ge=1, le=64, description="Runs that share the work, on any worker that is free."
    )
    threads: int = Field(default=2, ge=1, le=32, description="Pictures a run works on at once.")
    batch_size: int = Field(default=100, ge=1, le=2000, description="Pictures per transaction.")

    @model_validator(mode="after")
    def _is_clear(self) -> Self:
        if self.only is Only.OUTDATED and (self.sizes or self.formats):
            raise ValueError("what is outdated gets the usual sizes and formats")
        if self.failed_in is not None and self.only is not Only.FAILED:
            raise ValueError("failed_in goes with only=failed")
        return self


class Result(TaskResult):
    """Counts of pictures, and bytes."""

    images: int
    """Pictures that wanted thumbnails when the run began."""
    read_bytes: int = 0
    """Of the files of those."""
    made: int = 0
    failed: int = 0
    made_bytes: int = 0
    """Of the thumbnails made."""
    seconds: float = 0
    """At work, all shards together, pauses left out."""
    estimated_s: float | None = None
    """In a dry run: how long it would take, from what the last runs took."""


class At(BaseModel):
    """Where a run is: the picture it has come to, the last it will look at, and its counts."""

    after: int
    last: int
    images: int
    read_bytes: int
    made: int = 0
    failed: int = 0
    made_bytes: int = 0
    seconds: float = 0

    @property
    def tried(self) -> int:
        """How many pictures are behind it."""
        return self.made + self.failed

    def past(self, batch: list[Source], outcomes: list[Outcome], seconds: float) -> "At":
        """Give the place behind a batch."""
        failed = sum(outcome.error is not None for outcome in outcomes)
        return self.model_copy(
            update={
                "after": batch[-1].id,
                "made": self.made + len(outcomes) - failed,
                "failed": self.failed + failed,
                "made_bytes": self.made_bytes + sum(outcome.bytes for outcome in outcomes),
                "seconds": round(self.seconds + seconds, 3),
            }
        )

    def result(self) -> Result:
        """Give what the run has done so far."""
        return Result(**self.model_dump(exclude={"after", "last"}))


def _subject(params: Params) -> str:
    """Say what a run is about: two about the same must not overlap, whatever their pace."""
    shared = "shared" if params.parallelism > 1 else "whole"
    pace = {"limit", "rate", "parallelism", "threads", "batch_size"}
    return f"{shared}:{params.model_dump_json(exclude=pace, exclude_none=True)}"


def _only_failed(params: Params, run_id: int) -> Params:
    return Params(only=Only.FAILED, failed_in=run_id, sizes=params.sizes, formats=params.formats)


@task(
    NAME,
    title="Backfill thumbnails",
    queue="maintenance",
    soft_limit_s=3600,
    overlap_key=_subject,
    max_attempts=100,
    dry_run=True,
    only_failed=_only_failed,
)
def backfill(ctx: TaskContext, params: Params) -> Result:
    """Make the thumbnails that pictures should have, oldest picture first.

    Safe to run twice or in parallel: a picture that has what it should have is skipped, and what is
    made twice is the same file. Thumbnails are made outside any transaction, files first; each
    batch is recorded with the place it reaches, so a killed run goes on where it stopped. A picture
    that cannot be done is listed with the reason, and tried again only with `only=failed`. Sizes
    or formats of your own are added to what a picture has.

    With `parallelism` the pictures are shared out to runs of their own, which any free worker
    takes; this run goes on when they have ended, and cancelling it cancels them. A dry run counts.
    Every ten minutes a run queues again behind what else waits; while the disk is short it pauses,
    and with `BACKFILL_YIELDS` also while jobs wait on a machine that makes pictures.
    """
    scope = _scope(ctx, params)
    if ctx.dry_run:
        return _estimate(ctx, params, scope)
    if params.parallelism > 1:
        return _share(ctx, params, scope)
    at = ctx.resume(At) or _begin(ctx, scope)
    scope = thumbnails.up_to(scope, at.last)
    pace = Pace(rate=params.rate, turn_s=TURN_S)
    total = min(at.images, params.limit or at.images)
    done = at.tried

    def check() -> None:
        ctx.progress(done, total, pace.words(total - done))

    with ThreadPoolExecutor(params.threads) as pool:
        while batch := _next_batch(ctx, params, scope, at):
            _step_aside(ctx)
            outcomes = []
            for outcome in _outcomes(ctx, pool, params, scope.spec, batch, pace, check):
                outcomes.append(outcome)
                done += 1
                check()
            with ctx.transaction() as session:
                outcomes = _recorded(ctx, session, scope, outcomes)
                at = at.past(batch, outcomes, pace.lap_s())
                ctx.checkpoint(session, at)
            if pace.turn_is_over:
                ctx.pause("others have their turn", for_s=0)
    return at.result()


class OneParams(TaskParams):
    """Which picture."""

    image_id: int = Field(ge=1, le=2**63 - 1, description="The picture's id.")


@task(
    thumbnails.MAKE_ONE,
    title="Make a picture's thumbnails",
    soft_limit_s=120,
    overlap_key=lambda params: str(params.image_id),
)
def make_one(ctx: TaskContext, params: OneParams) -> Result:
    """Make the usual thumbnails of one picture, which somebody has asked for.

    Safe to run twice: a picture that has them, or that failed before, is left as it is.
    """
    usual = _scope(ctx, Params(first_id=params.image_id, last_id=params.image_id))
    outcomes: list[Outcome] = []
    for only in (Only.MISSING, Only.OUTDATED):
        scope = replace(usual, only=only)
        with ctx.transaction() as session:
            batch = thumbnails.next_batch(session, scope, after=0, limit=1)
        made = [thumbnails.make(one, scope.spec, ctx.storage, ctx.renderer.render) for one in batch]
        with ctx.transaction() as session:
            outcomes += _recorded(ctx, session, scope, made)
    failed = len(_failures(outcomes))
    return Result(
        images=len(outcomes),
        made=len(outcomes) - failed,
        failed=failed,
        made_bytes=sum(outcome.bytes for outcome in outcomes),
    )


def _recorded(
    ctx: TaskContext, session: Session, scope: Scope, outcomes: list[Outcome]
) -> list[Outcome]:
    """Write down what became of pictures; leave out what failed as it was deleted meanwhile."""
    left = thumbnails.record(session, scope, outcomes)
    outcomes = [o for o in outcomes if o.error is None or o.source.id in left]
    ctx.fail_items(session, _failures(outcomes))
    return outcomes


def _failures(outcomes: list[Outcome]) -> list[Failure]:
    return [Failure(o.source.ref, o.error) for o in outcomes if o.error is not None]


def _scope(ctx: TaskContext, params: Params) -> Scope:
    settings = ctx.settings
    usual = thumbnails.standard(settings.thumbnail_sizes, settings.thumbnail_formats)
    formats = tuple(form for form in FORMATS if form in (params.formats or usual.formats))
    spec = ThumbSpec(sizes=params.sizes or usual.sizes, formats=formats)
    return Scope(
        spec=spec,
        only=params.only,
        is_extra=spec.hash != usual.hash,
        created_from=params.created_from,
        created_before=params.created_before,
        creator=params.creator,
        first_id=params.first_id,
        last_id=params.last_id,
        failed_in=params.failed_in,
    )


def _estimate(ctx: TaskContext, params: Params, scope: Scope) -> Result:
    with ctx.transaction() as session:
        found = thumbnails.survey(session, scope)
        per_s = thumbnails.lately_per_s(session, NAME)
    images = min(found.images, params.limit or found.images)
    speeds = [per_s and per_s * params.parallelism, params.rate]
    slowest = min((speed for speed in speeds if speed), default=None)
    return Result(
        images=images,
        read_bytes=found.bytes * images // (found.images or 1),
        estimated_s=round(images / slowest, 1) if slowest else None,
    )


def _begin(ctx: TaskContext, scope: Scope) -> At:
    with ctx.transaction() as session:
        found = thumbnails.survey(session, scope)
        at = At(
            after=(scope.first_id or 1) - 1,
            last=found.last_id,
            images=found.images,
            read_bytes=found.bytes,
        )
        ctx.checkpoint(session, at)
    return at


def _next_batch(ctx: TaskContext, params: Params, scope: Scope, at: At) -> list[Source]:
    size = params.batch_size
    if params.limit is not None:
        size = min(size, params.limit - at.tried)
    if params.rate is not None:  # a batch that takes long is lost when the worker is
        size = min(size, max(1, int(params.rate * _BATCH_S)))
    if size <= 0:
        return []
    with ctx.transaction() as session:
        return thumbnails.next_batch(session, scope, after=at.after, limit=size)


def _outcomes(
    ctx: TaskContext,
    pool: ThreadPoolExecutor,
    params: Params,
    spec: ThumbSpec,
    batch: list[Source],
    pace: Pace,
    check: Callable[[], None],
) -> Iterator[Outcome]:
    """Make thumbnails side by side, a few ahead of the picture that is waited for; in order."""
    ahead: deque[Future[Outcome]] = deque()
    try:
        for source in batch:
            pace.next(check)
            ahead.append(
                pool.submit(thumbnails.make, source, spec, ctx.storage, ctx.renderer.render)
            )
            if len(ahead) > 2 * params.threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except StorageFullError:
        _pause_for_disk(ctx)
    finally:
        for future in ahead:
            future.cancel()


def _step_aside(ctx: TaskContext) -> None:
    """Give the slot back while other work should go first."""
    free = ctx.storage.free_bytes()
    if free is not None and free < ctx.settings.storage_min_free_mb * 2**20:
        _pause_for_disk(ctx)
    if ctx.settings.backfill_yields:
        with ctx.transaction() as session:
            waits = yielding.generation_waits(session, queue=GENERATION, host=socket.gethostname())
        if waits:
            ctx.pause("jobs wait on this machine", for_s=_BEHIND_JOBS_S)


def _pause_for_disk(ctx: TaskContext) -> NoReturn:
    ctx.pause("the disk is short", for_s=_SHORT_OF_DISK_S)


def _share(ctx: TaskContext, params: Params, scope: Scope) -> Result:
    """Have ranges of ids done by runs of their own, and sum up."""

    def plan(session: Session) -> Plan[Params]:
        images = thumbnails.survey(session, scope).images
        count = min(params.parallelism, params.limit or params.parallelism)
        ranges = thumbnails.shards(session, scope, count)
        parts = [_part(params, n, len(ranges), ids) for n, ids in enumerate(ranges)]
        return Plan(parts, total=min(images, params.limit or images))

    result = _sum(sharing.in_parts(ctx, backfill, plan))
    ctx.progress(result.made + result.failed)
    return result


def _part(params: Params, n: int, count: int, ids: tuple[int, int]) -> Params:
    share: dict[str, object] = {"parallelism": 1, "first_id": ids[0], "last_id": ids[1]}
    if params.limit is not None:
        share["limit"] = params.limit // count + (n < params.limit % count)
    if params.rate is not None:
        share["rate"] = max(0.01, params.rate / count)
    return params.model_copy(update=share)


def _sum(results: list[Result]) -> Result:
    counted = set(Result.model_fields) - {"estimated_s"}
    return Result(
        **{name: round(sum(getattr(one, name) for one in results), 3) for name in counted}
    )
