"""What the database says about the jobs of a test."""

from uuid import UUID

from sqlalchemy import func, select

from genonaut.db.models import (
    ContentImage,
    ContentItem,
    GenerationJob,
    JobAttempt,
    Repair,
    TaskRun,
    UserNotification,
)
from genonaut.db.session import Database
from genonaut.domain import heartbeats, timelines
from genonaut.domain.lifecycle import FINAL, Status
from tests.reliability.program import PATIENCE_S, NeverError, until
from tests.reliability.simulator import Comfy


class Rows:
    """Read the rows, wait for them, and check that they agree with each other."""

    database: Database
    comfy: Comfy
    user_id: UUID
    brought: set[int]
    """Content items that no job has made."""

    def job(self, job_id: int) -> GenerationJob:
        """Read a job's row."""
        with self.database.transaction() as session:
            return session.get_one(GenerationJob, job_id)

    def jobs(self) -> list[GenerationJob]:
        """Read every job's row."""
        with self.database.transaction() as session:
            return list(session.scalars(select(GenerationJob).order_by(GenerationJob.id)))

    def run_row(self, run_id: int) -> TaskRun:
        """Read a run's row."""
        with self.database.transaction() as session:
            return session.get_one(TaskRun, run_id)

    def wait_for_run(self, run_id: int, status: str, timeout_s: float = PATIENCE_S) -> TaskRun:
        """Wait until a run has this status; fail at once when it has ended otherwise."""

        def is_there() -> TaskRun | None:
            run = self.run_row(run_id)
            if run.status == status:
                return run
            if run.status in FINAL:
                raise NeverError(f"run {run_id} {run.status}: {run.error_code} {run.error_message}")
            return None

        found = until(is_there, f"run {run_id} is {status}", timeout_s)
        assert found is not None
        return found

    def attempts(self, job_id: int) -> list[JobAttempt]:
        """Read a job's attempts, oldest first."""
        query = select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.id)
        with self.database.transaction() as session:
            return list(session.scalars(query))

    def outcomes(self, job_id: int) -> list[str | None]:
        """Say how a job's attempts ended, oldest first; None for one at work."""
        return [attempt.outcome for attempt in self.attempts(job_id)]

    def timeline(self, job_id: int) -> str:
        """Give the messages of a job's timeline, a line each."""
        with self.database.transaction() as session:
            entries = timelines.tell(session, session.get_one(GenerationJob, job_id))
        return "\n".join(entry["message"] for entry in entries)

    def mended(self) -> list[tuple[str, str, int | None, str]]:
        """Give the record of what was moved on: rule, kind, row, and what it became."""
        query = select(Repair).order_by(Repair.id)
        with self.database.transaction() as session:
            return [(act.rule, act.kind, act.row_id, act.became) for act in session.scalars(query)]

    def notices(self, job_id: int) -> list[str]:
        """Give the kinds of the notifications about a job."""
        query = select(UserNotification.kind).where(
            UserNotification.data["job_id"].as_integer() == job_id
        )
        with self.database.transaction() as session:
            return list(session.scalars(query))

    def count(self, status: str) -> int:
        """Count the jobs in a state."""
        query = select(func.count()).where(GenerationJob.status == status)
        with self.database.transaction() as session:
            return session.scalars(query.select_from(GenerationJob)).one()

    def heartbeat_age(self, kind: str) -> float:
        """Give the seconds since the newest heartbeat of a kind of process."""
        with self.database.transaction() as session:
            return min(heartbeats.ages(session, kind=kind).values())

    def wait_for(self, job_id: int, status: str, timeout_s: float = 30) -> GenerationJob:
        """Wait until a job is in a state; another final one fails at once."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            if job.status != status and job.status in FINAL:
                why = f"{job.error_code}: {job.error_message}"
                raise NeverError(f"job {job_id} became {job.status} ({why})")
            return job if job.status == status else None

        return until(there, f"job {job_id} is {status}", timeout_s)  # type: ignore[return-value]

    def wait_for_phase(self, job_id: int, phase: str, timeout_s: float = 30) -> GenerationJob:
        """Wait until a job's progress says so."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            return job if job.progress.get("phase") == phase else None

        return until(there, f"job {job_id} is {phase}", timeout_s)  # type: ignore[return-value]

    def wait_until_claimed(self, job_id: int) -> None:
        """Wait until a worker has taken a job."""
        until(lambda: self.job(job_id).status != Status.PENDING, f"job {job_id} is taken")

    def wait_until_running(self, job_id: int) -> GenerationJob:
        """Wait until some ComfyUI works on a job."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            return job if job.execution_started_at is not None else None

        return until(there, f"job {job_id} is executed")  # type: ignore[return-value]

    def wait_until_drawing(self, job_id: int, timeout_s: float = 30) -> GenerationJob:
        """Wait until the simulator executes a job's prompt, and the row knows."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            prompt_id = job.comfyui_prompt_id
            executing = job.status == Status.RUNNING and job.execution_started_at is not None
            return job if executing and prompt_id and self.comfy.runs_now(prompt_id) else None

        return until(there, f"job {job_id} is drawing", timeout_s)  # type: ignore[return-value]

    def check_books(self) -> None:
        """Check that every job has what belongs to its state, once."""
        with self.database.transaction() as session:
            jobs = session.scalars(select(GenerationJob)).all()
            items = session.scalars(select(ContentItem.id)).all()
            images = session.scalars(select(ContentImage.content_id)).all()
        for job in jobs:
            expected = [f"job_{job.status}"] if job.status in FINAL else []
            assert self.notices(job.id) == expected, f"notices of job {job.id}"
            ended = [attempt for attempt in self.attempts(job.id) if attempt.ended_at]
            running = len(self.attempts(job.id)) - len(ended)
            assert running == (job.status == Status.RUNNING), f"attempts of job {job.id}"
            if job.status == Status.COMPLETED:
                assert images.count(job.content_id) == job.batch_size
        completed = [job.content_id for job in jobs if job.status == Status.COMPLETED]
        items = [item for item in items if item not in self.brought]
        assert len(completed) == len(items), "a content item for each completed job and no other"
        assert set(completed) == set(items)
