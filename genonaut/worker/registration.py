"""Make a Celery task of every task in the catalogue; imported by workers."""

from typing import Any

import structlog
from celery import Task
from celery.worker.request import Request
from sqlalchemy.exc import SQLAlchemyError

from genonaut.core.errors import ConflictError
from genonaut.domain import run_attempts
from genonaut.worker import discovery
from genonaut.worker.queue_app import celery
from genonaut.worker.run import run
from genonaut.worker.services import get_services
from genonaut.worker.task import TaskDefinition

log = structlog.get_logger(__name__)


class RunRequest(Request):
    """Write down what a pool process that was killed cannot."""

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """After a hard kill, end the run as ``timed_out``, its checkpoint kept."""
        super().on_timeout(soft, timeout)
        if not soft:
            _record_hard_timeout(self.args[0], worker=self.hostname, limit_s=timeout)


def _record_hard_timeout(run_id: int, *, worker: str, limit_s: float) -> None:
    try:
        with get_services().database.transaction() as session:
            held = run_attempts.held_by(session, run_id, worker=worker, for_s=0.9 * limit_s)
            if held is None:
                return
            run_attempts.fail(
                session,
                held,
                code="timed_out",
                message=f"it did not heed its time limit; killed after {limit_s:.0f} seconds",
            )
    except (SQLAlchemyError, ConflictError) as error:
        # The lease runs out in any case, and the reconciler takes the run back then.
        log.warning("timeout_not_recorded", run_id=run_id, reason=str(error)[:200])
        return
    log.error("hard_timeout", run_id=run_id, limit_s=limit_s)


class RunTask(Task):
    """Use our request class in the worker's main process."""

    Request = "genonaut.worker.registration:RunRequest"


def register(definition: TaskDefinition[Any, Any]) -> None:
    """Make the Celery tasks that work on runs of ``definition``, one per name.

    Safe to deliver twice: only the delivery that wins the row's claim works, and every failure is
    decided by the row, so Celery never retries.
    """

    def work(self: Task, run_id: int) -> dict[str, Any]:
        claimed = run(get_services(), definition, run_id, worker=self.request.hostname)
        return {"run_id": run_id, "claimed": claimed}

    for name in (definition.name, *definition.aliases):
        celery.task(
            name=name,
            base=RunTask,
            bind=True,
            soft_time_limit=definition.soft_limit_s,
            time_limit=definition.hard_limit_s,
        )(work)


for _definition in discovery.catalogue().values():
    register(_definition)
