"""Say which jobs are stuck and what becomes of them; ``RULES`` are all there are.

The reconciler of every worker goes by them every few seconds, ``jobs.reap_stale`` and
``GET /admin/stale`` for operators. A job is stuck by its lease, never by its age: one that is slow
and alive is left alone, up to the hard limit. Rules write rows only: what must be told to ComfyUI
is written down too (``domain/abandoned.py``), and what must be asked of it the next claim asks.
"""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select, text, update
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError
from genonaut.db.models import GenerationJob, JobAttempt
from genonaut.domain import attempts, repairs
from genonaut.domain.abandoned import abandon
from genonaut.domain.attempts import Claim
from genonaut.domain.delivery_reaping import DELIVERY_RULES
from genonaut.domain.generation import JOBS, close_cancelled, tell_owner
from genonaut.domain.lifecycle import Status
from genonaut.domain.repairs import Conditions, Limits, Rule, Verdict
from genonaut.domain.run_reaping import RUN_RULES


def clock(connection: Connection | Session) -> float:
    """Give the database's time, by which leases are judged, in seconds since 1970."""
    return float(
        connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one()
    )


def postgres_is_settling(session: Session, *, grace_s: float) -> bool:
    """Whether PostgreSQL started so recently that holders had no chance to renew their leases."""
    started = session.execute(
        text("SELECT now() - pg_postmaster_start_time() < make_interval(secs => :s)"),
        {"s": grace_s},
    )
    return bool(started.scalar_one())


def _close_cancelled(
    session: Session, job: GenerationJob, _: Conditions, __: Verdict, ___: Limits
) -> Status:
    abandon(session, job.backend, job.comfyui_prompt_id)
    return Status(close_cancelled(session, job).status)


def _judge_lost(job: GenerationJob, _: Limits) -> Verdict:
    """Whatever its attempts, a prompt that was posted is looked for once more."""
    may_collect = job.comfyui_prompt_id is not None and not job.collect_only
    return repairs.judge_lost(job, goes_on=job.attempt < job.max_attempts or may_collect)


def _give_back(session: Session, jobs: list[GenerationJob], when: Conditions) -> list[int]:
    ids = [job.id for job in jobs]
    moved = JOBS.give_back_all(
        session,
        ids,
        when=when,
        **repairs.DUE_AGAIN,
        # With its attempts used up, the next claim may only collect.
        collect_only=GenerationJob.attempt >= GenerationJob.max_attempts,
        progress=repairs.queued(GenerationJob),
    )
    back = [job.id for job in moved]
    _close_lost_attempts(session, back)
    return back


def _take_back(
    session: Session, job: GenerationJob, when: Conditions, verdict: Verdict, _: Limits
) -> Status:
    if verdict.becomes is Status.PENDING:
        if not _give_back(session, [job], when):
            raise ConflictError(f"job {job.id} is not lost any more")
        return Status.PENDING
    values: dict[str, Any] = {"progress": {"phase": verdict.becomes}}
    if verdict.becomes is Status.FAILED:
        values |= {"error_code": "worker_lost", "error_message": verdict.why}
    ended = JOBS.move(session, job.id, verdict.becomes, when=when, **values)
    _close_lost_attempts(session, [job.id])
    abandon(session, job.backend, job.comfyui_prompt_id)
    tell_owner(session, ended)
    return verdict.becomes


def _close_lost_attempts(session: Session, job_ids: list[int]) -> None:
    values: dict[str, Any] = {
        "outcome": "worker_lost",
        "ended_at": func.now(),
        "error_code": "worker_lost",
    }
    session.execute(
        update(JobAttempt)
        .where(JobAttempt.job_id.in_(job_ids), JobAttempt.ended_at.is_(None))
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _ends_at(limits: Limits) -> ColumnElement[Any]:
    claimed_at = (
        select(JobAttempt.started_at)
        .where(JobAttempt.job_id == GenerationJob.id, JobAttempt.ended_at.is_(None))
        .scalar_subquery()
    )
    return claimed_at + timedelta(seconds=limits.job_limit_s + limits.stuck_grace_s)


def _judge_overtime(job: GenerationJob, limits: Limits) -> Verdict:
    why = repairs.overtime(job, limits.job_limit_s)
    if job.cancel_requested_at is not None:
        return Verdict(Status.CANCELLED, why)
    again = job.attempt < job.max_attempts and not job.collect_only
    return Verdict(Status.PENDING if again else Status.FAILED, why)


def _fence(
    session: Session, job: GenerationJob, _: Conditions, verdict: Verdict, limits: Limits
) -> Status:
    """Act in the place of the holder, who will find its lease lost whatever it writes."""
    held = Claim.of(job)
    if verdict.becomes is Status.CANCELLED:
        abandon(session, job.backend, job.comfyui_prompt_id)
        attempts.cancelled(session, held, outcome="timed_out", message=verdict.why)
        return Status.CANCELLED
    backoff_s = limits.retry_backoff_s
    again = attempts.stop_overtime(session, held, message=verdict.why, backoff_s=backoff_s)
    return Status.PENDING if again else Status.FAILED


def _name(job: GenerationJob) -> str:
    return " ".join(job.prompt.split())[:60]


CANCEL_LEFT = Rule(
    "cancel_left",
    "job",
    GenerationJob,
    is_stale=lambda _: repairs.cancel_is_left(GenerationJob),
    since=lambda _: GenerationJob.cancel_requested_at.expression,
    judge=repairs.judge_left,
    act=_close_cancelled,
    what=_name,
)
WORKER_LOST = Rule(
    "worker_lost",
    "job",
    GenerationJob,
    is_stale=lambda limits: repairs.lease_has_ended(GenerationJob, limits),
    since=lambda _: GenerationJob.lease_expires_at.expression,
    judge=_judge_lost,
    act=_take_back,
    what=_name,
    give_back=_give_back,
    takes_from_holders=True,
)
OVERTIME = Rule(
    "overtime",
    "job",
    GenerationJob,
    is_stale=lambda limits: repairs.is_overtime(GenerationJob, _ends_at(limits)),
    since=_ends_at,
    judge=_judge_overtime,
    act=_fence,
    what=_name,
    takes_from_holders=True,
)

RULES: tuple[Rule[Any], ...] = (CANCEL_LEFT, WORKER_LOST, OVERTIME, *RUN_RULES, *DELIVERY_RULES)
"""Every rule, in the order they are gone by: what one ends, the next lets begin."""
