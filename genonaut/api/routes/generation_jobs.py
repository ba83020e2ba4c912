"""Take, show, cancel and repeat generation jobs."""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Header, Query, Request
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from genonaut.api import answers, pagination
from genonaut.api.answers import CHANGING, POSTING, READING, problems
from genonaut.api.config import Settings
from genonaut.api.deps import CallerDep, Id, ServicesDep
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.requests import JobRequest
from genonaut.clients.comfyui import BackendOptions
from genonaut.core import workflow
from genonaut.core.errors import InvalidInputError
from genonaut.db.models import GenerationJob
from genonaut.domain import generation, idempotency, timelines, users
from genonaut.domain.generation import Allowance, Limits, NewJob, Shown
from genonaut.domain.idempotency import Answer, Ticket
from genonaut.domain.lifecycle import Status
from genonaut.domain.users import Principal, Role

PATH = "/api/v1/generation-jobs"

router = APIRouter(prefix="/generation-jobs", tags=["generation jobs"])

Made: TypeAlias = tuple[Shown, Allowance]

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Repeat the request with the same key and get the same answer, for a day.",
    ),
]

_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": answers.Job,
        "description": "The job is stored and will be worked on.",
        "headers": {
            "Location": {"description": "The job.", "schema": {"type": "string"}},
            "RateLimit-Limit": {"schema": {"type": "integer"}},
            "RateLimit-Remaining": {"schema": {"type": "integer"}},
            "RateLimit-Reset": {"schema": {"type": "integer"}},
        },
    }
}


@router.post(
    "",
    status_code=202,
    operation_id="createGenerationJob",
    responses={**_ACCEPTED, **POSTING, **problems(409, 429)},
)
def create(
    body: JobRequest, caller: CallerDep, services: ServicesDep, key: KeyHeader = None
) -> Response:
    """Ask for pictures. Watch the job at `/ws/jobs/{id}`, or read it again."""
    asked = body.to_job()
    # Asked for before the transaction: it may wait a moment for ComfyUI.
    options = services.options.get() if asked.workflow is None else None
    limits = _limits(services.settings)
    # With a key the turn comes later: a request in flight is to be seen, not waited for.
    with caller.transaction(in_turn=key is None) as (session, who):

        def make() -> Made:
            if asked.workflow is not None and not who.role.includes(Role.OPERATOR):
                _refuse_unlisted_nodes(asked.workflow, services.settings.allowed_nodes)
                workflow.check_limits(asked.workflow)
            job = asked if options is None else _with_known_options(asked, options)
            if key is not None:
                users.take_turn(session, who.user_id)
            return generation.create_within(session, who.user_id, job, limits)

        if key is None:
            return _accepted(*make())
        request = _ticket(who, key, "create", body.model_dump(exclude_unset=True))

        return _answer_once(session, request, make)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    operation_id="retryGenerationJob",
    responses={**_ACCEPTED, **CHANGING, **problems(404, 409, 429)},
)
def retry(job_id: Id, caller: CallerDep, services: ServicesDep, key: KeyHeader = None) -> Response:
    """Repeat a failed or cancelled job as a new one."""
    limits = _limits(services.settings)
    with caller.transaction() as (session, who):

        def make() -> Made:
            left = generation.allowance(session, who.user_id, limits)
            job = generation.retry(session, who.user_id, job_id, max_attempts=limits.max_attempts)
            return job, left

        if key is None:
            return _accepted(*make())
        return _answer_once(session, _ticket(who, key, "retry", {"job_id": job_id}), make)


