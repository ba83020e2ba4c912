"""See where thumbnails stand, through the API."""

import typer

from genonaut.cli.environment import settings_for
from genonaut.cli.output import (
    EnvOption,
    JsonOption,
    UrlOption,
    console,
    print_fields,
    print_json,
    print_table,
)
from genonaut.cli.remote import Api

app = typer.Typer(help="Thumbnails.", no_args_is_help=True, add_completion=False)

_COUNTS = ("images", "current", "outdated", "missing", "failed")


@app.callback()
def _group() -> None:
    """Thumbnails."""


@app.command("status")
def status(url: UrlOption = None, env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Count the images by the state of their thumbnails."""
    with Api.of(settings_for(env), url) as api:
        state = api.call("GET", "/admin/thumbnails")
    if as_json:
        print_json(state)
        return
    usual = state["usual"]
    print_fields(
        {
            "usual": f"{', '.join(map(str, usual['sizes']))} as {', '.join(usual['formats'])}",
            **{name: state[name] for name in _COUNTS},
        }
    )
    others = [spec for spec in state["specs"] if not spec["is_usual"]]
    if others:
        console.print()
        print_table(["OTHER SETTINGS", "IMAGES"], [(s["spec"], s["images"]) for s in others])
