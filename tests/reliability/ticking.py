"""Schedules of toy tasks, and the books about their due times."""

from collections import Counter
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from sqlalchemy import func, select

from genonaut.db.models import Schedule, TaskRun
from genonaut.domain import schedules
from genonaut.domain.schedules import Terms
from tests.reliability.rig import MEASURED, Rig

TOYS = "tests.support.toys"


def now_at(rig: Rig) -> datetime:
    """Give the time of the database's clock."""
    with rig.database.transaction() as session:
        return session.scalars(select(func.now())).one()


def every_second(
    rig: Rig, *names: str, task: str = "toys.tick", in_s: int = 2, **params: Any
) -> None:
    """Make schedules that are due each second, the first time soon."""
    rig.environment["TASK_PACKAGES"] = TOYS
    first = now_at(rig).replace(microsecond=0) + timedelta(seconds=in_s)
    terms = Terms(task=task, every_s=1, params=params)
    with rig.database.transaction() as session:
        for name in names:
            schedules.create(session, name, terms, next_due_at=first)


def schedule(rig: Rig, name: str) -> Schedule:
    """Read a schedule's row."""
    with rig.database.transaction() as session:
        return schedules.one(session, name)


def runs(rig: Rig, name: str, *statuses: str) -> list[TaskRun]:
    """Read a schedule's runs in the order of their due times."""
    query = select(TaskRun).where(TaskRun.schedule == name).order_by(TaskRun.due_at)
    with rig.database.transaction() as session:
        found = list(session.scalars(query))
    return [run for run in found if not statuses or run.status in statuses]


def check_accounts(rig: Rig, *names: str) -> int:
    """Check that each due time so far has one run, or is covered by one; give their number."""
    count = 0
    for name in names:
        row = schedule(rig, name)
        rows = [run for run in runs(rig, name) if run.due_at <= (row.last_due_at or run.due_at)]
        moments = Counter(
            moment
            for run in rows
            for moment in (run.due_at, *map(datetime.fromisoformat, run.covers or []))
        )
        assert max(moments.values()) == 1, f"{name}: a due time twice"
        gaps = {(late - early).total_seconds() for early, late in pairwise(sorted(moments))}
        assert gaps <= {1.0}, f"{name}: due times are missing"
        count += len(moments)
    return count


def measure_lateness(rig: Rig, what: str, *names: str) -> None:
    """Note how long after their due times runs were stored."""
    late = sorted(
        (run.created_at - run.due_at).total_seconds()
        for name in names
        for run in runs(rig, name)
        if run.due_at
    )
    p50, p99 = late[len(late) // 2], late[int(len(late) * 0.99)]
    MEASURED.append(f"{what}: {len(late)} runs, p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms")
