"""Declare when a task runs by itself; operators may edit, pause and add to what is declared."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from genonaut.core.errors import GenonautError
from genonaut.domain.runs import Overlap
from genonaut.domain.schedules import Missed, Terms, check_name
from genonaut.worker.reckoning import checked_timing
from genonaut.worker.task import TaskDefinition, TaskParams

_declared: dict[str, Terms] = {}


class ScheduleDeclarationError(GenonautError):
    """A schedule is declared wrongly; the message says how."""

    code = "invalid_schedule"


def declared() -> dict[str, Terms]:
    """Give the schedules declared so far by name; see ``worker/discovery.py`` for all."""
    return dict(sorted(_declared.items()))


def forget(name: str) -> None:
    """Take back a declaration; for tests, which make their own."""
    _declared.pop(name, None)


def schedule(
    name: str,
    task: TaskDefinition[Any, Any],
    *,
    cron: str | None = None,
    every: timedelta | int | None = None,
    timezone: str = "UTC",
    params: TaskParams | Mapping[str, Any] | None = None,
    overlap: Overlap | str | None = None,
    missed: Missed | str = Missed.RUN_ONCE,
    late_limit_s: int = 300,
    jitter_s: int = 0,
) -> None:
    """Have ``task`` run by itself, by a cron or at an interval.

    Args:
        name: ``area.task.when``; it is stored with every run. Change it, and the old one is
            disabled and a new one begins.
        task: what to run.
        cron: five fields; see docs/schedules.md.
        every: whole seconds, counted from 1970-01-01 00:00 UTC.
        timezone: whose wall clock ``cron`` means.
        params: what each run is told; default: the task's own defaults.
        overlap: instead of the task's own policy.
        missed: ``run_once``: a late run stands for every due time passed over; ``skip``: nothing
            is run when even the last of them is long past, which is recorded.
        late_limit_s: what ``skip`` takes for long.
        jitter_s: each run begins up to so many seconds after it is due, each time others.

    Raises: ScheduleDeclarationError: the declaration is wrong; the message says how.
    """
    try:
        if name in _declared:
            raise ScheduleDeclarationError("the name is taken")
        given = params.model_dump(mode="json") if isinstance(params, TaskParams) else params
        terms = Terms(
            task=task.name,
            params=task.validate(dict(given or {})).model_dump(mode="json"),
            cron=cron,
            every_s=_whole_seconds(every),
            timezone=timezone,
            overlap=Overlap(overlap) if overlap is not None else None,
            missed=Missed(missed),
            late_limit_s=late_limit_s,
            jitter_s=jitter_s,
        )
        check_name(name)
        _declared[name] = checked_timing(terms)
    except (GenonautError, ValueError) as error:
        raise ScheduleDeclarationError(f"schedule {name!r} of {task.name}: {error}") from error


def _whole_seconds(every: timedelta | int | None) -> int | None:
    if not isinstance(every, timedelta):
        return every
    if every % timedelta(seconds=1):
        raise ScheduleDeclarationError("an interval is of whole seconds")
    return every // timedelta(seconds=1)
