"""Look after schedules through the API: see, make, edit, pause, try and remove them."""

import json
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.markup import escape

from genonaut.cli import tasks, times
from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    UrlOption,
    console,
    errors,
    local_time,
    print_fields,
    print_json,
    print_table,
)
from genonaut.cli.remote import Api, ApiNotFoundError
from genonaut.core.clock import utcnow

app = typer.Typer(help="When tasks run by themselves.", no_args_is_help=True, add_completion=False)

CronOption = Annotated[str | None, typer.Option(help="Five fields, or @daily and its like.")]
EveryOption = Annotated[str | None, typer.Option(help="An interval instead: 90s, 15m, 2h, 1d.")]
AnchorOption = Annotated[str | None, typer.Option(help="From when the interval counts.")]
ZoneOption = Annotated[str | None, typer.Option(help="Whose wall clock the cron means.")]
ReasonOption = Annotated[str | None, typer.Option(help="Why; kept with the act.")]
AllOption = Annotated[bool, typer.Option("--all", help="All schedules at once.")]

_TERMS = [
    "task",
    "params",
    "cron",
    "every_s",
    "anchor_at",
    "timezone",
    "overlap",
    "missed",
    "late_limit_s",
    "jitter_s",
]
_MAX_LISTED = 100_000


@app.command("list")
def list_schedules(
    task: Annotated[list[str] | None, typer.Option(help="Only of these; repeatable.")] = None,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List schedules: when they are due, and what keeps them."""
    asked = {"task": task} if task else {}
    with Api.of(settings_for(env), url) as api:
        paused = api.call("GET", "/admin/schedules", params={"limit": 1})["paused"]
        rows = list(api.pages("/admin/schedules", asked, limit=_MAX_LISTED))
    if as_json:
        print_json({"paused": paused, "items": rows})
        return
    print_table(
        ["NAME", "TASK", "WHEN", "NEXT", "LAST", "STATE"],
        [
            (
                r["name"],
                r["task"],
                _when(r),
                _time(r["next_due_at"]),
                _time(r["last_due_at"]),
                _state(r, paused),
            )
            for r in rows
        ],
    )
    if paused:
        errors.print(escape(f"all schedules are {_paused(paused)}"), soft_wrap=True)


@app.command("show")
def show(
    name: str, url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Show a schedule: what it runs, when, and who changed it."""
    with Api.of(settings_for(env), url) as api:
        row = api.call("GET", _path(name))
        paused = api.call("GET", "/admin/schedules", params={"limit": 1})["paused"]
    if as_json:
        print_json(row)
        return
    source = "the code" if row["source"] == "code" else "an operator"
    print_fields(
        {
            "schedule": row["name"],
            "task": row["task"],
            "params": json.dumps(row["params"], ensure_ascii=False),
            "when": _when(row),
            "anchor": _time(row["anchor_at"]),
            "state": _state(row, paused),
            "next": _time(row["next_due_at"]),
            "last": _time(row["last_due_at"]),
            "overlap": row["overlap"] or "as the task says",
            "missed": row["missed"],
            "late limit": times.span(row["late_limit_s"]),
            "jitter": times.span(row["jitter_s"]),
            "made by": f"{source}, edited" if row["is_edited"] else source,
            "version": row["version"],
        }
    )


@app.command("preview")
def preview(
    name: Annotated[str | None, typer.Argument(help="Left out: what the options say.")] = None,
    n: Annotated[int, typer.Option("-n", min=1, max=100, help="How many due times.")] = 10,
    cron: CronOption = None,
    every: EveryOption = None,
    anchor: AnchorOption = None,
    timezone: ZoneOption = None,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show when a schedule, or a cron or interval not stored yet, is due next."""
    timing = _timing(cron, every, anchor, timezone)
    if (name is None) is not bool(timing):
        raise typer.BadParameter("give the name of a schedule, or --cron, or --every")
    with Api.of(settings_for(env), url) as api:
        if name is None:
            path = "/admin/schedules/preview"
            found = api.call("POST", path, params={"n": n}, json=timing)
        else:
            found = api.call("GET", f"{_path(name)}/preview", params={"n": n})
    if as_json:
        print_json(found)
        return
    marks = {"gap": "moved: the clock skips it", "fold": "there twice: the first", None: ""}
    print_table(
        ["HERE", found["timezone"], "CLOCK CHANGE"],
        [
            (local_time(item["due_at"]), item["local"], marks[item["mark"]])
            for item in found["items"]
        ],
    )


@app.command("pause")
def pause(
    name: Annotated[str | None, typer.Argument()] = None,
    is_all: AllOption = False,
    reason: ReasonOption = None,
    until: Annotated[
        str | None, typer.Option(help="When it ends by itself: a time, or a span such as 2h.")
    ] = None,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a schedule, or all, rest."""
    path = _act_path(name, "pause", is_all=is_all)
    body = {"reason": reason, "until": times.moment(until, utcnow()).isoformat() if until else None}
    with Api.of(settings_for(env), url) as api:
        found = api.call("POST", path, json=body)
    if as_json:
        print_json(found)
        return
    what = "all schedules are" if is_all else f"{name} is"
    console.print(escape(f"{what} {_paused(found['paused'])}"), soft_wrap=True)


@app.command("resume")
def resume(
    name: Annotated[str | None, typer.Argument()] = None,
    is_all: AllOption = False,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """End a pause; what was due meanwhile is not made up for."""
    path = _act_path(name, "resume", is_all=is_all)
    with Api.of(settings_for(env), url) as api:
        found = api.call("POST", path)
    if as_json:
        print_json(found)
    elif is_all:
        console.print("the pause of all schedules is over; those paused by themselves stay so")
    else:
        _say(found)


@app.command("run")
def run(
    name: str,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it is done.")] = False,
    reason: ReasonOption = None,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a schedule's task run now with its parameters; when it is due stays as it is."""
    settings = settings_for(env)
    body = {"dry_run": dry_run, "reason": reason}
    with Api.of(settings, url) as api:
        key = {"Idempotency-Key": str(uuid4())}
        found = api.call("POST", f"{_path(name)}/run", json=body, headers=key)
        tasks.follow(api, found, env=settings.app_env, wait=wait, as_json=as_json)


@app.command("set")
def set_schedule(
    name: str,
    task: Annotated[str | None, typer.Option(help="What to run.")] = None,
    param: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A parameter; repeatable.")
    ] = None,
    cron: CronOption = None,
    every: EveryOption = None,
    anchor: AnchorOption = None,
    timezone: ZoneOption = None,
    overlap: Annotated[
        str | None, typer.Option(help="skip, wait or allow; task: as the task says.")
    ] = None,
    missed: Annotated[str | None, typer.Option(help="run_once or skip.")] = None,
    late_limit: Annotated[
        str | None, typer.Option(help="What skip takes for too late, such as 5m.")
    ] = None,
    jitter: Annotated[
        str | None, typer.Option(help="By how much a run may begin later, such as 30s.")
    ] = None,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a schedule, or change what is given of one that is there."""
    words = tasks.pairs(param or [])
    given: dict[str, Any] = _timing(cron, every, anchor, timezone)
    if overlap is not None:
        given["overlap"] = None if overlap == "task" else overlap
    if missed is not None:
        given["missed"] = missed
    if late_limit is not None:
        given["late_limit_s"] = times.seconds(late_limit)
    if jitter is not None:
        given["jitter_s"] = times.seconds(jitter)
    with Api.of(settings_for(env), url) as api:
        before = _stored(api, name)
        if before is None and task is None:
            raise typer.BadParameter(f"there is no schedule {name} yet: give --task")
        is_other_task = before is not None and task not in {None, before["task"]}
        terms = {key: before[key] for key in _TERMS} if before else {"params": {}}
        if cron is not None:
            terms = {**terms, "every_s": None, "anchor_at": None}
        elif every is not None:
            terms = {**terms, "cron": None}
        terms |= given
        if task is not None:
            terms["task"] = task
        params = {} if is_other_task else terms["params"]
        if words:
            params = {**params, **tasks.values(api, terms["task"], words)}
        terms["params"] = params
        if before is None:
            row = api.call("POST", "/admin/schedules", json={"name": name, **terms})
        else:
            row = api.call("PUT", _path(name), json=terms, headers=_of_version(before))
    if as_json:
        print_json(row)
        return
    _say(row)


@app.command("remove")
def remove(name: str, url: UrlOption = None, env: EnvOption = None) -> None:
    """Remove a schedule that an operator made; its runs stay."""
    with Api.of(settings_for(env), url) as api:
        row = api.call("GET", _path(name))
        api.call("DELETE", _path(name), headers=_of_version(row))
    console.print(f"{row['name']} is removed")


def _stored(api: Api, name: str) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = api.call("GET", _path(name))
    except ApiNotFoundError:
        return None
    return row


def _timing(
    cron: str | None, every: str | None, anchor: str | None, timezone: str | None
) -> dict[str, Any]:
    """Give what is given."""
    if cron is not None and every is not None:
        raise typer.BadParameter("give --cron or --every, not both")
    given = {
        "cron": cron,
        "every_s": times.seconds(every) if every is not None else None,
        "anchor_at": times.moment(anchor, utcnow()).isoformat() if anchor is not None else None,
        "timezone": timezone,
    }
    return {key: value for key, value in given.items() if value is not None}


def _path(name: str) -> str:
    if not name or set(name) & set("/?#%"):
        raise typer.BadParameter(f"{name!r} is no name of a schedule")
    return f"/admin/schedules/{name}"


def _act_path(name: str | None, act: str, *, is_all: bool) -> str:
    if (name is None) is not is_all:
        raise typer.BadParameter("give the name of a schedule, or --all")
    return f"{_path(name)}/{act}" if name is not None else f"/admin/{act}"


def _of_version(row: dict[str, Any]) -> dict[str, str]:
    return {"If-Match": f'"{row["version"]}"'}


def _say(row: dict[str, Any]) -> None:
    state = _state(row, None)
    told = f"next {_time(row['next_due_at'])}" if state == "on" else state
    console.print(escape(f"{row['name']}: {_when(row)}; {told}"), soft_wrap=True)


def _when(row: dict[str, Any]) -> str:
    if row["cron"] is None:
        return f"every {times.span(row['every_s'])}"
    return f"{row['cron']} {row['timezone']}"


def _time(moment: str | None) -> str:
    return local_time(moment) if moment else ""


def _state(row: dict[str, Any], all_paused: dict[str, Any] | None) -> str:
    if row["disabled_reason"] is not None:
        return f"disabled: {row['disabled_reason']}"
    if row["paused"]:
        return _paused(row["paused"])
    if all_paused:
        return _paused(all_paused)
    return f"late for {row['late_s']:.0f} s" if row["late_s"] >= 1 else "on"


def _paused(pause: dict[str, Any]) -> str:
    until = f" until {local_time(pause['until'])}" if pause["until"] else ""
    reason = f": {pause['reason']}" if pause["reason"] else ""
    return f"paused by {pause['by']}{until}{reason}"
