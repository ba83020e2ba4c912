"""Take requests for pictures, show where they stand, cancel and repeat them."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias, cast
from uuid import UUID, uuid4

from sqlalchemy import CTE, Integer, Row, Select, Table, bindparam, case, func, insert, select, true
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, NotFoundError, RateLimitedError
from genonaut.core.events import Event
from genonaut.db.models import GenerationJob
from genonaut.db.session import add_event
from genonaut.domain import graphs, notifications, users
from genonaut.domain.lifecycle import FINAL, UNFINISHED, Machine, Status
from genonaut.domain.users import Login

Shown: TypeAlias = GenerationJob | Row[Any]
"""A job, or a row with a job's columns: on hot ways making an object takes longer than reading."""

MAX_SEED = 2**53 - 1
"""Seeds stay below this, so that every JSON reader keeps them exact."""


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def public(job: Shown) -> dict[str, Any]:
    """Give what the owner may see, ready for JSON; the same for API, sockets and events.

    The API adds the ``queue_position``, which changes without the row and so without an event.
    """
    return {
        "id": job.id,
        "status": job.status,
        "version": job.version,
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
        "checkpoint_model": job.checkpoint_model,
        "lora_models": graphs.loras(job.lora_models),
        "width": job.width,
        "height": job.height,
        "batch_size": job.batch_size,
        "sampler_params": graphs.sampler_params(job.params),
        "has_workflow": "workflow" in job.params,
        "is_private": bool(job.params.get("is_private", False)),
        "progress": job.progress,
        "attempt": job.attempt,
        "max_attempts": job.max_attempts,
        "cancel_requested": job.cancel_requested_at is not None,
        "content_id": job.content_id,
        "retry_of": job.retry_of,
        "error": (
            {"code": job.error_code, "message": job.error_message} if job.error_code else None
        ),
        "celery_task_id": job.celery_task_id,
        "comfyui_prompt_id": job.comfyui_prompt_id,
        "available_at": _iso(job.available_at),
        "created_at": _iso(job.created_at),
        "updated_at": _iso(job.updated_at),
        "started_at": _iso(job.started_at),
        "completed_at": _iso(job.completed_at),
    }


def describe(job: Shown) -> Event:
    """Tell of a change to everyone who may watch the job."""
    return Event(
        kind="job",
        id=job.id,
        version=job.version,
        topics=(f"job:{job.id}", f"user:{job.user_id}"),
        row=public(job),
        final=job.status in FINAL,
    )


JOBS: Machine[GenerationJob] = Machine(
    GenerationJob, describe, uncounted=GenerationJob.collect_only.expression
)


@dataclass(frozen=True, slots=True)
class NewJob:
    """A validated request for pictures."""

    prompt: str
    negative_prompt: str | None = None
    checkpoint_model: str | None = None
    lora_models: tuple[dict[str, Any], ...] = ()
    width: int = 512
    height: int = 512
    batch_size: int = 1
    sampler_params: dict[str, Any] = field(default_factory=dict)
    workflow: dict[str, Any] | None = None
    is_private: bool = False

    def params(self) -> dict[str, Any]:
        """Give what is kept in the ``params`` column; the seed is chosen here if it was not."""
        sampler = dict(self.sampler_params)
        if sampler.get("seed") is None:
            sampler["seed"] = secrets.randbelow(MAX_SEED + 1)
        kept: dict[str, Any] = {"sampler_params": sampler, "is_private": self.is_private}
        if self.workflow is not None:
            kept["workflow"] = self.workflow
        return kept


