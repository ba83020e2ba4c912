"""Say when work that can wait should let other work go first."""

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from genonaut.db.models import GenerationJob
from genonaut.domain import heartbeats
from genonaut.domain.lifecycle import Status

_ALIVE_S = 60.0


def generation_waits(session: Session, *, queue: str, host: str) -> bool:
    """Whether jobs wait for a worker, and one on ``host`` serves their ``queue``.

    A worker is named ``NAME@HOST``.
    """
    due: ColumnElement[bool] = exists().where(
        GenerationJob.status == Status.PENDING,
        GenerationJob.available_at <= func.now(),
        GenerationJob.cancel_requested_at.is_(None),
    )
    if not session.scalar(select(due)):
        return False
    workers = heartbeats.ages(session, kind="worker", queue=queue)
    return any(
        name.partition("@")[2] == host and age_s < _ALIVE_S for name, age_s in workers.items()
    )
