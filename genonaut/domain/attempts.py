"""Work on a claimed job: every write names the lease, every ending closes the attempt.

The caller holds a :class:`Claim`. If its lease is lost meanwhile, each of these functions raises
``LeaseLostError`` and writes nothing.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from genonaut.core import backoff
from genonaut.core.errors import ConflictError, LeaseLostError
from genonaut.core.text import storable
from genonaut.db.models import ContentImage, ContentItem, GenerationJob, JobAttempt
from genonaut.domain.abandoned import abandon
from genonaut.domain.generation import JOBS, tell_owner
from genonaut.domain.lifecycle import Status

_NO_PROMPT: dict[str, Any] = {
    "comfyui_prompt_id": None,
    "backend": None,
    "execution_started_at": None,
}


@dataclass(frozen=True, slots=True)
class Claim:
    """A job as it was when it was claimed, and the token that proves the claim."""

    job: GenerationJob
    token: UUID

    @classmethod
    def of(cls, job: GenerationJob) -> "Claim":
        """Give the claim that holds a running job, to act in its holder's place.

        Raises: LeaseLostError: nobody holds it.
        """
        if job.lease_token is None:
            raise LeaseLostError(f"job {job.id} is {job.status}; nobody holds it")
        return cls(job, job.lease_token)

    @property
    def job_id(self) -> int:
        """The job's id."""
        return self.job.id

    @property
    def row_id(self) -> int:
        """The job's id, as the row that is held."""
        return self.job.id


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A picture that is safely in storage."""

    storage_key: str
    sha256: str
    mime: str
    width: int
    height: int
    bytes: int
    thumbnails: dict[str, Any]
    thumb_spec: str | None = None
    thumb_error: str | None = None


def claim(session: Session, job_id: int, *, worker: str, lease_s: float) -> Claim | None:
    """Take a due pending job and open its attempt; None when it is not there to be taken."""
    job = JOBS.claim(session, job_id, worker=worker, lease_s=lease_s)
    if job is None:
        return None
    held = Claim.of(job)
    session.add(
        JobAttempt(
            job_id=job.id,
            number=job.attempt,
            worker=worker,
            lease_token=held.token,
            backend=job.backend,
            prompt_id=job.comfyui_prompt_id,
        )
    )
    session.flush()  # whoever ends the attempt in this very transaction must find it
    return held


def held_by(session: Session, job_id: int, *, worker: str, for_s: float) -> Claim | None:
    """Give the claim that ``worker`` has held for ``for_s`` seconds, to act in its place.

    A younger claim is another one: the worker lost the job meanwhile and took it again.
    """
    job = session.scalars(
        select(GenerationJob)
        .join(JobAttempt, JobAttempt.lease_token == GenerationJob.lease_token)
        .where(
            GenerationJob.id == job_id,
            GenerationJob.status == Status.RUNNING,
            GenerationJob.worker == worker,
            JobAttempt.started_at < func.now() - timedelta(seconds=for_s),
        )
    ).one_or_none()
    return None if job is None else Claim.of(job)


def renew(session: Session, held: Claim, *, lease_s: float) -> None:
    """Keep the claim for another ``lease_s`` seconds."""
    JOBS.renew(session, held.job_id, token=held.token, lease_s=lease_s)


def begin_prompt(session: Session, held: Claim, *, backend: str, prompt_id: str) -> None:
    """Store which prompt id is about to be posted where: before the POST, never after.

    An outage is over when a prompt executes, not when one is posted: a server may refuse them all.
    """
    JOBS.write(
        session,
        held.job_id,
        token=held.token,
        backend=backend,
        comfyui_prompt_id=prompt_id,
        execution_started_at=None,
        webhook_received_at=None,
        progress={"phase": "submitting"},
    )
    if held.job.backend != backend:  # another server has the earlier prompt still
        abandon(session, held.job.backend, held.job.comfyui_prompt_id)
    _note_attempt(session, held, backend=backend, prompt_id=prompt_id)


def note_execution_start(session: Session, held: Claim) -> GenerationJob:
    """Record that ComfyUI began to execute the prompt: its time limit counts from here."""
    return JOBS.write(
        session,
        held.job_id,
        token=held.token,
        execution_started_at=func.coalesce(GenerationJob.execution_started_at, func.now()),
        waiting_since=None,
    )


def report(session: Session, held: Claim, progress: dict[str, Any]) -> None:
    """Show how far the job is."""
    JOBS.write(session, held.job_id, token=held.token, progress=_storable_values(progress))


def complete(
    session: Session, held: Claim, images: list[StoredImage], *, details: dict[str, Any]
) -> list[int]:
    """End the job with its pictures: item, images, state and notification in one transaction.

    Returns: the ids of the content images, in batch order.

    Raises:
        LeaseLostError: another worker holds the job.
        ConflictError: a cancel was committed first; close the job with :func:`cancelled`.
    """
    job = held.job
    item = ContentItem(
        title=_title(job.prompt),
        prompt=job.prompt,
        creator_id=job.user_id,
        is_private=bool(job.params.get("is_private", False)),
        item_metadata=details,
    )
    session.add(item)
    session.flush()  # the images and the job name the item's id
    rows = [
        ContentImage(
            content_id=item.id,
            position=position,
            storage_key=image.storage_key,
            sha256=image.sha256,
            mime=image.mime,
            width=image.width,
            height=image.height,
            bytes=image.bytes,
            thumbnails=image.thumbnails,
            thumb_spec=image.thumb_spec,
            thumb_error=image.thumb_error,
        )
        for position, image in enumerate(images)
    ]
    session.add_all(rows)
    session.flush()  # the ids are the task's result
    ended = JOBS.move(
        session,
        job.id,
        Status.COMPLETED,
        token=held.token,
        when=(GenerationJob.cancel_requested_at.is_(None),),
        content_id=item.id,
        progress={"phase": "completed", "percent": 100},
    )
    _close_attempt(session, held, "completed")
    tell_owner(session, ended)
    return [row.id for row in rows]


def _title(prompt: str) -> str:
    line = " ".join(prompt.split())
    return line if len(line) <= 80 else line[:79].rstrip() + "…"


def fail(
    session: Session, held: Claim, *, code: str, message: str, outcome: str = "failed"
) -> None:
    """End the job as failed for good and tell its owner; cancelled, if a cancel came first."""
    message = storable(message)
    try:
        ended = JOBS.move(
            session,
            held.job_id,
            Status.FAILED,
            token=held.token,
            when=(GenerationJob.cancel_requested_at.is_(None),),
            error_code=code,
            error_message=message[:2000],
            progress={"phase": "failed"},
        )
    except LeaseLostError:
        raise
    except ConflictError:
        cancelled(session, held)
        return
    _close_attempt(session, held, outcome, code, message)
    tell_owner(session, ended)


def try_again(
    session: Session,
    held: Claim,
    *,
    code: str,
    message: str,
    backoff_s: float,
    outcome: str = "retried",
    always_counts: bool = False,
) -> bool:
    """Give the job back to be tried again later, or fail it when its attempts are used up.

    The delay doubles from ``backoff_s`` with each attempt (see ``core/backoff.py``). A prompt that
    an earlier attempt posted and this one only found again fails on that earlier attempt's account:
    this one is given back, unless it ``always_counts``.

    Returns: whether there will be another attempt.
    """
    job = held.job
    message = storable(message)
    count = always_counts or not _is_of_earlier_attempt(session, held)
    if (count or job.collect_only) and job.attempt >= job.max_attempts:
        final = "timed_out" if outcome == "timed_out" else "failed"
        fail(session, held, code=code, message=message, outcome=final)
        return False
    _give_back(
        session,
        held,
        delay_s=backoff.backoff_s(job.attempt, backoff_s),
        uncount=not count,
        **_NO_PROMPT,
        progress={"phase": "waiting_to_retry", "reason": message[:300]},
    )
    _close_attempt(session, held, outcome, code, message)
    return True


def stop_overtime(session: Session, held: Claim, *, message: str, backoff_s: float) -> bool:
    """Take a job from a holder that did not heed its time limit, and have its prompt removed.

    Whoever posted the prompt: it is the holder that hangs, so its attempt counts.

    Returns: whether there will be another attempt.
    """
    # Before the row is given back, which forgets the prompt.
    abandon(session, held.job.backend, held.job.comfyui_prompt_id)
    return try_again(
        session,
        held,
        code="timed_out",
        message=message,
        backoff_s=backoff_s,
        outcome="timed_out",
        always_counts=True,
    )


def _is_of_earlier_attempt(session: Session, held: Claim) -> bool:
    earlier = (
        select(JobAttempt.id)
        .join(
            GenerationJob,
            (GenerationJob.id == JobAttempt.job_id)
            & (GenerationJob.comfyui_prompt_id == JobAttempt.prompt_id),
        )
        .where(JobAttempt.job_id == held.job_id, JobAttempt.number < held.job.attempt)
    )
    return session.scalars(select(earlier.exists())).one()


def wait(
    session: Session,
    held: Claim,
    *,
    code: str,
    reason: str,
    phase: str,
    poll_s: float,
    deadline_s: float,
    keep_prompt: bool = True,
) -> bool:
    """Give the job back because something it needs is away; its prompt is found again.

    It is tried again after ``poll_s`` seconds, later ever more rarely, but at least twice a minute.
    The attempt does not count, unless its prompt began to execute during it: a graph that kills
    the server must not be run for ever. The claims that find the server still away count no more.

    Returns: False when it has waited ``deadline_s`` seconds and has therefore failed.
    """
    job = held.job
    reason = storable(reason)
    row = session.execute(
        select(
            func.extract(
                "epoch", func.now() - func.coalesce(GenerationJob.waiting_since, func.now())
            ).label("waited_s"),
            (GenerationJob.execution_started_at >= JobAttempt.started_at).label("executed"),
            GenerationJob.backend,
            GenerationJob.comfyui_prompt_id,
        )
        .join(JobAttempt, JobAttempt.job_id == GenerationJob.id)
        .where(GenerationJob.id == job.id, JobAttempt.lease_token == held.token)
    ).one_or_none()
    waited_s = float(row.waited_s) if row else 0.0
    if row is not None and waited_s > deadline_s:
        message = f"waited {deadline_s / 3600:.1f} hours: {reason}"
        fail(session, held, code=code, message=message)
        abandon(session, row.backend, row.comfyui_prompt_id)  # it may be one of this attempt's
        return False
    count = bool(row and row.executed) and phase == "waiting_for_backend"
    changes: dict[str, Any] = {} if keep_prompt else dict(_NO_PROMPT)
    if count and job.attempt >= job.max_attempts:
        changes["collect_only"] = True
    _give_back(
        session,
        held,
        delay_s=max(poll_s, min(30.0, waited_s / 4)),
        uncount=not count,
        waiting_since=func.coalesce(GenerationJob.waiting_since, func.now()),
        progress={"phase": phase, "reason": reason[:300]},
        **changes,
    )
    _close_attempt(session, held, "waiting", code, reason)
    # A long outage is one line of the timeline, not one for every look; those that counted stay.
    session.execute(
        delete(JobAttempt).where(
            JobAttempt.job_id == held.job_id,
            JobAttempt.outcome == "waiting",
            JobAttempt.number == job.attempt,
            JobAttempt.lease_token != held.token,
        )
    )
    return True


def release(session: Session, held: Claim, *, reason: str, keep_prompt: bool = True) -> None:
    """Give the job back untouched, for the next worker at once; the attempt does not count.

    With ``keep_prompt`` the next claim re-attaches to the prompt at ComfyUI.
    """
    dropped = {} if keep_prompt else _NO_PROMPT
    _give_back(session, held, delay_s=0, uncount=True, progress={"phase": "queued"}, **dropped)
    _close_attempt(session, held, "released", None, reason)


def cancelled(
    session: Session, held: Claim, *, outcome: str = "cancelled", message: str | None = None
) -> None:
    """End the job as cancelled; its prompt has been removed at ComfyUI.

    ``outcome`` and ``message`` tell how the attempt ended, if not by obeying.
    """
    ended = JOBS.move(
        session, held.job_id, Status.CANCELLED, token=held.token, progress={"phase": "cancelled"}
    )
    _close_attempt(session, held, outcome, None, message)
    tell_owner(session, ended)


def _give_back(
    session: Session, held: Claim, *, delay_s: float, uncount: bool, **values: Any
) -> None:
    collecting = held.job.collect_only
    if uncount and not collecting:
        values["attempt"] = GenerationJob.attempt - 1
    JOBS.move(
        session,
        held.job_id,
        Status.PENDING,
        token=held.token,
        available_at=func.now() + timedelta(seconds=delay_s),
        dispatched_at=None,
        dispatch_epoch=None,
        **values,
    )


def _note_attempt(session: Session, held: Claim, **values: Any) -> None:
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.job_id == held.job_id, JobAttempt.lease_token == held.token)
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _storable_values(progress: dict[str, Any]) -> dict[str, Any]:
    return {
        name: storable(value) if isinstance(value, str) else value
        for name, value in progress.items()
    }


def _close_attempt(
    session: Session, held: Claim, outcome: str, code: str | None = None, message: str | None = None
) -> None:
    _note_attempt(
        session,
        held,
        outcome=outcome,
        ended_at=func.now(),
        error_code=code,
        error_message=storable(message)[:2000] if message else None,
    )
