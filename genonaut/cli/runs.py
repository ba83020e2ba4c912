"""See what ran, cancel it and have it run again, through the API."""

from typing import Annotated, Any

import typer
from rich.markup import escape

from genonaut.cli import progress
from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    UrlOption,
    console,
    given,
    local_time,
    print_fields,
    print_json,
    print_table,
)
from genonaut.cli.remote import Api

app = typer.Typer(help="Runs of maintenance tasks.", no_args_is_help=True, add_completion=False)

_LOG_LINES = 20


@app.command("list")
def list_runs(
    task: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    status: Annotated[list[str] | None, typer.Option(help="Only these; repeatable.")] = None,
    schedule: Annotated[str | None, typer.Option(help="Only of this schedule.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Rows.")] = 20,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List runs, newest first."""
    wanted = {"task": task, "status": status, "schedule": schedule}
    params = {name: value for name, value in wanted.items() if value}
    with Api.of(settings_for(env), url) as api:
        rows = list(api.pages("/admin/runs", params, limit=limit))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "STATUS", "DONE", "CREATED", "TASK", "BY"],
        [
            (
                r["id"],
                r["status"],
                progress.counted(r["progress"]),
                local_time(r["created_at"]),
                r["task"],
                r["schedule"] or r["actor"] or r["trigger"],
            )
            for r in rows
        ],
    )


@app.command("show")
def show(
    run_id: int, url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Show a run, what it could not do and what it logged last."""
    with Api.of(settings_for(env), url) as api:
        run = api.call("GET", f"/admin/runs/{run_id}")
    if as_json:
        print_json(run)
        return
    print_fields(_fields(run))
    if run["failed"]:
        console.print(f"\n[bold]failed items[/bold] ({run['failed_items']})")
        for item in run["failed"]:
            console.print(f"  {escape(item['ref'])}: {escape(item['error'])}", soft_wrap=True)
        if run["failed_items"] > len(run["failed"]):
            more = f"/api/v1/admin/runs/{run['id']}/failures"
            console.print(f"  … the rest is at {more}", soft_wrap=True)
    if run["log_tail"]:
        console.print("\n[bold]log[/bold]")
        for line in run["log_tail"][-_LOG_LINES:]:
            console.print(f"  {escape(_log_line(line))}", soft_wrap=True)


def _fields(run: dict[str, Any]) -> dict[str, object]:
    error = run["error"]
    fields: dict[str, object] = {
        "run": run["id"],
        "task": run["task"],
        "status": run["status"],
        "params": given(run["params"]),
        "dry run": "yes" if run["dry_run"] else "no",
        "asked by": f"{run['actor'] or 'nobody'} ({run['trigger']})",
        "reason": run["reason"],
        "schedule": run["schedule"],
        "due": run["due_at"] and local_time(run["due_at"]),
        "attempt": f"{run['attempt']} of {run['max_attempts']}",
        "done": progress.counted(run["progress"]),
        "message": None if run["completed_at"] else run["progress"].get("message"),
        "result": run["result"] and given(run["result"]),
        "error": error and f"{error['message']} ({error['code']})",
        "retry of": run["retry_of"],
        "created": local_time(run["created_at"]),
        "started": run["started_at"] and local_time(run["started_at"]),
        "ended": run["completed_at"] and local_time(run["completed_at"]),
    }
    return {name: value for name, value in fields.items() if value not in {None, ""}}


def _log_line(line: dict[str, Any]) -> str:
    values = {name: value for name, value in line.items() if name not in {"at", "level", "event"}}
    told = " ".join(f"{name}={value}" for name, value in values.items())
    return f"{local_time(line['at'])}  {line['level']}  {line['event']} {told}".rstrip()


@app.command("cancel")
def cancel(
    run_id: int, url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Cancel a run: at once while it waits, at its next progress while it runs."""
    _act(run_id, "cancel", url, env, as_json=as_json)


@app.command("retry")
def retry(
    run_id: int,
    only_failed: Annotated[
        bool,
        typer.Option("--only-failed", help="Of a run that ended: only the items it could not do."),
    ] = False,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Repeat a failed or cancelled run as a new one, from where it stopped."""
    _act(run_id, "retry-failed" if only_failed else "retry", url, env, as_json=as_json)


def _act(run_id: int, what: str, url: str | None, env: str | None, *, as_json: bool) -> None:
    with Api.of(settings_for(env), url) as api:
        run = api.call("POST", f"/admin/runs/{run_id}/{what}")
    if as_json:
        print_json(run)
        return
    is_stopping = what == "cancel" and run["status"] == "running"
    state = "is being cancelled" if is_stopping else f"is {run['status']}"
    console.print(f"run {run['id']} {state}")
