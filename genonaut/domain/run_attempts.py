"""Work on a claimed run: every write names the lease.

The caller holds a :class:`RunClaim`. If its lease is lost meanwhile, each of these functions raises
``LeaseLostError`` and writes nothing.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.backoff import backoff_s
from genonaut.core.errors import ConflictError, LeaseLostError
from genonaut.core.text import storable
from genonaut.db.models import RunFailure, TaskRun
from genonaut.domain.lifecycle import Status
from genonaut.domain.run_alerts import tell_of_failure
from genonaut.domain.run_families import copy_failures
from genonaut.domain.runs import (
    RUNS,
    WAITING_FOR_CHILDREN,
    cancel_children,
    let_next_begin,
    wake,
)

MAX_MESSAGE = 2000
MAX_REF = 255
LOOK_AGAIN_S = 60.0
"""A run that waits for its children looks by itself, should it not be woken."""
LOOK_SOON_S = 2.0
"""One whose children have all ended looks so soon: nobody will wake it."""


@dataclass(frozen=True, slots=True)
class RunClaim:
    """A run as it was when it was claimed, and the token that proves the claim."""

    run: TaskRun
    token: UUID

    @classmethod
    def of(cls, run: TaskRun) -> "RunClaim":
        """Give the claim that holds a running run, to act in its holder's place.

        Raises: LeaseLostError: nobody holds it.
        """
        if run.lease_token is None:
            raise LeaseLostError(f"run {run.id} is {run.status}; nobody holds it")
        return cls(run, run.lease_token)

    @property
    def row_id(self) -> int:
        """The run's id."""
        return self.run.id


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that could not be done: what it was, and why."""

    ref: str
    error: str


def claim(session: Session, run_id: int, *, worker: str, lease_s: float) -> RunClaim | None:
    """Take a due pending run; None when it is not there to be taken."""
    run = RUNS.claim(
        session, run_id, worker=worker, lease_s=lease_s, claimed_at=func.clock_timestamp()
    )
    return None if run is None else RunClaim.of(run)


def held_by(session: Session, run_id: int, *, worker: str, for_s: float) -> RunClaim | None:
    """Give the claim that ``worker`` has held for ``for_s`` seconds, to act in its place.

    A younger claim is another one: the worker lost the run meanwhile and took it again.
    """
    run = session.scalars(
        select(TaskRun).where(
            TaskRun.id == run_id,
            TaskRun.status == Status.RUNNING,
            TaskRun.worker == worker,
            TaskRun.claimed_at < func.clock_timestamp() - timedelta(seconds=for_s),
        )
    ).one_or_none()
    return None if run is None else RunClaim.of(run)


def renew(session: Session, held: RunClaim, *, lease_s: float) -> None:
    """Keep the claim for another ``lease_s`` seconds."""
    RUNS.renew(session, held.row_id, token=held.token, lease_s=lease_s)


def report(session: Session, held: RunClaim, **columns: Any) -> TaskRun:
    """Show how far the run is: its ``progress``, its ``log_tail``."""
    return RUNS.write(session, held.row_id, token=held.token, **columns)


def checkpoint(session: Session, held: RunClaim, state: dict[str, Any]) -> None:
    """Keep where the run is, in the transaction that did the work up to there."""
    RUNS.write(session, held.row_id, token=held.token, checkpoint=state)


def fail_items(session: Session, held: RunClaim, failures: Iterable[Failure]) -> None:
    """Record items that could not be done; one that is named again keeps its newest error."""
    rows = {
        storable(failure.ref)[:MAX_REF]: storable(failure.error)[:MAX_MESSAGE]
        for failure in failures
    }
    if not rows:
        return
    new = insert(RunFailure).values(
        [{"run_id": held.row_id, "ref": ref, "error": error} for ref, error in rows.items()]
    )
    session.execute(
        new.on_conflict_do_update(
            index_elements=["run_id", "ref"], set_={"error": new.excluded.error}
        )
    )
    _count_failures(session, held)


def take_failures(session: Session, held: RunClaim, from_ids: Collection[int]) -> None:
    """List what other runs could not do with this one too."""
    copy_failures(session, held.row_id, from_ids)
    _count_failures(session, held)


def _count_failures(session: Session, held: RunClaim) -> None:
    counted = select(func.count()).where(RunFailure.run_id == held.row_id).scalar_subquery()
    RUNS.write(session, held.row_id, token=held.token, failed_items=counted)


def complete(session: Session, held: RunClaim, result: dict[str, Any], **columns: Any) -> None:
    """End the run with its result.

    Raises:
        LeaseLostError: another worker holds the run.
        ConflictError: a cancel was committed first; close the run with :func:`cancelled`.
    """
    ended = RUNS.move(
        session,
        held.row_id,
        Status.COMPLETED,
        token=held.token,
        when=(TaskRun.cancel_requested_at.is_(None),),
        result=result,
        **columns,
    )
    let_next_begin(session, ended)


def fail(session: Session, held: RunClaim, *, code: str, message: str, **columns: Any) -> None:
    """End the run as failed, its checkpoint kept; cancelled, if a cancel came first."""
    try:
        ended = RUNS.move(
            session,
            held.row_id,
            Status.FAILED,
            token=held.token,
            when=(TaskRun.cancel_requested_at.is_(None),),
            error_code=code,
            error_message=storable(message)[:MAX_MESSAGE],
            **columns,
        )
    except LeaseLostError:
        raise
    except ConflictError:
        cancelled(session, held, **columns)
        return
    tell_of_failure(session, ended)
    let_next_begin(session, ended)


def try_again(
    session: Session, held: RunClaim, *, code: str, message: str, first_s: float, **columns: Any
) -> bool:
    """Give the run back to be tried again later, or fail it when its attempts are used up.

    The delay doubles from ``first_s`` seconds with each attempt (see ``core/backoff.py``).

    Returns: whether there will be another attempt.
    """
    if held.run.attempt >= held.run.max_attempts:
        fail(session, held, code=code, message=message, **columns)
        return False
    progress = {**columns.pop("progress", held.run.progress), **_waiting(message)}
    _give_back(
        session,
        held,
        available_at=func.now() + timedelta(seconds=backoff_s(held.run.attempt, first_s)),
        progress=progress,
        **columns,
    )
    return True


def _waiting(message: str) -> dict[str, Any]:
    return {"phase": "waiting_to_retry", "reason": storable(message)[:300]}


def release(session: Session, held: RunClaim, **columns: Any) -> None:
    """Give the run back untouched, for the next worker at once; the attempt does not count."""
    _put_off(session, held, 0, columns, phase="queued")


def pause(session: Session, held: RunClaim, *, for_s: float, reason: str, **columns: Any) -> None:
    """Give the run back, to go on in ``for_s`` seconds; the attempt does not count."""
    _put_off(session, held, for_s, columns, phase="paused", reason=storable(reason)[:300])


def wait_for_children(session: Session, held: RunClaim, **columns: Any) -> None:
    """Give the run back until every run it started has ended; the attempt does not count."""
    _put_off(session, held, LOOK_AGAIN_S, columns, phase=WAITING_FOR_CHILDREN)
    # The last may have ended before this. Or it waits for one that another started, which stood for
    # what it wanted: at once it would look again and again for as long as that one takes.
    wake(session, held.row_id, in_s=LOOK_SOON_S)


def _put_off(
    session: Session, held: RunClaim, for_s: float, columns: dict[str, Any], **shown: str
) -> None:
    progress = {**columns.pop("progress", held.run.progress), **shown}
    _give_back(
        session,
        held,
        available_at=func.now() + timedelta(seconds=for_s),
        attempt=TaskRun.attempt - 1,
        progress=progress,
        **columns,
    )


def cancelled(session: Session, held: RunClaim, **columns: Any) -> None:
    """End the run as cancelled, its checkpoint kept."""
    progress = {**columns.pop("progress", held.run.progress), "phase": "cancelled"}
    cancel_children(session, held.row_id)
    ended = RUNS.move(
        session, held.row_id, Status.CANCELLED, token=held.token, progress=progress, **columns
    )
    let_next_begin(session, ended)


def _give_back(session: Session, held: RunClaim, **values: Any) -> None:
    RUNS.move(
        session,
        held.row_id,
        Status.PENDING,
        token=held.token,
        dispatched_at=None,
        dispatch_epoch=None,
        **values,
    )
