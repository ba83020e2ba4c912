"""Say which runs are stuck and what becomes of them; see ``domain/reaping.py``, of jobs."""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, literal
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError
from genonaut.db.models import TaskRun
from genonaut.domain import repairs, run_attempts
from genonaut.domain.lifecycle import Status
from genonaut.domain.repairs import Conditions, Limits, Rule, Verdict
from genonaut.domain.run_alerts import tell_of_failure
from genonaut.domain.run_attempts import RunClaim
from genonaut.domain.runs import (
    RUNS,
    begin_held_back,
    close_cancelled,
    is_busy,
    let_next_begin,
)


def _close_cancelled(
    session: Session, run: TaskRun, _: Conditions, __: Verdict, ___: Limits
) -> Status:
    return Status(close_cancelled(session, run).status)


def _judge_lost(run: TaskRun, _: Limits) -> Verdict:
    return repairs.judge_lost(run, goes_on=run.attempt < run.max_attempts)


def _give_back(session: Session, runs: list[TaskRun], when: Conditions) -> list[int]:
    moved = RUNS.give_back_all(
        session,
        [run.id for run in runs],
        when=when,
        **repairs.DUE_AGAIN,
        progress=TaskRun.progress.op("||")(repairs.queued(TaskRun)),
    )
    return [run.id for run in moved]


def _take_back(
    session: Session, run: TaskRun, when: Conditions, verdict: Verdict, _: Limits
) -> Status:
    if verdict.becomes is Status.PENDING:
        if not _give_back(session, [run], when):
            raise ConflictError(f"run {run.id} is not lost any more")
        return Status.PENDING
    values: dict[str, Any] = {"progress": {**run.progress, "phase": verdict.becomes}}
    if verdict.becomes is Status.FAILED:
        values |= {"error_code": "worker_lost", "error_message": verdict.why}
    ended = RUNS.move(session, run.id, verdict.becomes, when=when, **values)
    if verdict.becomes is Status.FAILED:
        tell_of_failure(session, ended)
    let_next_begin(session, ended)
    return verdict.becomes


def _limit_s(task: str, limits: Limits) -> float:
    longest = max(limits.run_limits_s.values(), default=0.0)
    return limits.run_limits_s.get(task, longest)


def _ends_at(limits: Limits) -> ColumnElement[Any]:
    known = [(TaskRun.task == task, literal(s)) for task, s in limits.run_limits_s.items()]
    longest = literal(_limit_s("", limits))
    allowed_s = case(*known, else_=longest) if known else longest
    seconds = allowed_s + limits.stuck_grace_s
    return TaskRun.claimed_at + func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _judge_overtime(run: TaskRun, limits: Limits) -> Verdict:
    is_cancelled = run.cancel_requested_at is not None
    why = repairs.overtime(run, _limit_s(run.task, limits))
    return Verdict(Status.CANCELLED if is_cancelled else Status.FAILED, why)


def _fence(session: Session, run: TaskRun, _: Conditions, verdict: Verdict, __: Limits) -> Status:
    """Act in the place of the holder, who will find its lease lost whatever it writes."""
    run_attempts.fail(session, RunClaim.of(run), code="timed_out", message=verdict.why)
    return verdict.becomes


def _begin(session: Session, run: TaskRun, _: Conditions, __: Verdict, ___: Limits) -> Status:
    if begin_held_back(session, run.id) is None:
        raise ConflictError(f"{run.id} must wait on")
    return Status.PENDING


def _is_unknown(limits: Limits) -> Conditions:
    """Only when nobody took it for a while: in an upgrade another worker may know it already."""
    return (
        TaskRun.status == Status.PENDING,
        TaskRun.task.not_in(sorted(limits.run_limits_s)),
        ~TaskRun.held_back,
        func.greatest(TaskRun.updated_at, TaskRun.available_at)
        < func.now() - timedelta(seconds=limits.unknown_after_s),
    )


def _fail_unknown(
    session: Session, run: TaskRun, _: Conditions, verdict: Verdict, __: Limits
) -> Status:
    ended = RUNS.move(
        session, run.id, Status.FAILED, error_code="unknown_task", error_message=verdict.why
    )
    tell_of_failure(session, ended)
    let_next_begin(session, ended)
    return Status.FAILED


def _name(run: TaskRun) -> str:
    return run.task


CANCEL_LEFT = Rule(
    "cancel_left",
    "run",
    TaskRun,
    is_stale=lambda _: repairs.cancel_is_left(TaskRun),
    since=lambda _: TaskRun.cancel_requested_at.expression,
    judge=repairs.judge_left,
    act=_close_cancelled,
    what=_name,
)
WORKER_LOST = Rule(
    "worker_lost",
    "run",
    TaskRun,
    is_stale=lambda limits: repairs.lease_has_ended(TaskRun, limits),
    since=lambda _: TaskRun.lease_expires_at.expression,
    judge=_judge_lost,
    act=_take_back,
    what=_name,
    give_back=_give_back,
    takes_from_holders=True,
)
OVERTIME = Rule(
    "overtime",
    "run",
    TaskRun,
    is_stale=lambda limits: repairs.is_overtime(TaskRun, _ends_at(limits)),
    since=_ends_at,
    judge=_judge_overtime,
    act=_fence,
    what=_name,
    takes_from_holders=True,
)
HELD_BACK = Rule(
    "held_back",
    "run",
    TaskRun,
    is_stale=lambda _: (TaskRun.status == Status.PENDING, TaskRun.held_back.expression, ~is_busy()),
    since=lambda _: TaskRun.updated_at.expression,
    judge=lambda _, __: Verdict(Status.PENDING, "the run it waited for has ended"),
    act=_begin,
    what=_name,
)
UNKNOWN_TASK = Rule(
    "unknown_task",
    "run",
    TaskRun,
    is_stale=_is_unknown,
    since=lambda _: func.greatest(TaskRun.updated_at, TaskRun.available_at),
    judge=lambda run, _: Verdict(Status.FAILED, f"there is no task {run.task} any more"),
    act=_fail_unknown,
    what=_name,
)

RUN_RULES: tuple[Rule[Any], ...] = (CANCEL_LEFT, WORKER_LOST, OVERTIME, HELD_BACK, UNKNOWN_TASK)
