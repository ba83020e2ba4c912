"""Watch runs, say what is to be run, and stop or repeat it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from sqlalchemy.orm import Session
from starlette.responses import Response

from genonaut.api.deps import MAX_ID, Id
from genonaut.api.requests import RunRequest
from genonaut.api.routes import content as content_routes
from genonaut.api.routes import runs as run_routes
from genonaut.api.routes import tasks as task_routes
from genonaut.api.web import lists, schema_forms
from genonaut.api.web.checking import FormError, check, whole
from genonaut.api.web.pictures import small
from genonaut.api.web.visitor import Form, FormDep, PageRoute, View, Visitor, VisitorDep
from genonaut.core.errors import ConflictError, InvalidInputError, NotFoundError
from genonaut.db.models import RunFailure, TaskRun
from genonaut.domain import audit, content, run_history, runs
from genonaut.domain.lifecycle import FINAL, Status
from genonaut.domain.users import Role
from genonaut.worker import discovery, task

router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)

_PAGE = 30
_FAILED_ITEMS = 50
_KIN = 50
_PICTURE = re.compile(r"content/(?P<content>[0-9]{1,18})/images/(?P<position>[0-9]{1,4})")
_EVERY_MINUTE = "jobs.reap_stale"
_BATCH = 200
_ACTS = {
    "cancel": (Status.PENDING, Status.RUNNING),
    "retry": (Status.FAILED, Status.CANCELLED),
}
_DONE = {"cancel": "told to stop", "retry": "repeated"}


@dataclass(frozen=True, slots=True)
class Asked:
    """Which runs somebody wants to see."""

    task: str
    status: str
    schedule: str
    all: bool

    @classmethod
    def of(cls, request: Request) -> Self:
        """Read the filter's fields."""
        task, status, schedule = (
            lists.asked(request, name) for name in ("task", "status", "schedule")
        )
        is_known = status in set(Status)
        return cls(task, status if is_known else "", schedule, lists.asked(request, "all") == "1")

    @property
    def query(self) -> str:
        """Give it as the query of an address."""
        fields = {"task": self.task, "status": self.status, "schedule": self.schedule}
        return urlencode({k: v for k, v in fields.items() if v} | ({"all": 1} if self.all else {}))

    def find(
        self, session: Session, *, among: Sequence[str] = (), before: int | None, limit: int
    ) -> list[TaskRun]:
        """Give them, newest first; ``among`` these states if none was asked for."""
        is_chosen = self.task or self.schedule or self.all
        return runs.list_runs(
            session,
            tasks=[self.task] if self.task else [],
            except_task=None if is_chosen else _EVERY_MINUTE,
            statuses=[self.status] if self.status else among,
            schedule=self.schedule or None,
            before=before,
            limit=limit,
        )


@router.get("/runs")
def list_runs(request: Request, visitor: VisitorDep) -> Response:
    """List runs, newest first; what runs each minute only when it is asked for."""
    asked = Asked.of(request)
    known = list(discovery.catalogue())
    with visitor.look(Role.AUDITOR) as view:
        rows = asked.find(view.session, before=lists.before(request), limit=_PAGE + 1)
        rows, following = lists.split(request, rows, _PAGE)
        shown = [runs.public(run) for run in rows]
    return visitor.show(
        "console/runs.html",
        view,
        active="runs",
        runs=shown,
        following=following,
        asked=asked,
        tasks=known,
        statuses=list(Status),
        acts=[act for act, which in _ACTS.items() if asked.status in {"", *which}],
        query=asked.query,
        here=_here(request),
        hidden=_EVERY_MINUTE,
    )