@dataclass(frozen=True, slots=True)
class Limits:
    """What one user may ask for at once."""

    per_minute: int
    unfinished_max: int
    max_attempts: int = 4


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a user may still create this minute."""

    limit: int
    remaining: int
    reset_s: float


_TABLE = cast(Table, GenerationJob.__table__)


def _counts() -> CTE:
    """Count what a user made within a minute and has not finished, up to the limits."""
    mine = _TABLE.c.user_id == bindparam("owner_id", type_=_TABLE.c.user_id.type)
    recent = (
        select(_TABLE.c.created_at)
        .where(mine)
        .order_by(_TABLE.c.id.desc())
        .limit(bindparam("per_minute", type_=Integer))
        .subquery()
    )
    age_s = func.extract("epoch", func.clock_timestamp() - recent.c.created_at)
    # Rows beyond the first unfinished_max are not counted: the answer would be the same.
    unfinished = (
        select(_TABLE.c.id)
        .where(mine, _TABLE.c.status.in_(sorted(UNFINISHED)))
        .limit(bindparam("unfinished_max", type_=Integer))
        .subquery()
    )
    return (
        select(
            func.count().filter(age_s < 60).label("made"),
            func.coalesce(60 - func.max(age_s).filter(age_s < 60), 60).label("reset_s"),
            select(func.count()).select_from(unfinished).scalar_subquery().label("unfinished"),
        )
        .select_from(recent)
        .cte("counts")
    )


def _insert_within_limits() -> Select[Any]:
    counts = _counts()
    given = (
        *("user_id", "prompt", "negative_prompt", "checkpoint_model", "lora_models", "width"),
        *("height", "batch_size", "params", "max_attempts", "celery_task_id", "progress"),
    )
    allowed = select(*(bindparam(name, type_=_TABLE.c[name].type) for name in given)).where(
        counts.c.made < bindparam("per_minute", type_=Integer),
        counts.c.unfinished < bindparam("unfinished_max", type_=Integer),
    )
    job = insert(_TABLE).from_select(given, allowed).returning(*_TABLE.c).cte("job")
    return select(counts, job).join_from(counts, job, true(), isouter=True)


# Made once: making a statement takes longer than running it.
_COUNT = select(_counts())
_CREATE = _insert_within_limits()


def allowance(session: Session, user_id: UUID, limits: Limits) -> Allowance:
    """Check that ``user_id`` may create one more job now.

    Requests of one user are counted one after the other (see ``users.take_turn``), so a burst
    cannot pass a limit together.

    Raises: RateLimitedError: too many this minute, or too many unfinished.
    """
    users.take_turn(session, user_id)
    return _allowed(session.execute(_COUNT, _bounds(user_id, limits)).one(), limits)


def _bounds(user_id: UUID, limits: Limits) -> dict[str, Any]:
    return {
        "owner_id": user_id,
        "per_minute": limits.per_minute,
        "unfinished_max": limits.unfinished_max,
    }


def _allowed(counts: Row[Any], limits: Limits) -> Allowance:
    reset_s = max(1.0, float(counts.reset_s))
    if counts.made >= limits.per_minute:
        raise RateLimitedError(
            f"at most {limits.per_minute} jobs a minute; try again in {reset_s:.0f} s",
            retry_after_s=reset_s,
            limit=limits.per_minute,
        )
    if counts.unfinished >= limits.unfinished_max:
        raise RateLimitedError(
            f"at most {limits.unfinished_max} unfinished jobs; wait for one to end or cancel one",
            retry_after_s=10,
            limit=limits.unfinished_max,
        )
    return Allowance(limits.per_minute, limits.per_minute - counts.made - 1, reset_s)


def create_within(
    session: Session, user_id: UUID, request: NewJob, limits: Limits
) -> tuple[Row[Any], Allowance]:
    """Store a job if its owner may have one more now: :func:`allowance` and :func:`create` at once.

    One statement does both; the transaction must have taken the user's turn before it.

    Raises: RateLimitedError: too many this minute, or too many unfinished.
    """
    values = _values(user_id, request, limits.max_attempts)
    row = session.execute(_CREATE, {**_bounds(user_id, limits), **values}).one()
    left = _allowed(row, limits)
    add_event(session, describe(row))
    return row, left


def create(session: Session, user_id: UUID, request: NewJob, *, max_attempts: int) -> GenerationJob:
    """Store a job as ``pending``, whatever else its owner has."""
    return _insert(session, GenerationJob(**_values(user_id, request, max_attempts)))


def _values(user_id: UUID, request: NewJob, max_attempts: int) -> dict[str, Any]:
    """Give the columns of a new job; its Celery task id is chosen here, before anything is sent."""
    return {
        "user_id": user_id,
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "checkpoint_model": request.checkpoint_model,
        "lora_models": list(request.lora_models) or None,
        "width": request.width,
        "height": request.height,
        "batch_size": request.batch_size,
        "params": request.params(),
        "max_attempts": max_attempts,
        "celery_task_id": str(uuid4()),
        "progress": {"phase": "queued"},
    }


def _insert(session: Session, job: GenerationJob) -> GenerationJob:
    session.add(job)
    session.flush()  # the id and the database's defaults are part of the answer
    add_event(session, describe(job))
    return job


def owned(session: Session, user_id: UUID, job_id: int) -> GenerationJob:
    """Give a user's own job.

    Raises: NotFoundError: it does not exist or is another user's.
    """
    job = session.scalars(
        select(GenerationJob).where(GenerationJob.id == job_id, GenerationJob.user_id == user_id)
    ).one_or_none()
    if job is None:
        raise NotFoundError("there is no such job")
    return job


def _read_with(login: Select[Any]) -> Select[Any]:
    who = login.cte("who")
    line = _TABLE.alias("line")
    place = (
        select(func.count())
        .where(line.c.status == Status.PENDING.value, line.c.id <= _TABLE.c.id)
        .scalar_subquery()
    )
    mine = (_TABLE.c.id == bindparam("job_id")) & (_TABLE.c.user_id == who.c.login_user_id)
    shown = case((_TABLE.c.status == Status.PENDING.value, place)).label("queue_position")
    return select(who, *_TABLE.c, shown).join_from(who, _TABLE, mine, isouter=True)


_READ = {kind: _read_with(login) for kind, login in users.LOGINS.items()}


def read(session: Session, login: Login, job_id: int) -> Row[Any]:
    """Give a job to its owner, with its ``queue_position``; one statement checks the login too.

    Raises:
        UnauthorizedError: the login is not valid.
        NotFoundError: the job does not exist or is another user's.
    """
    row = session.execute(
        _READ[login.kind], {"secret_hash": login.secret_hash, "job_id": job_id}
    ).one_or_none()
    users.admit(session, row)
    if row is None or row.id is None:
        raise NotFoundError("there is no such job")
    return row


def list_for(
    session: Session,
    user_id: UUID,
    *,
    statuses: Sequence[str] = (),
    before: int | None = None,
    limit: int = 50,
) -> list[GenerationJob]:
    """List a user's jobs, newest first, older than the id ``before``."""
    query: Select[GenerationJob] = select(GenerationJob).where(GenerationJob.user_id == user_id)
    if statuses:
        query = query.where(GenerationJob.status.in_(statuses))
    if before is not None:
        query = query.where(GenerationJob.id < before)
    return list(session.scalars(query.order_by(GenerationJob.id.desc()).limit(limit)))


