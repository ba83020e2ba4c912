"""Look at and write a claimed job's row, through a database that may be away for a while."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import structlog
from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from genonaut.core.errors import LeaseLostError
from genonaut.db.models import GenerationJob
from genonaut.db.session import Database
from genonaut.domain.attempts import Claim

log = structlog.get_logger(__name__)

T = TypeVar("T")

PATIENCE_S = 60.0

DATABASE_AWAY = (OperationalError, InterfaceError)
"""What SQLAlchemy raises while PostgreSQL restarts, fails over or cannot be reached."""

_GLANCE = select(
    GenerationJob.lease_token,
    GenerationJob.cancel_requested_at,
    GenerationJob.webhook_received_at,
    func.extract("epoch", func.now() - GenerationJob.execution_started_at).label("executing_s"),
).where(GenerationJob.id == bindparam("id"))


@dataclass(frozen=True, slots=True)
class Glance:
    """What the holder of a job must heed."""

    cancel_requested: bool
    webhook_received_at: datetime | None
    executing_s: float | None


class HeldRow:
    """The row of a claimed job."""

    def __init__(self, database: Database, held: Claim) -> None:
        self._database = database
        self._held = held

    def glance(self) -> Glance | None:
        """Read what must be heeded; None while the database is away.

        Raises: LeaseLostError: the job is not held under our token any more.
        """
        try:
            with self._database.transaction() as session:
                row = session.execute(_GLANCE, {"id": self._held.job_id}).one_or_none()
        except DATABASE_AWAY as error:
            log.warning("row_not_read", job_id=self._held.job_id, reason=str(error)[:200])
            return None
        if row is None or row.lease_token != self._held.token:
            raise LeaseLostError(f"the lease on {self._held.job_id} is lost")
        return Glance(
            cancel_requested=row.cancel_requested_at is not None,
            webhook_received_at=row.webhook_received_at,
            executing_s=None if row.executing_s is None else float(row.executing_s),
        )

    def tell(self, write: Callable[[Session, Claim], object]) -> bool:
        """Write what may be missed, such as progress; whether it was written.

        Raises: LeaseLostError: the job is not held under our token any more.
        """
        try:
            with self._database.transaction() as session:
                write(session, self._held)
        except DATABASE_AWAY as error:
            log.warning("progress_not_written", job_id=self._held.job_id, reason=str(error)[:200])
            return False
        return True

    def write(self, write: Callable[[Session, Claim], T]) -> T:
        """Write what must not be missed; a database that restarts meanwhile is waited for.

        ``write`` may run twice: it must name the lease, so that a commit whose answer was lost is
        not done again.

        Raises: LeaseLostError: the job is not held under our token any more.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._database.transaction() as session:
                    return write(session, self._held)
            except DATABASE_AWAY as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("database_away", job_id=self._held.job_id, reason=str(error)[:200])
                time.sleep(1)
