"""Write a schedule: make one, or change one on the version that was read.

The form shows when what is typed would be due: the scripts ask for the page anew while one types
and take that part of it; without them a button does.
"""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from genonaut.api.requests_schedules import ScheduleRequest, TermsRequest, TimingRequest
from genonaut.api.routes import schedules as routes
from genonaut.api.routes.schedules import Name
from genonaut.api.web import lists, schema_forms
from genonaut.api.web.checking import FormError, check, moment, whole
from genonaut.api.web.pages.console import answer_body
from genonaut.api.web.visitor import Form, FormDep, PageRoute, Visitor, VisitorDep
from genonaut.core.errors import ConflictError, InvalidInputError, NotFoundError
from genonaut.domain import schedules
from genonaut.domain.runs import Overlap
from genonaut.domain.schedules import Missed, StaleVersionError, Terms
from genonaut.domain.users import Role
from genonaut.worker import discovery, task
from genonaut.worker.reckoning import checked

router = APIRouter(prefix="/console", include_in_schema=False, route_class=PageRoute)

_HERE = "/console/schedules"
_FIRINGS = 10
_TIMING = ("cron", "every_s", "anchor_at", "timezone")
_WORDS = {
    "cron": "Cron",
    "every_s": "Every, seconds",
    "anchor_at": "Counted from",
    "timezone": "Time zone",
    "overlap": "If it overlaps",
    "missed": "If it is missed",
    "late_limit_s": "Too late after, seconds",
    "jitter_s": "Jitter, seconds",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """A term of which the visitor's form says another thing than the schedule does now."""

    name: str
    yours: Any
    theirs: Any


@router.get("/new-schedule")
def ask_for_new(request: Request, visitor: VisitorDep) -> Response:
    """Ask which task is to be scheduled, then when and with what."""
    wanted = lists.asked(request, "task")
    if not wanted:
        with visitor.look(Role.OPERATOR) as view:
            tasks = list(discovery.catalogue().values())
        return visitor.show(
            "console/schedule_task.html", view, active="schedules", tasks=tasks, default=""
        )
    usual = Terms(task=task.find(wanted).name, cron="0 3 * * *")
    return _page(visitor, _form_of(visitor, usual), usual.task)


@router.post("/new-schedule")
def make(form: FormDep) -> Response:
    """Make a schedule, or say when it would be due."""
    visitor, name = form.visitor, task.find(form.get("task")).name
    if form.get("how") == "preview":
        return _page(visitor, form, name)
    try:
        values = {**_terms(form, name), "name": form.get("name")}
        routes.create(check(ScheduleRequest, values), visitor.caller)
    except FormError as error:
        return _page(visitor, form, name, errors=error.errors)
    except InvalidInputError as error:
        return _page(visitor, form, name, errors=schema_forms.wrong(error))
    except ConflictError as error:  # of all that is asked for, the name alone can be taken
        return _page(visitor, form, name, errors={"name": str(error)})
    return visitor.lead(f"{_HERE}/{form.get('name')}", "It is scheduled.")


@router.get("/schedules/{name}/edit")
def edit(name: Name, visitor: VisitorDep) -> Response:
    """Show a schedule's terms as a form, with the version they are of."""
    terms, version = _read(visitor, name)
    return _page(visitor, _form_of(visitor, terms, version), terms.task, name=name)


@router.post("/schedules/{name}/edit")
def save(name: Name, form: FormDep) -> Response:
    """Store an edit; one made on an older version is shown beside what the schedule says now."""
    visitor = form.visitor
    now, version = _read(visitor, name)
    if form.get("how") == "preview":
        return _page(visitor, form, now.task, name=name)
    try:
        asked = check(TermsRequest, _terms(form, now.task))
        wanted = checked(asked.to_terms())
        routes.edit(name, asked, visitor.caller, f'"{form.get("version")}"')
    except FormError as error:
        return _page(visitor, form, now.task, name=name, errors=error.errors)
    except InvalidInputError as error:
        return _page(visitor, form, now.task, name=name, errors=schema_forms.wrong(error))
    except StaleVersionError:
        apart = _differences(wanted, now)
        return _page(visitor, form, now.task, name=name, apart=apart, version=version)
    return visitor.lead(f"{_HERE}/{name}", "It is changed.")


@router.post("/schedules/{name}/restore")
def restore(name: Name, form: FormDep) -> Response:
    """Put a schedule back to what the code says."""
    visitor = form.visitor
    with visitor.look(Role.OPERATOR) as view:
        said = schedules.one(view.session, name).code_default
    if said is None:
        raise NotFoundError("the code says nothing of this schedule")
    routes.edit(name, check(TermsRequest, said), visitor.caller, f'"{form.get("version")}"')
    return visitor.lead(f"{_HERE}/{name}", "It is as the code says.")


@router.post("/schedules/{name}/remove")
def remove(name: Name, form: FormDep) -> Response:
    """Remove an operator's schedule; its runs stay."""
    routes.remove(name, form.visitor.caller, f'"{form.get("version")}"')
    return form.visitor.lead(_HERE, f"{name} is removed.")


def _read(visitor: Visitor, name: str) -> tuple[Terms, int]:
    with visitor.look(Role.OPERATOR) as view:
        row = schedules.one(view.session, name)
        return Terms.of(row), row.version


def _form_of(visitor: Visitor, terms: Terms, version: int | None = None) -> Form:
    """Give the form as it is before anything is typed."""
    wanted = schema_forms.fields(task.find(terms.task).public()["params_schema"])
    said = {name: terms.public()[name] for name in _WORDS}
    return Form(
        visitor,
        {
            **{name: [str(value)] for name, value in said.items() if value is not None},
            "timing": ["every" if terms.cron is None else "cron"],
            "version": [str(version)],
            **schema_forms.form_of(wanted, terms.params),
        },
    )


def _timing(form: Form) -> dict[str, Any]:
    """Read when it is due; of the two ways only the chosen one counts."""
    timezone = form.get("timezone") or "UTC"
    if form.get("timing") == "every":
        anchor = moment(form.get("anchor_at"))
        return {
            "every_s": whole(form.get("every_s")),
            "anchor_at": anchor,
            "timezone": timezone,
        }
    return {"cron": form.get("cron"), "timezone": timezone}


def _terms(form: Form, name: str) -> dict[str, Any]:
    """Read the form for the API's model, which judges it.

    Raises: FormError: a parameter cannot be read.
    """
    wanted = schema_forms.fields(task.find(name).public()["params_schema"])
    return {
        **_timing(form),
        "task": name,
        "params": schema_forms.read(wanted, form),
        "overlap": form.get("overlap") or None,
        "missed": form.get("missed"),
        "late_limit_s": whole(form.get("late_limit_s")),
        "jitter_s": whole(form.get("jitter_s")),
    }


def _differences(yours: Terms, theirs: Terms) -> list[Difference]:
    """Say in what the two are apart, parameters one by one."""
    mine, other = yours.public(), theirs.public()
    pairs = [(_WORDS[name], mine[name], other[name]) for name in _WORDS]
    names = sorted({*yours.params, *theirs.params})
    pairs += [(name, yours.params.get(name), theirs.params.get(name)) for name in names]
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _page(
    visitor: Visitor,
    form: Form,
    task_name: str,
    *,
    name: str | None = None,
    errors: dict[str, str] | None = None,
    apart: list[Difference] | None = None,
    version: int | None = None,
) -> Response:
    """Show the form with when it would be due; ``name`` is None for one that is to be made.

    ``apart``, on a stale edit, is what was changed meanwhile; ``version`` is then the one to save
    over.
    """
    wanted = schema_forms.fields(task.find(task_name).public()["params_schema"])
    told = errors or {}
    firings, why_none = _firings(visitor, form)
    with visitor.look(Role.OPERATOR) as view:
        pass
    own = {*_WORDS, "name"}
    return visitor.show(
        "console/schedule_form.html",
        view,
        active="schedules",
        status=422 if told else 200 if apart is None else 412,
        schedule=name,
        task=task_name,
        fields=wanted,
        typed=form,
        errors=told,
        elsewhere=[
            words
            for where, words in told.items()
            if where not in own and where not in {field.key for field in wanted}
        ],
        apart=apart,
        version=version or form.get("version"),
        firings=firings,
        why_none=why_none,
        overlaps=list(Overlap),
        misses=list(Missed),
    )


def _firings(visitor: Visitor, form: Form) -> tuple[list[dict[str, Any]], str]:
    """Say when what is typed would be due, or why it cannot be."""
    try:
        asked = check(TimingRequest, _timing(form))
        items = answer_body(routes.preview_timing(asked, visitor.caller, _FIRINGS))["items"]
    except (FormError, InvalidInputError) as error:
        return [], str(error)
    return items, ""
