"""See what is due when, let it rest, and have it run now."""

from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Request
from starlette.responses import Response

from genonaut.api.requests_schedules import PauseRequest, ScheduleRunRequest
from genonaut.api.routes import schedules as routes
from genonaut.api.routes.schedules import Name
from genonaut.api.web import lists
from genonaut.api.web.checking import check, moment
from genonaut.api.web.pages.console import answer_body
from genonaut.api.web.visitor import FormDep, PageRoute, VisitorDep
from genonaut.db.models import Schedule
from genonaut.domain import run_history, runs, schedule_clock, schedules
from genonaut.domain.schedules import Terms
from genonaut.domain.users import Role
from genonaut.worker.reckoning import timing_of
from genonaut.worker.schedule import preview

router = APIRouter(prefix="/console/schedules", include_in_schema=False, route_class=PageRoute)

_HERE = "/console/schedules"
_PAGE = 50
_LATELY = 8
_FIRINGS = 10
_STRIP = 24


@dataclass(frozen=True, slots=True)
class Strip:
    """When a schedule is due in the next day: hours from now, or ``often`` for more than 24."""

    hours: tuple[float, ...] = ()
    often: bool = False


@router.get("")
def list_all(request: Request, visitor: VisitorDep) -> Response:
    """List schedules: when each is due, what became of its last runs, whether it rests."""
    after = lists.asked(request, "after")
    with visitor.look(Role.AUDITOR) as view:
        found = schedules.list_schedules(view.session, after=after or None, limit=_PAGE + 1)
        rows = found[:_PAGE]
        lately = run_history.outcomes(view.session, [row.name for row in rows])
        paused = schedules.pause_of_all(view.session)
        now = schedule_clock.look(view.session).now
        shown = [
            {**schedules.public(row), "strip": _strip(row, now), "lately": lately[row.name]}
            for row in rows
        ]
        pause = schedules.public_pause(paused) if paused else None
    return visitor.show(
        "console/schedules.html",
        view,
        active="schedules",
        schedules=shown,
        pause=pause,
        following=f"{_HERE}?after={rows[-1].name}" if len(found) > _PAGE else None,
    )


def _strip(row: Schedule, now: datetime) -> Strip:
    if row.paused_at is not None or row.next_due_at is None:
        return Strip()
    due = preview(timing_of(Terms.of(row)), now, _STRIP + 1)
    hours = [(one.due_at - now).total_seconds() / 3600 for one in due]
    today = tuple(hour for hour in hours if hour < 24)
    return Strip(often=True) if len(today) > _STRIP else Strip(today)


@router.get("/{name}")
def read(name: Name, visitor: VisitorDep) -> Response:
    """Show one: its terms, its next firings and its last runs."""
    firings = answer_body(routes.preview_one(name, visitor.caller, _FIRINGS))["items"]
    with visitor.look(Role.AUDITOR) as view:
        row = schedules.public(schedules.one(view.session, name))
        lately = runs.list_runs(view.session, schedule=name, limit=_LATELY)
        recent = [runs.public(one) for one in lately]
    return visitor.show(
        "console/schedule.html",
        view,
        active="schedules",
        row=row,
        firings=firings,
        recent=recent,
    )


@router.post("/{name}/pause")
def pause(name: Name, form: FormDep) -> Response:
    """Let one rest."""
    asked = {"reason": form.get("reason") or None, "until": moment(form.get("until"))}
    routes.pause(name, form.visitor.caller, check(PauseRequest, asked))
    return form.visitor.lead(f"{_HERE}/{name}", "It rests.")


@router.post("/{name}/resume")
def resume(name: Name, form: FormDep) -> Response:
    """End its pause."""
    routes.resume(name, form.visitor.caller)
    return form.visitor.lead(f"{_HERE}/{name}", "It goes on.")


@router.post("/{name}/run")
def run_now(name: Name, form: FormDep) -> Response:
    """Have its task run now."""
    asked = check(ScheduleRunRequest, {"reason": form.get("reason") or None})
    answer = routes.run(name, form.visitor.request, form.visitor.caller, asked)
    run_id = answer.headers["location"].rsplit("/", 1)[-1]
    return form.visitor.lead(f"/console/runs/{run_id}", "It is asked for.")
