"""Look back at runs."""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ARRAY, Text, cast, func, select, text, true
from sqlalchemy.orm import Session

from genonaut.db.models import RunFailure, TaskRun
from genonaut.domain.lifecycle import Status

_ENDED = (Status.COMPLETED, Status.FAILED)


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
class Ended:
    """How many runs of a task ended, dry ones too."""

    task: str
    completed: int
    failed: int


@dataclass(frozen=True, slots=True)
class Hour:
    """What ended in the hour that begins then, by task."""

    begins: datetime
    tasks: tuple[Ended, ...]

    @property
    def completed(self) -> int:
        """How many runs did their work."""
        return sum(one.completed for one in self.tasks)

    @property
    def failed(self) -> int:
        """How many runs failed."""
        return sum(one.failed for one in self.tasks)


def by_hour(session: Session, *, hours: int = 24) -> list[Hour]:
    """Count by task what ended in each of the last hours, oldest first, this one included."""
    this = session.scalars(select(func.date_trunc("hour", func.now()))).one()
    first = this - timedelta(hours=hours - 1)
    hour = func.date_trunc("hour", TaskRun.completed_at)
    ended: Counter[tuple[datetime, str, str]] = Counter()
    for begins, task, status, count in session.execute(
        select(hour, TaskRun.task, TaskRun.status, func.count())
        .where(TaskRun.completed_at >= first, TaskRun.status.in_(_ENDED))
        .group_by(text("1"), TaskRun.task, TaskRun.status)
    ):
        ended[begins, task, status] = count
    slots = [first + timedelta(hours=n) for n in range(hours)]
    tasks = sorted({task for _, task, _ in ended})
    return [
        Hour(
            begins,
            tuple(
                Ended(task, *(ended[begins, task, status] for status in _ENDED))
                for task in tasks
                if any(ended[begins, task, status] for status in _ENDED)
            ),
        )
        for begins in slots
    ]


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
