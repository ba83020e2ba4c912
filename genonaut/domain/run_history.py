"""Look back at the runs of a task."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.db.models import TaskRun
from genonaut.domain.lifecycle import Status


def last_completed(session: Session, task: str, *, before: int) -> TaskRun | None:
    """Give the newest run of a task that did its work, of those before the id ``before``."""
    return session.scalars(
        select(TaskRun)
        .where(
            TaskRun.task == task,
            TaskRun.id < before,
            TaskRun.status == Status.COMPLETED,
            ~TaskRun.dry_run,
        )
        .order_by(TaskRun.id.desc())
        .limit(1)
    ).one_or_none()
