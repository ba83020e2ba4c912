"""Make the pictures of a job with ComfyUI."""

from typing import Any

import structlog
from celery import Task
from celery.worker.request import Request
from sqlalchemy.exc import SQLAlchemyError

from genonaut.core.errors import ConflictError
from genonaut.domain import attempts
from genonaut.worker import generation
from genonaut.worker.queue_app import celery
from genonaut.worker.queues import RUN_COMFY_JOB
from genonaut.worker.services import get_services

log = structlog.get_logger(__name__)


class GenerationRequest(Request):
    """Write down what a pool process that was killed cannot."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """After a hard kill, end the attempt as ``timed_out`` and have its prompt stopped."""
        super().on_timeout(soft, timeout)
        if not soft:
            _record_hard_timeout(self.args[0], worker=self.hostname, limit_s=timeout)


def _record_hard_timeout(job_id: int, *, worker: str, limit_s: float) -> None:
    services = get_services()
    settings = services.settings
    try:
        with services.database.transaction() as session:
            held = attempts.held_by(session, job_id, worker=worker, for_s=0.9 * limit_s)
            if held is None:
                return
            # Telling ComfyUI is left to the reconciler: this runs in the loop that serves the
            # whole worker.
            attempts.stop_overtime(
                session,
                held,
                message=f"the task was stopped after {limit_s:.0f} seconds",
                backoff_s=settings.job_retry_backoff_s,
            )
    except (SQLAlchemyError, ConflictError) as error:
        # The lease runs out in any case, and the reconciler takes the job back then.
        log.warning("timeout_not_recorded", job_id=job_id, reason=str(error)[:200])
        return
    log.error("hard_timeout", job_id=job_id, limit_s=limit_s)


class GenerationTask(Task):
    """Use our request class in the worker's main process."""

    Request = "genonaut.worker.tasks.generation:GenerationRequest"


@celery.task(name=RUN_COMFY_JOB, base=GenerationTask, bind=True)
def run_comfy_job(self: Task, job_id: int) -> dict[str, Any]:
    """Make the pictures of one job.

    Safe to deliver twice: only the delivery that wins the row's claim works, and every failure is
    decided by the row (see ``domain/attempts.py``), so Celery never retries.

    Returns: the job's id and the ids of the content images it made.
    """
    images = generation.run(get_services(), job_id, worker=self.request.hostname)
    return {"job_id": job_id, "artifacts": images}
