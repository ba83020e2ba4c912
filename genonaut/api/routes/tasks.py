"""Say what the platform can be told to do, and have it done."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_admin as answers
from genonaut.api import repeats, triggering
from genonaut.api.answers import POSTING, READING, problems
from genonaut.api.deps import CallerDep
from genonaut.api.repeats import KeyHeader
from genonaut.api.requests import RunRequest
from genonaut.api.triggering import ACCEPTED, Made
from genonaut.domain import runs
from genonaut.domain.users import Role
from genonaut.worker import discovery, task

router = APIRouter(prefix="/admin/tasks", tags=["tasks"])

Name = Annotated[str, Path(max_length=100, description="As `GET /admin/tasks` lists it.")]


@router.get(
    "",
    operation_id="listTasks",
    responses={200: {"model": answers.TaskList}, **READING, **problems(403)},
)
def list_tasks(caller: CallerDep) -> Response:
    """List what can be run, with the schema of its parameters."""
    with caller.transaction(role=Role.AUDITOR):
        pass  # only a role is asked for
    return JSONResponse({"items": [one.public() for one in discovery.catalogue().values()]})


@router.get(
    "/{name}",
    operation_id="readTask",
    responses={200: {"model": answers.Task}, **READING, **problems(403, 404)},
)
def read(name: Name, caller: CallerDep) -> Response:
    """Read one task, by its name or an older one."""
    with caller.transaction(role=Role.AUDITOR):
        pass  # only a role is asked for
    return JSONResponse(task.find(name).public())


@router.post(
    "/{name}/runs",
    status_code=202,
    operation_id="runTask",
    responses={**ACCEPTED, **POSTING, **problems(404, 409)},
)
def run(
    name: Name, body: RunRequest, request: Request, caller: CallerDep, key: KeyHeader = None
) -> Response:
    """Have a task run. Watch the run at `/ws/runs/{id}`, or read it again."""
    with caller.transaction(role=Role.OPERATOR) as (session, who):
        wanted = task.find(name)

        def make() -> Made:
            asked = wanted.request(
                wanted.validate(body.params),
                trigger=triggering.of(request, caller),
                dry_run=body.dry_run,
                actor=who.username,
                reason=body.reason,
            )
            return triggering.accepted(session, who, "run.trigger", runs.trigger(session, asked))

        asked_for = {"task": wanted.name, **body.model_dump()}
        return repeats.once(session, who, key, act="run.trigger", asked=asked_for, make=make)