def _here(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


@router.get("/batch")
def ask_for_batch(request: Request, visitor: VisitorDep) -> Response:
    """Show which runs an act on all that a filter finds would be on, and ask whether to."""
    asked, act = Asked.of(request), lists.asked(request, "act")
    if act not in _ACTS or asked.status not in {"", *_ACTS[act]}:
        raise NotFoundError("there is no such act on these runs")
    with visitor.look(Role.OPERATOR) as view:
        found = asked.find(view.session, among=_ACTS[act], before=None, limit=_BATCH + 1)
        shown = [runs.public(run) for run in found[:_BATCH]]
    return visitor.show(
        "console/batch.html",
        view,
        active="runs",
        act=act,
        runs=shown,
        more=len(found) > _BATCH,
        query=asked.query,
    )


@router.post("/batch")
def do_batch(form: FormDep) -> Response:
    """Cancel or repeat the runs that were shown; what has changed meanwhile is left, and told."""
    act, caller = form.get("act"), form.visitor.caller
    ids = [whole(text) for text in form.get("ids").split(",")[:_BATCH]]
    if act not in _ACTS or not all(isinstance(one, int) and 0 < one <= MAX_ID for one in ids):
        raise InvalidInputError("the form is not one of ours")
    left = 0
    for run_id in ids:
        try:
            if act == "cancel":
                run_routes.cancel(int(run_id), caller)
            else:
                run_routes.retry(int(run_id), form.visitor.request, caller)
        except (ConflictError, NotFoundError, InvalidInputError):
            left += 1
    told = f"{len(ids) - left} {_DONE[act]}" + (f"; {left} could not be" if left else "")
    return form.visitor.lead(f"/console/runs?{form.get('query')}", f"{told}.")


@router.get("/runs/{run_id}")
def run(run_id: Id, visitor: VisitorDep) -> Response:
    """Show a run whole: what was asked, how far it is, what it said, could not do and led to."""
    with visitor.look(Role.AUDITOR) as view:
        row = runs.one(view.session, run_id)
        failed = run_history.failures(view.session, run_id, limit=_FAILED_ITEMS)
        parts = runs.list_runs(view.session, parent_id=run_id, limit=_KIN)
        repeats = runs.list_runs(view.session, retry_of=run_id, limit=_KIN)
        acts = audit.entries(view.session, target=f"run:{run_id}", limit=_KIN)
        shown = {
            **runs.public(row),
            "log_tail": row.log_tail,
            "failed": _with_pictures(view, failed),
            "parts": [runs.public(one) for one in parts],
            "repeats": [runs.public(one) for one in repeats],
        }
        told = [audit.public(entry) for entry in acts]
    known = discovery.catalogue().get(row.task)
    return visitor.show(
        "console/run.html",
        view,
        active="runs",
        run=shown,
        over=row.status in FINAL,
        acts=told,
        only_failed=known is not None and known.only_failed is not None and row.status in FINAL,
    )


def _with_pictures(view: View, failed: list[RunFailure]) -> list[dict[str, Any]]:
    """Give failed items; those that are pictures the visitor may see with what there is of them."""
    places = {one.ref: found for one in failed if (found := _PICTURE.fullmatch(one.ref))}
    ids = {int(found["content"]) for found in places.values()}
    items = content.visible_among(view.session, view.who.user_id, ids)
    images = content.images_of(view.session, items)
    known = {(item.id, image.position): image for item in items for image in images[item.id]}
    shown = []
    for one in failed:
        found = places.get(one.ref)
        key = (int(found["content"]), int(found["position"])) if found else (0, 0)
        image = known.get(key)
        shown.append(
            {
                "ref": one.ref,
                "error": one.error,
                "picture": f"/pictures/{image.content_id}" if image else None,
                "thumbnail": small(content_routes.shown_image(image)) if image else None,
            }
        )
    return shown


@router.post("/runs/{run_id}/retry-failed")
def retry_failed(run_id: Id, form: FormDep) -> Response:
    """Try what a run could not do once more, and only that."""
    answer = run_routes.retry_failed(run_id, form.visitor.request, form.visitor.caller)
    return form.visitor.lead(_page_of(answer), "Only these are tried.")


@router.post("/runs/{run_id}/cancel")
def cancel(run_id: Id, form: FormDep) -> Response:
    """Stop a run: at once while it waits, else at its next progress."""
    run_routes.cancel(run_id, form.visitor.caller)
    return form.visitor.lead(f"/console/runs/{run_id}", "The run is told to stop.")


@router.post("/runs/{run_id}/retry")
def retry(run_id: Id, form: FormDep) -> Response:
    """Repeat a run that failed or was cancelled; it goes on from where that stopped."""
    answer = run_routes.retry(run_id, form.visitor.request, form.visitor.caller)
    return form.visitor.lead(_page_of(answer), "It runs once more.")


def _page_of(answer: Response) -> str:
    """Give the page of the run an answer of the API is about."""
    return f"/console/runs/{answer.headers['location'].rsplit('/', 1)[-1]}"


@router.get("/tasks")
def list_tasks(visitor: VisitorDep) -> Response:
    """List what can be run."""
    with visitor.look(Role.AUDITOR) as view:
        found = [one.public() for one in discovery.catalogue().values()]
    return visitor.show("console/tasks.html", view, active="tasks", tasks=found)


@router.get("/tasks/{name}")
def read_task(name: str, visitor: VisitorDep) -> Response:
    """Say what a task does, and ask what it is to be told."""
    return _task_page(visitor, name)


@router.post("/tasks/{name}")
def start(name: str, form: FormDep) -> Response:
    """Have a task run, or say what it would do."""
    wanted = schema_forms.fields(task.find(name).public()["params_schema"])
    try:
        params = schema_forms.read(wanted, form)
        asked = check(
            RunRequest,
            {
                "params": params,
                "dry_run": form.get("how") == "dry",
                "reason": form.get("reason") or None,
            },
        )
        visitor = form.visitor
        answer = task_routes.run(name, asked, visitor.request, visitor.caller)
    except FormError as error:
        return _task_page(form.visitor, name, form=form, errors=error.errors)
    except InvalidInputError as error:
        return _task_page(form.visitor, name, form=form, errors=schema_forms.wrong(error))
    return form.visitor.lead(_page_of(answer), "It is asked for.")


def _task_page(
    visitor: Visitor,
    name: str,
    *,
    form: Form | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    with visitor.look(Role.AUDITOR) as view:
        found = task.find(name).public()
        lately = runs.list_runs(view.session, tasks=[found["name"]], limit=5)
        recent = [runs.public(one) for one in lately]
    wanted = schema_forms.fields(found["params_schema"])
    told = errors or {}
    return visitor.show(
        "console/task.html",
        view,
        active="tasks",
        status=422 if errors else 200,
        task=found,
        fields=wanted,
        typed=form or Form(visitor, schema_forms.form_of(wanted, {})),
        errors=told,
        elsewhere=schema_forms.elsewhere(wanted, told),
        recent=recent,
    )
