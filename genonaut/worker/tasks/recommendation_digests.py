"""Tell those who asked for it, once a week, what they might like."""

from uuid import UUID

from pydantic import BaseModel, Field

from genonaut.domain import recommendation_digests as digests
from genonaut.worker.queues import NOTIFICATIONS
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task


class Params(TaskParams):
    """What an operator may choose."""

    batch_size: int = Field(default=100, ge=1, le=1000, description="Users per transaction.")


class Result(TaskResult):
    """Who was told."""

    users: int = 0
    """Users who asked to hear and had not heard this week."""
    told: int = 0
    """Those of them for whom there was something new."""


class At(BaseModel):
    """Where a run is: the week it tells for, the last user it has come to, and its counts."""

    week: str
    last_user: UUID | None = None
    result: Result = Result()


@task(
    "recommendations.digest",
    title="Tell what users might like",
    queue=NOTIFICATIONS,
    soft_limit_s=1800,
)
def digest(ctx: TaskContext, params: Params) -> Result:
    """Notify every user who asked for it of a few new pictures they might like, once a week.

    Nobody is told who has not chosen the kind `recommendation` for some channel. Safe to run twice
    or in parallel: an ISO week (UTC) has one notification per user, and a picture is not named to
    the same user again. A killed run goes on where it stopped, for the week it began in.
    """
    with ctx.transaction() as session:
        at = ctx.resume(At) or At(week=digests.week(session))
    while True:
        with ctx.transaction() as session:
            users = digests.untold(session, at.week, after=at.last_user, limit=params.batch_size)
            if not users:
                return at.result
            told = sum(digests.tell(session, user_id, at.week) for user_id in users)
            counts = Result(users=at.result.users + len(users), told=at.result.told + told)
            at = At(week=at.week, last_user=users[-1], result=counts)
            ctx.checkpoint(session, at)
        ctx.progress(at.result.users)
