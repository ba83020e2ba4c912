"""Look back at runs."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, Text, cast, func, select, text, true
from sqlalchemy.orm import Session

from genonaut.db.models import RunFailure, TaskRun
from genonaut.domain.lifecycle import Status


def last_completed(session: Session, task: str, *, before: int) -> TaskRun | None:
    """Give the newest run of a task that did its work, of those before the id ``before``."""
    return session.scalars(
        select(TaskRun)
        .where(
            TaskRun.task == task,
            TaskRun.id < before,
            TaskRun.status == Status.COMPLETED,
            ~TaskRun.dry_run,
        )
        .order_by(TaskRun.id.desc())
        .limit(1)
    ).one_or_none()


def failures(
    session: Session, run_id: int, *, after: int = 0, limit: int = 100
) -> list[RunFailure]:
    """List the items a run could not do, in the order they failed, after the id ``after``."""
    query = select(RunFailure).where(RunFailure.run_id == run_id, RunFailure.id > after)
    return list(session.scalars(query.order_by(RunFailure.id).limit(limit)))


@dataclass(frozen=True, slots=True)
class Hour:
    """How many runs ended in the hour that begins then, dry ones too."""

    begins: datetime
    completed: int
    failed: int


def by_hour(session: Session, *, hours: int = 24) -> list[Hour]:
    """Count the runs that ended in each of the last hours, oldest first, this one included."""
    this = session.scalars(select(func.date_trunc("hour", func.now()))).one()
    first = this - timedelta(hours=hours - 1)
    hour = func.date_trunc("hour", TaskRun.completed_at)
    found = session.execute(
        select(
            hour,
            func.count().filter(TaskRun.status == Status.COMPLETED),
            func.count().filter(TaskRun.status == Status.FAILED),
        )
        .where(TaskRun.completed_at >= first)
        .group_by(text("1"))
    )
    ended = {begins: (completed, failed) for begins, completed, failed in found}
    slots = (first + timedelta(hours=n) for n in range(hours))
    return [Hour(begins, *ended.get(begins, (0, 0))) for begins in slots]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run, or its state while that is open."""

    id: int
    status: Status


def outcomes(
    session: Session, schedules: Collection[str], *, each: int = 5
) -> dict[str, list[Outcome]]:
    """Give the last runs of every schedule, the newest due time first."""
    names = func.unnest(cast(list(schedules), ARRAY(Text))).table_valued("name")
    wanted = names.render_derived(name="wanted")
    last = (
        select(TaskRun.id, TaskRun.status)
        .where(TaskRun.schedule == wanted.c.name)
        .order_by(TaskRun.due_at.desc())
        .limit(each)
        .lateral()
    )
    found: dict[str, list[Outcome]] = defaultdict(list)
    for name, run_id, status in session.execute(
        select(wanted.c.name, last.c.id, last.c.status).join(last, true())
    ):
        found[name].append(Outcome(run_id, Status(status)))
    return found
