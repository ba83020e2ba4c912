"""Keep what is counted about the collection fresh."""

from pydantic import Field

from genonaut.domain import stats
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task


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
