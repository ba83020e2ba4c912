"""Tell the story of a job."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.db.models import GenerationJob, JobAttempt
from genonaut.domain import repairs
from genonaut.domain.lifecycle import FINAL, Status


def tell(session: Session, job: GenerationJob) -> list[dict[str, Any]]:
    """Tell a job's story, oldest first: created, published anew, each attempt, cancel, the end."""
    entries: list[tuple[datetime, str, str]] = [(job.created_at, "created", "The job was created.")]
    attempts = session.scalars(
        select(JobAttempt).where(JobAttempt.job_id == job.id).order_by(JobAttempt.id)
    ).all()
    following = [*(attempt.number for attempt in attempts[1:]), job.attempt + 1]
    for attempt, next_number in zip(attempts, following, strict=False):
        which = f"attempt {attempt.number} of {job.max_attempts}"
        entries.append((attempt.started_at, "attempt_started", f"{attempt.worker} began {which}."))
        if attempt.ended_at is not None:
            ending = attempt.outcome or ""
            if ending == "waiting" and attempt.number == job.max_attempts:
                ending = "waiting_last"
            elif ending == "waiting" and next_number > attempt.number:
                ending = "waiting_counted"
            told = _ENDINGS[ending].format(worker=attempt.worker, which=which)
            if attempt.error_message:
                told = f"{told.rstrip('.')}: {attempt.error_message}"
            entries.append((attempt.ended_at, f"attempt_{attempt.outcome}", told))
    if job.cancel_requested_at is not None:
        entries.append((job.cancel_requested_at, "cancel_requested", "Cancelling was requested."))
    if job.completed_at is not None and job.status in FINAL:
        told = f"The job {'was cancelled' if job.status == Status.CANCELLED else job.status}."
        if job.error_message:
            told = f"{told.rstrip('.')}: {job.error_message}"
        entries.append((job.completed_at, job.status, told))
    entries += [
        (act.at, act.rule, "The broker had lost its message; it was published again.")
        for act in repairs.told_of(session, "job", job.id)
        if act.rule == repairs.MESSAGE_LOST
    ]
    entries.sort(key=lambda entry: entry[0])
    return [{"at": at.isoformat(), "event": event, "message": text} for at, event, text in entries]


_ENDINGS = {
    "completed": "{worker} completed {which}.",
    "failed": "{which} failed.",
    "retried": "{which} failed and will be tried again.",
    "released": "{worker} gave {which} back; it does not count.",
    "waiting": "{worker} could not go on, {which} does not count.",
    "waiting_counted": "{worker} could not go on, though ComfyUI had begun; {which} counts.",
    "waiting_last": "{worker} could not go on with {which}.",  # then pictures are but collected
    "worker_lost": "worker {worker} lost, {which}.",
    "timed_out": "{which} took too long and was stopped.",
    "cancelled": "{worker} stopped {which} on request.",
}
