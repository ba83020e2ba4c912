"""Look after recommendations through the API."""

from typing import Annotated, Any

import typer

from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    UrlOption,
    console,
    local_time,
    print_json,
    print_table,
)
from genonaut.cli.remote import Api

app = typer.Typer(help="Recommendations.", no_args_is_help=True, add_completion=False)


@app.command("list")
def list_generations(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    url: UrlOption = None,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the makings of everyone's lists, newest first, and how good each was."""
    with Api.of(settings_for(env), url) as api:
        rows = list(api.pages("/admin/recommendations/generations", {}, limit=limit))
    if as_json:
        print_json(rows)
        return
    print_table(
        ["ID", "MADE", "USERS", "ROWS", "NDCG@20", "RECALL@20", "POPULAR", "STATE"],
        [
            (
                row["id"],
                local_time(row["created_at"]),
                row["users"],
                row["rows"],
                _share(row, "ndcg"),
                _share(row, "recall"),
                _share(row, "popular_recall"),
                _state(row),
            )
            for row in rows
        ],
    )


@app.command("rollback")
def rollback(url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Go back to the lists before the current ones."""
    with Api.of(settings_for(env), url) as api:
        row = api.call("POST", "/admin/recommendations/rollback")
    if as_json:
        print_json(row)
    else:
        console.print(f"everyone sees the lists of generation {row['id']} again")


def _share(row: dict[str, Any], name: str) -> str:
    return f"{row['evaluation'][name]:.4f}" if row["evaluation"] else ""


def _state(row: dict[str, Any]) -> str:
    if row["is_current"]:
        return "current"
    if row["refused"]:
        return "refused"
    return "kept" if row["is_kept"] else "removed" if row["switched_at"] else "not finished"
