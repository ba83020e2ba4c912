"""Read what monitoring asks for: a few statements, whose cost is not the number of rows that ended.

What is unfinished is found by partial indexes, what ended lately by the time it ended.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, literal, select, union_all
from sqlalchemy.orm import Session

from genonaut.db.models import GenerationJob, JobAttempt, NotificationDelivery, TaskRun
from genonaut.domain import delivery_health, health
from genonaut.domain.health import Lateness, ProcessState, QueueState
from genonaut.domain.lifecycle import UNFINISHED, Status

LATELY = timedelta(minutes=5)
OUTCOMES = (
    *("completed", "failed", "retried", "released", "waiting"),
    *("worker_lost", "timed_out", "cancelled"),
)
"""How an attempt at a job may end."""

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Reading:
    """How the whole is at one moment.

    ``jobs`` and ``runs`` count the unfinished by status, ``deliveries`` tells of them by channel as
    :func:`~genonaut.domain.delivery_health.waiting` does. ``ended_…`` count what ended ``LATELY``:
    attempts at jobs by outcome, runs and deliveries by status.
    """

    queues: list[QueueState]
    processes: list[ProcessState]
    late: Lateness
    jobs: Counts
    runs: Counts
    deliveries: dict[str, dict[str, Any]]
    ended_attempts: Counts
    ended_runs: Counts
    ended_deliveries: Counts


def read(
    session: Session, queues: tuple[str, ...], *, job_queue: str, channels: Collection[str]
) -> Reading:
    """Read it all in five statements, two more while a schedule is late.

    ``queues`` are named though nothing waits in them; ended deliveries are those of ``channels``.
    """
    counts = _counts(session, channels)
    return Reading(
        queues=health.queues(session, queues, job_queue=job_queue),
        processes=health.processes(session),
        late=health.lateness(session),
        jobs=counts["jobs"],
        runs=counts["runs"],
        deliveries=delivery_health.waiting(session),
        ended_attempts=counts["ended attempts"],
        ended_runs=counts["ended runs"],
        ended_deliveries=counts["ended deliveries"],
    )


def _counts(session: Session, channels: Collection[str]) -> defaultdict[str, Counts]:
    sent = NotificationDelivery
    # The channels, since they come before the time in the index.
    to_channels = sent.channel.in_(channels)
    rows = session.execute(
        union_all(
            # One by one: there is a partial index of each.
            *(_unfinished("jobs", GenerationJob, status) for status in sorted(UNFINISHED)),
            *(_unfinished("runs", TaskRun, status) for status in sorted(UNFINISHED)),
            _ended("ended attempts", JobAttempt.outcome, JobAttempt.ended_at),
            _ended("ended runs", TaskRun.status, TaskRun.completed_at),
            _ended("ended deliveries", sent.status, sent.completed_at, to_channels),
        )
    )
    found: defaultdict[str, Counts] = defaultdict(dict)
    for name, state, count in rows:
        found[name][state] = count
    return found


def _unfinished(name: str, model: Any, status: Status) -> Select[Any]:
    state: Any = literal(status.value)
    return select(literal(name), state, func.count()).where(model.status == status)


def _ended(name: str, state: Any, at: Any, *of: ColumnElement[bool]) -> Select[Any]:
    lately = at > func.now() - LATELY
    return select(literal(name), state, func.count()).where(lately, *of).group_by(state)
