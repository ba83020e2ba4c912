"""Tell the story of a job."""

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.db.models import GenerationJob, JobAttempt
from genonaut.domain.lifecycle import FINAL, Status


def tell(session: Session, job: GenerationJob) -> list[dict[str, Any]]:
    """Tell a job's story: created, each attempt and how it ended, cancel, the end; oldest first."""
    entries: list[tuple[datetime, str, str]] = [(job.created_at, "created", "The job was created.")]
    attempts = session.scalars(
        select(JobAttempt).where(JobAttempt.job_id == job.id).order_by(JobAttempt.id)
    )
    for attempt in attempts:
        which = f"attempt {attempt.number} of {job.max_attempts}"
        entries.append((attempt.started_at, "attempt_started", f"{attempt.worker} began {which}."))
        if attempt.ended_at is not None:
            told = _ENDINGS[attempt.outcome or ""].format(worker=attempt.worker, which=which)
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
    entries.sort(key=lambda entry: entry[0])
    return [{"at": at.isoformat(), "event": event, "message": text} for at, event, text in entries]


_ENDINGS = {
    "completed": "{worker} completed {which}.",
    "failed": "{which} failed.",
    "retried": "{which} failed and will be tried again.",
    "released": "{worker} gave {which} back; it does not count.",
    "waiting": "{worker} could not go on, {which} does not count.",
    "worker_lost": "worker {worker} lost, {which}.",
    "timed_out": "{which} took too long and was stopped.",
    "cancelled": "{worker} stopped {which} on request.",
}
