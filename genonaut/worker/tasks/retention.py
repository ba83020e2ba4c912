"""Remove what is past its age: notifications, messages, timelines, runs, audit log, spent keys."""

import time
from collections import Counter

from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError

from genonaut.api.config import Settings
from genonaut.domain import retention
from genonaut.domain.retention import MAX_BATCH, Kind, Rule, SlowBatchError, Step
from genonaut.domain.retention_rules import rules
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task

# Who waited for a row of a batch that was undone must get it before the next batch takes it again.
_LET_OTHERS_S = 0.05
_BUSY_S = 15.0


class Params(TaskParams):
    """What an operator may choose; the ages are settings."""

    kinds: tuple[Kind, ...] = Field(default=(), description="Only these kinds; none: all.")
    batch_size: int = Field(
        default=MAX_BATCH, ge=1, le=MAX_BATCH, description="Rows per transaction, at most."
    )


class Result(TaskResult):
    """Counts of rows."""

    removed: dict[str, int]
    """By kind; of a dry run, what would be removed."""


class Tally(BaseModel):
    """What was there, and what of it is gone."""

    total: int
    removed: Counter[str] = Counter()


@task(
    "retention.purge",
    title="Remove what is past its age",
    queue="maintenance",
    soft_limit_s=3600,
    dry_run=True,
)
def purge(ctx: TaskContext, params: Params) -> Result:
    """Remove notifications, messages, timelines, runs, audit entries and spent keys past their age.

    The `RETENTION_…_DAYS` settings say how old each kind becomes; 0 is for ever. Nothing goes that
    is unfinished or that something else still needs: a run that another run names, the last run of
    a schedule, the timeline of a job that has not ended. A dry run counts, by kind.

    Safe to run twice or in parallel. A batch is one short transaction, which waits for nobody; one
    that takes too long is undone and tried with half the rows, one row a while later. A killed run
    goes on with what is left.
    """
    chosen = [
        rule for rule in rules(ages(ctx.settings)) if not params.kinds or rule.kind in params.kinds
    ]
    tally = ctx.resume(Tally)
    if tally is None:
        found = _count(ctx, chosen)
        if ctx.dry_run:
            return Result(removed=found)
        tally = Tally(total=found.total())
    for rule in chosen:
        _follow(ctx, rule, tally, params.batch_size)
    ctx.log.info("removed", **tally.removed)
    return Result(removed=tally.removed)


def ages(settings: Settings) -> dict[Kind, int]:
    """Give the ages that operators choose, days."""
    return {
        Kind.READ_NOTIFICATIONS: settings.retention_read_notifications_days,
        Kind.UNREAD_NOTIFICATIONS: settings.retention_unread_notifications_days,
        Kind.DELIVERIES: settings.retention_deliveries_days,
        Kind.TIMELINES: settings.retention_timelines_days,
        Kind.RUNS: settings.retention_runs_days,
        Kind.AUDIT: settings.retention_audit_days,
        Kind.TOKENS: settings.retention_tokens_days,
    }


def _count(ctx: TaskContext, rules: list[Rule]) -> Counter[str]:
    found: Counter[str] = Counter()
    for rule in rules:
        with ctx.transaction() as session:
            found.update(retention.count(session, rule))
        ctx.progress(0, message=f"counting {rule.kind}")
    return found


def _follow(ctx: TaskContext, rule: Rule, tally: Tally, batch_size: int) -> None:
    with ctx.transaction() as session:
        after = retention.begin(session, rule)
    size = batch_size
    while True:
        step = _step(ctx, rule, tally, after, size)
        ctx.progress(tally.removed.total(), tally.total, rule.kind)
        if step is None:
            size = _half(ctx, size)
        elif step.is_last:
            return
        else:
            after = step.after
            size = min(batch_size, size * 2)


def _step(
    ctx: TaskContext, rule: Rule, tally: Tally, after: retention.Cursor | None, size: int
) -> Step | None:
    """Do a batch; None when it took too long, and nothing came of it."""
    try:
        with ctx.transaction() as session:
            step = retention.remove(session, rule, after=after, limit=size)
            done = Tally(total=tally.total, removed=tally.removed + Counter(step.removed))
            if step.removed:
                ctx.checkpoint(session, done)
    except (OperationalError, SlowBatchError) as error:
        if retention.is_out_of_time(error):
            time.sleep(_LET_OTHERS_S)
            return None
        raise
    tally.removed = done.removed
    return step


def _half(ctx: TaskContext, size: int) -> int:
    if size == 1:
        ctx.pause("the database is too busy to remove a single row in time", for_s=_BUSY_S)
    return size // 2
