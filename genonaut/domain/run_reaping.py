"""Find runs that are stuck and move them on; see ``domain/reaping.py``, which does so for jobs."""

from collections.abc import Collection
from datetime import timedelta

import structlog
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from genonaut.db.models import TaskRun
from genonaut.domain.lifecycle import Status
from genonaut.domain.reaping import Reaped, or_skip, sweep
from genonaut.domain.runs import RUNS, begin_held_back, close_cancelled, is_busy, let_next_begin

log = structlog.get_logger(__name__)


def reap_expired(session: Session, *, grace_s: float, limit: int = 200) -> Reaped:
    """Take running runs from holders whose lease ended ``grace_s`` seconds ago.

    Cancel requested: cancelled. Attempts left: pending again, to go on from its checkpoint.
    Otherwise failed, ``worker_lost``.
    """
    return sweep(session, TaskRun, _reap, kind="run", grace_s=grace_s, limit=limit)


def _reap(
    session: Session, run: TaskRun, expired: tuple[ColumnElement[bool], ...], lost: str
) -> Status:
    if run.cancel_requested_at is None and run.attempt < run.max_attempts:
        RUNS.move(
            session,
            run.id,
            Status.PENDING,
            when=expired,
            available_at=func.now(),
            dispatched_at=None,
            dispatch_epoch=None,
            progress={**run.progress, "phase": "queued", "reason": lost},
        )
        return Status.PENDING
    if run.cancel_requested_at is not None:
        progress = {**run.progress, "phase": "cancelled"}
        ended = RUNS.move(session, run.id, Status.CANCELLED, when=expired, progress=progress)
    else:
        ended = RUNS.move(
            session,
            run.id,
            Status.FAILED,
            when=expired,
            error_code="worker_lost",
            error_message=f"{lost}; no attempts are left",
        )
    let_next_begin(session, ended)
    return Status(ended.status)


def close_cancels(session: Session, *, limit: int = 200) -> Reaped:
    """Cancel pending runs whose cancel was requested while a holder had them."""
    runs = session.scalars(
        select(TaskRun)
        .where(TaskRun.status == Status.PENDING, TaskRun.cancel_requested_at.is_not(None))
        .order_by(TaskRun.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    closed = []
    for run in runs:
        with or_skip(session, run.id, kind="run"):
            close_cancelled(session, run)
            closed.append(run.id)
    return Reaped(cancelled=tuple(closed))


def begin_what_waits(session: Session, *, limit: int = 200) -> list[int]:
    """Let held-back runs begin whose predecessor ended unnoticed; give their ids."""
    waiting = session.scalars(
        select(TaskRun.id)
        .where(TaskRun.status == Status.PENDING, TaskRun.held_back, ~is_busy())
        .order_by(TaskRun.id)
        .limit(limit)
    ).all()
    return [run_id for run_id in waiting if begin_held_back(session, run_id) is not None]


def fail_unknown(
    session: Session, known: Collection[str], *, after_s: float, limit: int = 200
) -> list[int]:
    """Fail pending runs of tasks that no longer exist; give their ids.

    Only those that have waited ``after_s`` seconds: during an upgrade another worker may know the
    task already.
    """
    runs = session.scalars(
        select(TaskRun)
        .where(
            TaskRun.status == Status.PENDING,
            TaskRun.task.not_in(list(known)),
            TaskRun.updated_at < func.now() - timedelta(seconds=after_s),
        )
        .order_by(TaskRun.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    ).all()
    failed = []
    for run in runs:
        with or_skip(session, run.id, kind="run"):
            ended = RUNS.move(
                session,
                run.id,
                Status.FAILED,
                error_code="unknown_task",
                error_message=f"there is no task {run.task} any more",
            )
            let_next_begin(session, ended)
            failed.append(run.id)
    return failed
