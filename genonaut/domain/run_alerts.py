"""Tell operators of runs that have failed."""

from sqlalchemy.orm import Session

from genonaut.db.models import TaskRun
from genonaut.domain import notifications
from genonaut.domain.kinds import Kind


def tell_of_failure(session: Session, run: TaskRun) -> None:
    """Tell of a run that has failed for good; call it in the transaction that ends it."""
    notifications.tell_operators(
        session,
        Kind.RUN_FAILED,
        dedupe_key=f"run:{run.id}",
        title=f"{run.task} has failed",
        body=f"Run {run.id}: {run.error_message}",
        data={"run_id": run.id, "task": run.task, "code": run.error_code},
    )
