"""Find what is stuck and move its rows on; the rules behind the reconciler.

Each rule is a function over a bounded batch, safe to run in several processes at once
(``FOR UPDATE SKIP LOCKED``) and cheap when there is nothing to do (partial indexes). A row that
cannot be moved does not stop the others. Rules write rows only: what must be told to ComfyUI is
written down too (``domain/abandoned.py``).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import structlog
from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.db.models import GenerationJob, JobAttempt, TaskRun
from genonaut.db.session import savepoint
from genonaut.domain.abandoned import abandon
from genonaut.domain.generation import JOBS, close_cancelled, tell_owner
from genonaut.domain.lifecycle import Status

log = structlog.get_logger(__name__)

Held = TypeVar("Held", GenerationJob, TaskRun)


@dataclass(frozen=True, slots=True)
class Reaped:
    """What one sweep did."""

    requeued: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    cancelled: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything was moved."""
        return bool(self.requeued or self.failed or self.cancelled)


def postgres_is_settling(session: Session, *, grace_s: float) -> bool:
    """Whether PostgreSQL started so recently that holders had no chance to renew their leases."""
    started = session.execute(
        text("SELECT now() - pg_postmaster_start_time() < make_interval(secs => :s)"),
        {"s": grace_s},
    )
    return bool(started.scalar_one())


def reap_expired(session: Session, *, grace_s: float, limit: int = 200) -> Reaped:
    """Take running rows from holders whose lease ended ``grace_s`` seconds ago.

    Cancel requested: cancelled. Attempts left: pending again. Attempts used up, but a prompt was
    posted: pending once more for a claim that may only collect. Otherwise failed, ``worker_lost``.
    """
    return sweep(session, GenerationJob, _reap, kind="job", grace_s=grace_s, limit=limit)


def sweep(
    session: Session,
    model: type[Held],
    reap: Callable[[Session, Held, tuple[ColumnElement[bool], ...], str], Status],
    *,
    kind: str,
    grace_s: float,
    limit: int,
) -> Reaped:
    """Move every running row on whose lease ended ``grace_s`` seconds ago.

    ``reap`` gets a row, the condition that its lease has ended, and words for what was lost; it
    gives the state the row is in then.
    """
    expired = (
        model.status == Status.RUNNING,
        model.lease_expires_at < func.now() - timedelta(seconds=grace_s),
    )
    rows = session.scalars(
        select(model)
        .where(*expired)
        .order_by(model.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    moved: dict[Status, list[int]] = {
        Status.PENDING: [],
        Status.FAILED: [],
        Status.CANCELLED: [],
    }
    for row in rows:
        worker, attempt = row.worker, row.attempt
        lost = f"worker {worker} lost, attempt {attempt} of {row.max_attempts}"
        with or_skip(session, row.id, kind=kind):
            became = reap(session, row, expired, lost)
            moved[became].append(row.id)
            log.warning(
                "reaped", kind=kind, id=row.id, worker=worker, attempt=attempt, became=became
            )
    return Reaped(
        requeued=tuple(moved[Status.PENDING]),
        failed=tuple(moved[Status.FAILED]),
        cancelled=tuple(moved[Status.CANCELLED]),
    )


@contextmanager
def or_skip(session: Session, row_id: int, *, kind: str = "job") -> Iterator[None]:
    """Give the block a savepoint; a row that has moved, or that the database refuses, is left."""
    try:
        with savepoint(session):
            yield
    except (ConflictError, NotFoundError):
        log.info("reap_skipped", kind=kind, id=row_id)
    except DBAPIError as error:
        if error.connection_invalidated or isinstance(error, OperationalError):
            raise
        log.exception("reap_failed", kind=kind, id=row_id)


def _reap(
    session: Session, job: GenerationJob, expired: tuple[ColumnElement[bool], ...], lost: str
) -> Status:
    _close_lost_attempt(session, job)
    prompt = (job.backend, job.comfyui_prompt_id)
    if job.cancel_requested_at is not None:
        abandon(session, *prompt)
        ended = JOBS.move(
            session, job.id, Status.CANCELLED, when=expired, progress={"phase": "cancelled"}
        )
        tell_owner(session, ended)
        return Status.CANCELLED
    attempts_left = job.attempt < job.max_attempts
    may_collect = job.comfyui_prompt_id is not None and not job.collect_only
    if attempts_left or may_collect:
        JOBS.move(
            session,
            job.id,
            Status.PENDING,
            when=expired,
            available_at=func.now(),
            dispatched_at=None,
            dispatch_epoch=None,
            collect_only=not attempts_left,
            progress={"phase": "queued", "reason": lost},
        )
        return Status.PENDING
    abandon(session, *prompt)
    ended = JOBS.move(
        session,
        job.id,
        Status.FAILED,
        when=expired,
        error_code="worker_lost",
        error_message=f"{lost}; no attempts are left",
        progress={"phase": "failed"},
    )
    tell_owner(session, ended)
    return Status.FAILED


def _close_lost_attempt(session: Session, job: GenerationJob) -> None:
    values: dict[str, Any] = {
        "outcome": "worker_lost",
        "ended_at": func.now(),
        "error_code": "worker_lost",
    }
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.job_id == job.id, JobAttempt.ended_at.is_(None))
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def close_cancels(session: Session, *, limit: int = 200) -> Reaped:
    """Cancel pending rows whose cancel was requested while a holder had them."""
    jobs = session.scalars(
        select(GenerationJob)
        .where(
            GenerationJob.status == Status.PENDING, GenerationJob.cancel_requested_at.is_not(None)
        )
        .order_by(GenerationJob.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    closed = []
    for job in jobs:
        with or_skip(session, job.id):
            abandon(session, job.backend, job.comfyui_prompt_id)
            close_cancelled(session, job)
            closed.append(job.id)
    return Reaped(cancelled=tuple(closed))
