"""See what the platform can be told to do, and have it done, through the API."""

import json
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.markup import escape

from genonaut.cli import progress, schema
from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    UrlOption,
    console,
    fail,
    given,
    print_fields,
    print_json,
    print_table,
)
from genonaut.cli.remote import RUN, Api

app = typer.Typer(help="Maintenance tasks.", no_args_is_help=True, add_completion=False)


@app.command("list")
def list_tasks(url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """List what can be run."""
    with Api.of(settings_for(env), url) as api:
        rows = api.call("GET", "/admin/tasks")["items"]
    if as_json:
        print_json(rows)
        return
    print_table(
        ["NAME", "QUEUE", "DRY RUN", "TITLE"],
        [(r["name"], r["queue"], "yes" if r["dry_run"] else "no", r["title"]) for r in rows],
    )


@app.command("show")
def show(
    name: str, url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False
) -> None:
    """Show a task: what it does, and its parameters."""
    with Api.of(settings_for(env), url) as api:
        task = api.call("GET", _path(name))
    if as_json:
        print_json(task)
        return
    print_fields(
        {
            "task": task["name"],
            "title": task["title"],
            "queue": task["queue"],
            "time limit": f"{task['soft_limit_s']} s",
            "attempts": task["max_attempts"],
            "overlap": task["overlap"],
            "dry run": "yes" if task["dry_run"] else "no",
        }
    )
    console.print(f"\n{escape(task['description'])}", soft_wrap=True)
    whole = task["params_schema"]
    rows = [
        (
            key,
            schema.described(one, whole),
            json.dumps(one["default"]) if "default" in one else "must be given",
            one.get("description"),
        )
        for key, one in whole.get("properties", {}).items()
    ]
    if rows:
        console.print()
        print_table(["PARAMETER", "TAKES", "DEFAULT", "WHAT IT IS"], rows)


@app.command("run")
def run(
    name: str,
    params: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Parameters.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Watch until it is done.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; kept with the run.")] = None,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a task run, with the defaults of what is left out."""
    words = pairs(params or [])
    settings = settings_for(env)
    with Api.of(settings, url) as api:
        body = {"params": values(api, name, words), "dry_run": dry_run}
        if reason:
            body["reason"] = reason
        found = api.call(
            "POST", f"{_path(name)}/runs", json=body, headers={"Idempotency-Key": str(uuid4())}
        )
        follow(api, found, env=settings.app_env, wait=wait, as_json=as_json)


def follow(api: Api, found: dict[str, Any], *, env: str, wait: bool, as_json: bool) -> None:
    """Say what became of a request for a run, after its end with ``wait``."""
    if wait:
        found = progress.wait(api, found, env=env, with_bar=not as_json, kind=RUN)
    has_failed = wait and found["status"] != "completed"
    if as_json:
        print_json(found)
    elif not wait:
        console.print(f"run {found['id']} is {found['status']}")
    elif not has_failed:
        _tell(found)
    if has_failed:
        fail(progress.ending(found, RUN))


def _tell(run: dict[str, Any]) -> None:
    console.print(escape(f"run {run['id']} completed: {given(run['result'])}"), soft_wrap=True)
    if run["failed_items"]:
        console.print(f"items failed: {run['failed_items']}; see: genonaut runs show {run['id']}")


def _path(name: str) -> str:
    if not name or set(name) & set("/?#%"):
        raise typer.BadParameter(f"{name!r} is no name of a task")
    return f"/admin/tasks/{name}"


def pairs(words: list[str]) -> dict[str, str]:
    """Read words as ``KEY=VALUE``."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals):
            raise typer.BadParameter(f"{word!r}: write KEY=VALUE")
        if key in found:
            raise typer.BadParameter(f"{key!r} is given twice")
        found[key] = text
    return found


def values(api: Api, name: str, words: dict[str, str]) -> dict[str, Any]:
    """Read texts as the values a task's parameters take."""
    whole = api.call("GET", _path(name))["params_schema"]
    known = whole.get("properties", {})
    return {key: schema.value(word, known.get(key, {}), whole) for key, word in words.items()}