@router.get(
    "",
    operation_id="listGenerationJobs",
    responses={200: {"model": answers.JobPage}, **READING},
)
def list_jobs(
    request: Request,
    caller: CallerDep,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List one's own jobs, newest first."""
    before = pagination.decode(cursor)
    with caller.transaction() as (session, who):
        jobs = generation.list_for(
            session, who.user_id, statuses=status or (), before=before, limit=limit + 1
        )
        places = generation.queue_positions(session, jobs)
    return pagination.page(request, jobs, limit, lambda job: _shown(job, places))


@router.get(
    "/{job_id}",
    operation_id="readGenerationJob",
    responses={200: {"model": answers.Job}, **READING, **problems(404)},
)
def read(job_id: Id, caller: CallerDep) -> Response:
    """Read one of one's own jobs."""
    with caller.services.database.looking() as session:
        job = generation.read(session, caller.credentials.login(), job_id)
    return JSONResponse({**generation.public(job), "queue_position": job.queue_position})


@router.post(
    "/{job_id}/cancel",
    operation_id="cancelGenerationJob",
    responses={
        200: {"model": answers.Job, "description": "The job is cancelled."},
        202: {"model": answers.Job, "description": "Its worker was told to stop."},
        **CHANGING,
        **problems(404, 409),
    },
)
def cancel(job_id: Id, caller: CallerDep) -> Response:
    """Cancel a job: at once while it waits, shortly while it runs. Asking twice is harmless."""
    with caller.transaction() as (session, who):
        job = generation.request_cancel(session, who.user_id, job_id)
    done = job.status == Status.CANCELLED
    return JSONResponse(_shown(job, {}), 200 if done else 202)


@router.get(
    "/{job_id}/timeline",
    operation_id="readGenerationJobTimeline",
    responses={200: {"model": answers.Timeline}, **READING, **problems(404)},
)
def timeline(job_id: Id, caller: CallerDep) -> Response:
    """Tell what happened to a job, oldest first."""
    with caller.transaction() as (session, who):
        job = generation.owned(session, who.user_id, job_id)
        entries = timelines.tell(session, job)
    return JSONResponse({"items": entries})


def _shown(job: GenerationJob, places: dict[int, int]) -> dict[str, Any]:
    return {**generation.public(job), "queue_position": places.get(job.id)}


def _limits(settings: Settings) -> Limits:
    return Limits(settings.jobs_per_minute, settings.jobs_unfinished_max, settings.job_max_attempts)


def _ticket(who: Principal, key: str, act: str, asked: dict[str, Any]) -> Ticket:
    canonical = json.dumps([act, asked], sort_keys=True, separators=(",", ":"))
    return Ticket(who.user_id, key, hashlib.sha256(canonical.encode()).hexdigest())


def _answer_once(session: Session, request: Ticket, make: Callable[[], Made]) -> Response:
    """Make a job, or give the answer an earlier such request got."""
    earlier = idempotency.earlier_answer(session, request)
    if earlier is not None:
        headers = {"Idempotency-Replayed": "true", "Location": earlier.location or PATH}
        return JSONResponse(earlier.body, earlier.status_code, headers=headers)
    job, left = make()
    answer = Answer(202, f"{PATH}/{job.id}", _as_taken(job))
    idempotency.remember(session, request, answer)
    return _accepted(job, left)


def _accepted(job: Shown, left: Allowance) -> Response:
    headers = {
        "Location": f"{PATH}/{job.id}",
        "RateLimit-Limit": str(left.limit),
        "RateLimit-Remaining": str(left.remaining),
        "RateLimit-Reset": str(math.ceil(left.reset_s)),
    }
    return JSONResponse(_as_taken(job), 202, headers=headers)


def _as_taken(job: Shown) -> dict[str, Any]:
    return {**generation.public(job), "queue_position": None}


def _with_known_options(job: NewJob, options: BackendOptions) -> NewJob:
    """Refuse what no server offers, and fill in the checkpoint.

    Raises: InvalidInputError: naming the field.
    """
    sampler = job.sampler_params
    _check_offered("checkpoint_model", job.checkpoint_model, options.checkpoints)
    _check_offered("sampler_params.sampler_name", sampler.get("sampler_name"), options.samplers)
    _check_offered("sampler_params.scheduler", sampler.get("scheduler"), options.schedulers)
    for place, lora in enumerate(job.lora_models):
        _check_offered(f"lora_models.{place}.name", lora["name"], options.loras)
    if job.checkpoint_model is None and options.checkpoints:
        return replace(job, checkpoint_model=options.checkpoints[0])
    return job


def _check_offered(field: str, chosen: str | None, offered: tuple[str, ...]) -> None:
    if chosen is not None and chosen not in offered:
        raise InvalidInputError(
            f"{field}: the server does not have it; see GET /api/v1/generation-options", field=field
        )


def _refuse_unlisted_nodes(graph: dict[str, Any], allowed: frozenset[str]) -> None:
    refused = sorted(workflow.node_classes(graph) - allowed)
    if refused:
        names = ", ".join(name[:60] for name in refused[:5])
        raise InvalidInputError(
            f"these nodes are not allowed: {names}", field="workflow", code="node_not_allowed"
        )
