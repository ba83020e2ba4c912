"""Send notifications to where their users want to hear."""

from typing import Any

from celery import Task
from pydantic import Field

from genonaut.domain import digests
from genonaut.worker import delivering
from genonaut.worker.queue_app import celery
from genonaut.worker.queues import DELIVER, HARD_AFTER_SOFT_S, NOTIFICATIONS
from genonaut.worker.services import get_services
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task

_SOFT_LIMIT_S = 180


@celery.task(
    name=DELIVER,
    bind=True,
    soft_time_limit=_SOFT_LIMIT_S,
    time_limit=_SOFT_LIMIT_S + HARD_AFTER_SOFT_S,
)
def deliver(self: Task, delivery_id: int) -> dict[str, Any]:
    """Send what is due in the lane of a message.

    Safe to deliver twice: only the delivery that wins the rows' claim works, and every failure is
    decided by the row (see ``domain/delivery_attempts.py``), so Celery never retries.

    Returns: the message's id and how many of its lane were sent.
    """
    count = delivering.run(get_services(), delivery_id, worker=self.request.hostname)
    return {"delivery_id": delivery_id, "sent": count}


class Params(TaskParams):
    """What an operator may choose."""

    batch_size: int = Field(default=100, ge=1, le=1000, description="Users per transaction.")


class Result(TaskResult):
    """What was planned."""

    users: int
    """Users whose hour had come."""
    digests: int
    """Messages planned for those who had news."""


@task("notifications.digest", title="Send daily digests", queue=NOTIFICATIONS, soft_limit_s=600)
def digest(ctx: TaskContext, params: Params) -> Result:
    """Gather the day of every user who wants daily digests and whose hour has come.

    Safe to run twice or in parallel: a user's day has one digest, and is made up for when the
    hour was missed.
    """
    users = made = 0
    while True:
        with ctx.transaction() as session:
            due = digests.due(session, limit=params.batch_size)
            for row, day in due:
                made += digests.make(session, row, day)
        users += len(due)
        ctx.progress(users)
        if len(due) < params.batch_size:
            return Result(users=users, digests=made)