def queue_positions(session: Session, jobs: Sequence[GenerationJob]) -> dict[int, int]:
    """Count, for each pending job, its place in the queue of everyone's jobs; 1 is next."""
    pending = [job.id for job in jobs if job.status == Status.PENDING]
    if not pending:
        return {}
    line = (
        select(GenerationJob.id, func.row_number().over(order_by=GenerationJob.id).label("place"))
        .where(GenerationJob.status == Status.PENDING, GenerationJob.id <= max(pending))
        .subquery()
    )
    rows = session.execute(select(line.c.id, line.c.place).where(line.c.id.in_(pending)))
    return {row.id: row.place for row in rows}


def request_cancel(session: Session, user_id: UUID, job_id: int) -> GenerationJob:
    """Cancel a job: at once while it is pending, within seconds through its holder while running.

    A pending job whose prompt may still be at ComfyUI is closed within seconds by the reconciler,
    which removes the prompt too; nobody claims it any more. Once this is committed the job can only
    end as ``cancelled``. Asking again is harmless.

    Raises:
        NotFoundError: it does not exist or is another user's.
        ConflictError: it has already completed or failed.
    """
    job = JOBS.note(
        session,
        job_id,
        (
            GenerationJob.user_id == user_id,
            GenerationJob.status.in_(UNFINISHED),
            GenerationJob.cancel_requested_at.is_(None),
        ),
        cancel_requested_at=func.now(),
    )
    if job is None:
        job = owned(session, user_id, job_id)
        if job.status in {Status.COMPLETED, Status.FAILED}:
            raise ConflictError(f"the job has already {job.status}", code=f"already_{job.status}")
        return job
    if job.status == Status.PENDING and job.comfyui_prompt_id is None:
        return close_cancelled(session, job)
    return job


