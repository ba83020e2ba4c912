"""Watch runs, say what is to be run, and stop or repeat it."""

import re
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from genonaut.api.deps import Id
from genonaut.api.requests import RunRequest
from genonaut.api.routes import content as content_routes
from genonaut.api.routes import runs as run_routes
from genonaut.api.routes import tasks as task_routes
from genonaut.api.web import lists, schema_forms
from genonaut.api.web.checking import FormError, check
from genonaut.api.web.pictures import small
from genonaut.api.web.visitor import Form, FormDep, PageRoute, View, Visitor, VisitorDep
from genonaut.core.errors import InvalidInputError
from genonaut.db.models import RunFailure
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


@router.get("/runs")
def list_runs(request: Request, visitor: VisitorDep) -> Response:
    """List runs, newest first; what runs each minute only when it is asked for."""
    asked = {name: lists.asked(request, name) for name in ("task", "status", "schedule", "all")}
    known = list(discovery.catalogue())
    tasks = [asked["task"]] if asked["task"] else []
    if not tasks and not asked["schedule"] and asked["all"] != "1":
        tasks = [name for name in known if name != _EVERY_MINUTE]
    statuses = [asked["status"]] if asked["status"] in set(Status) else []
    with visitor.look(Role.AUDITOR) as view:
        rows = runs.list_runs(
            view.session,
            tasks=tasks,
            statuses=statuses,
            schedule=asked["schedule"] or None,
            before=lists.before(request),
            limit=_PAGE + 1,
        )
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
        here=_here(request),
        hidden=_EVERY_MINUTE,
    )


def _here(request: Request) -> str:
    return f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path


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
