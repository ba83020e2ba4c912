"""Take, show, cancel and repeat generation jobs."""

import math
from dataclasses import replace
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from genonaut.api import answers, pagination, repeats
from genonaut.api.answers import CHANGING, POSTING, READING, problems
from genonaut.api.config import Settings
from genonaut.api.deps import CallerDep, Id, ServicesDep
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.repeats import KeyHeader
from genonaut.api.requests import JobRequest
from genonaut.clients.comfyui import BackendOptions
from genonaut.core import workflow, workflow_limits
from genonaut.core.errors import InvalidInputError
from genonaut.db.models import GenerationJob
from genonaut.domain import generation, timelines, users
from genonaut.domain.generation import Allowance, Limits, NewJob, Shown
from genonaut.domain.idempotency import Answer
from genonaut.domain.lifecycle import Status
from genonaut.domain.users import Principal, Role

PATH = "/api/v1/generation-jobs"

router = APIRouter(prefix="/generation-jobs", tags=["generation jobs"])

Made: TypeAlias = tuple[Answer, dict[str, str]]

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
_WILL_END = (
    "It ends as cancelled, within seconds: by its worker, which was told to stop, or, if it waits "
    "and a prompt of it may be at ComfyUI, by the reconciler."
)


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
    options = caller.options() if asked.workflow is None else None
    limits = _limits(services.settings)
    # With a key the turn comes later: a request in flight is to be seen, not waited for.
    with caller.transaction(in_turn=key is None) as (session, who):

        def make() -> Made:
            _check_workflow(asked.workflow, who, services.settings)
            job = asked if options is None else _with_known_options(asked, options)
            if key is not None:
                users.take_turn(session, who.user_id)
            return _accepted(*generation.create_within(session, who.user_id, job, limits))

        asked_for = body.model_dump(exclude_unset=True)
        return repeats.once(session, who, key, act="create", asked=asked_for, make=make)


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
            # What was allowed then, to an operator or by another list, may not be so now.
            _check_workflow(job.params.get("workflow"), who, services.settings)
            return _accepted(job, left)

        return repeats.once(session, who, key, act="retry", asked={"job_id": job_id}, make=make)


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
        202: {"model": answers.Job, "description": _WILL_END},
        **CHANGING,
        **problems(404, 409),
    },
)
def cancel(job_id: Id, caller: CallerDep) -> Response:
    """Cancel a job: at once, or within seconds where a prompt of it may be at ComfyUI.

    Asking twice is harmless.
    """
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


def _accepted(job: Shown, left: Allowance) -> Made:
    headers = {
        "RateLimit-Limit": str(left.limit),
        "RateLimit-Remaining": str(left.remaining),
        "RateLimit-Reset": str(math.ceil(left.reset_s)),
    }
    body = {**generation.public(job), "queue_position": None}
    return Answer(202, f"{PATH}/{job.id}", body), headers


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


def _check_workflow(graph: dict[str, Any] | None, who: Principal, settings: Settings) -> None:
    """See that a graph of one's own is one that this user may run.

    Raises: InvalidInputError: it has nodes that are not listed, or asks for too much.
    """
    if graph is not None and not who.role.includes(Role.OPERATOR):
        _refuse_unlisted_nodes(graph, settings.allowed_nodes)
        workflow_limits.check(graph)


def _refuse_unlisted_nodes(graph: dict[str, Any], allowed: frozenset[str]) -> None:
    refused = sorted(workflow.node_classes(graph) - allowed)
    if refused:
        names = ", ".join(name[:60] for name in refused[:5])
        raise InvalidInputError(
            f"these nodes are not allowed: {names}", field="workflow", code="node_not_allowed"
        )