def close_cancelled(session: Session, job: GenerationJob) -> GenerationJob:
    """End a pending job as ``cancelled`` and tell its owner."""
    ended = JOBS.move(session, job.id, Status.CANCELLED, progress={"phase": "cancelled"})
    tell_owner(session, ended)
    return ended


def retry(session: Session, user_id: UUID, job_id: int, *, max_attempts: int) -> GenerationJob:
    """Repeat a failed or cancelled job as a new one with ``retry_of`` set.

    Raises:
        NotFoundError: it does not exist or is another user's.
        ConflictError: it has not ended, or it completed, or its kind is not run any more.
    """
    old = owned(session, user_id, job_id)
    if old.status not in {Status.FAILED, Status.CANCELLED}:
        raise ConflictError(f"only a failed or cancelled job is retried; this one is {old.status}")
    if old.job_type != "image":
        raise ConflictError(f"jobs of type {old.job_type} are not run any more")
    params = {k: v for k, v in old.params.items() if k != "migrated_from"}
    sampler = graphs.sampler_params(params)
    sampler.setdefault("seed", secrets.randbelow(MAX_SEED + 1))
    job = GenerationJob(
        user_id=user_id,
        prompt=old.prompt,
        negative_prompt=old.negative_prompt,
        checkpoint_model=old.checkpoint_model,
        lora_models=old.lora_models,
        width=old.width,
        height=old.height,
        batch_size=old.batch_size,
        params={**params, "sampler_params": sampler},
        max_attempts=max_attempts,
        retry_of=old.id,
        celery_task_id=str(uuid4()),
        progress={"phase": "queued"},
    )
    return _insert(session, job)


_NOTICES = {
    Status.COMPLETED: ("job_completed", "Your picture is ready"),
    Status.FAILED: ("job_failed", "Your picture could not be made"),
    Status.CANCELLED: ("job_cancelled", "Your job was cancelled"),
}


def tell_owner(session: Session, job: GenerationJob) -> None:
    """Record the one notification of a job's end; call it in the transaction that ends it."""
    kind, title = _NOTICES[Status(job.status)]
    if job.status == Status.COMPLETED and job.batch_size > 1:
        title = "Your pictures are ready"
    body = job.error_message if job.status == Status.FAILED else job.prompt
    notifications.notify(
        session,
        job.user_id,
        kind,
        dedupe_key=f"job:{job.id}",
        title=title,
        body=(body or "")[:500],
        data={"job_id": job.id, "content_id": job.content_id},
    )


def find_by_prompt(session: Session, prompt_id: str) -> GenerationJob | None:
    """Find the job that waits for ``prompt_id`` at ComfyUI."""
    return session.scalars(
        select(GenerationJob).where(GenerationJob.comfyui_prompt_id == prompt_id).limit(1)
    ).first()


def note_webhook(session: Session, job: GenerationJob) -> None:
    """Record that ComfyUI's side says the job's prompt has ended; its holder will look."""
    JOBS.note(
        session,
        job.id,
        (GenerationJob.status == Status.RUNNING,),
        webhook_received_at=func.now(),
    )
