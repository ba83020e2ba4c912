"""Look at and write a claimed row, through a database that may be away for a while."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar
from uuid import UUID

import structlog
from celery.exceptions import SoftTimeLimitExceeded
from sqlalchemy import bindparam, func, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from genonaut.clients.storage import Guard
from genonaut.core.errors import LeaseLostError, RetryableError
from genonaut.db.models import GenerationJob
from genonaut.db.session import Database
from genonaut.domain.attempts import Claim

log = structlog.get_logger(__name__)

T = TypeVar("T")

PATIENCE_S = 60.0
CLAIM_PATIENCE_S = 20.0

DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
"""What SQLAlchemy raises while PostgreSQL restarts, fails over or cannot be reached in time."""

_GLANCE = select(
    GenerationJob.lease_token,
    GenerationJob.cancel_requested_at,
    GenerationJob.webhook_received_at,
    func.extract("epoch", func.now() - GenerationJob.execution_started_at).label("executing_s"),
).where(GenerationJob.id == bindparam("id"))


def claim_patiently(
    database: Database, row_id: int, claim: Callable[[Session], T | None]
) -> T | None:
    """Claim a row, waiting a little for a database that restarts: the message would be spent."""
    deadline = time.monotonic() + CLAIM_PATIENCE_S
    while True:
        try:
            with database.transaction() as session:
                return claim(session)
        except DATABASE_AWAY as error:
            if time.monotonic() > deadline:
                raise
            log.warning("claim_waits", id=row_id, reason=str(error)[:200])
            time.sleep(1)


def guard_patiently(guard: Guard) -> Guard:
    """Give what a store holds while it puts a file, waiting for a database that restarts.

    That the lock is lost while the file is written is no matter: what was put just now is too
    young to be removed.
    """

    @contextmanager
    def hold(digest: str) -> Iterator[None]:
        lock = _taken(guard, digest)
        try:
            yield
        finally:
            with suppress(*DATABASE_AWAY):
                lock.close()

    return hold


def _taken(guard: Guard, digest: str) -> ExitStack:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        lock = ExitStack()
        try:
            lock.enter_context(guard(digest))
        except DATABASE_AWAY as error:
            if time.monotonic() > deadline:
                # Who puts files holds all of these connections, if none comes free.
                who = "store" if isinstance(error, PoolTimeoutError) else "database"
                raise RetryableError(f"the {who} does not answer") from error
            log.warning("store_waits", reason=str(error)[:200])
            time.sleep(1)
        else:
            return lock


@dataclass(frozen=True, slots=True)
class Glance:
    """What the holder of a job must heed."""

    cancel_requested: bool
    webhook_received_at: datetime | None
    executing_s: float | None


class Held(Protocol):
    """A claim: the row it is on, and the token that proves it."""

    @property
    def row_id(self) -> int:
        """The row's id."""
        ...

    @property
    def token(self) -> UUID:
        """Its lease token."""
        ...


HeldT = TypeVar("HeldT", bound=Held)


class HeldRow(Generic[HeldT]):
    """The row of a claim."""

    def __init__(self, database: Database, held: HeldT) -> None:
        self._database = database
        self._held = held

    def tell(self, write: Callable[[Session, HeldT], object]) -> bool:
        """Write what may be missed, such as progress; whether it was written.

        Raises: LeaseLostError: the row is not held under our token any more.
        """
        try:
            with self._database.transaction() as session:
                write(session, self._held)
        except DATABASE_AWAY as error:
            log.warning("progress_not_written", id=self._held.row_id, reason=str(error)[:200])
            return False
        return True

    def write(self, write: Callable[[Session, HeldT], T]) -> T:
        """Write what must not be missed; a database that restarts meanwhile is waited for.

        ``write`` may run twice: it must name the lease, so that a commit whose answer was lost is
        not done again.

        Raises: LeaseLostError: the row is not held under our token any more.
        """
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._database.transaction() as session:
                    return write(session, self._held)
            except DATABASE_AWAY as error:
                if time.monotonic() > deadline:
                    raise
                log.warning("database_away", id=self._held.row_id, reason=str(error)[:200])
                time.sleep(1)

    def end(self, write: Callable[[Session, HeldT], T]) -> T:
        """Write how the work has ended; a time limit that strikes meanwhile has come too late.

        Raises: LeaseLostError: the row is not held under our token any more, or is ended by now.
        """
        try:
            return self.write(write)
        except SoftTimeLimitExceeded:
            return self.write(write)


class HeldJob(HeldRow[Claim]):
    """The row of a claimed job."""

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
