"""Count what waits and what is worked on, queue by queue."""

from collections.abc import Iterable

from sqlalchemy import func, literal, select, union_all
from sqlalchemy.orm import Session

from genonaut.db.models import GenerationJob, TaskRun
from genonaut.domain.lifecycle import UNFINISHED, Status


def per_queue(session: Session, names: Iterable[str], *, of_jobs: str) -> dict[str, dict[str, int]]:
    """Count the unfinished rows of each queue: those of ``names``, and any other that has some.

    Jobs are all in the queue ``of_jobs``. What waits for its time, or for another run to end,
    counts as pending too.
    """
    counted = union_all(
        select(literal(of_jobs).label("queue"), GenerationJob.status, func.count().label("rows"))
        .where(GenerationJob.status.in_(UNFINISHED))
        .group_by(GenerationJob.status),
        select(TaskRun.queue, TaskRun.status, func.count())
        .where(TaskRun.status.in_(UNFINISHED))
        .group_by(TaskRun.queue, TaskRun.status),
    )
    queues: dict[str, dict[str, int]] = {name: _nothing() for name in names}
    for queue, status, rows in session.execute(counted):
        queues.setdefault(queue, _nothing())[status] += rows
    return queues


def _nothing() -> dict[str, int]:
    return {Status.PENDING.value: 0, Status.RUNNING.value: 0}
