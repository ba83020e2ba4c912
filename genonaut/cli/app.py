"""Put the commands together; errors are one line and an exit status."""

import importlib
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from genonaut import __version__
from genonaut.api.config import ConfigError, get_settings
from genonaut.cli.output import console, fail
from genonaut.core.errors import GenonautError

COMMANDS = {
    "up": "genonaut.cli.up:up",
    "demo": "genonaut.cli.demo:app",
    "doctor": "genonaut.cli.doctor:doctor",
    "jobs": "genonaut.cli.jobs:app",
    "tasks": "genonaut.cli.tasks:app",
    "runs": "genonaut.cli.runs:app",
    "schedules": "genonaut.cli.schedules:app",
    "content": "genonaut.cli.content:app",
    "thumbnails": "genonaut.cli.thumbnails:app",
    "notifications": "genonaut.cli.notifications:app",
    "recommendations": "genonaut.cli.recommendations:app",
    "users": "genonaut.cli.accounts:users_app",
    "tokens": "genonaut.cli.accounts:tokens_app",
    "redis": "genonaut.cli.redis_tools:app",
    "db": "genonaut.cli.database:app",
}
"""Where each command lives; it is imported when it is asked for, since imports cost seconds."""


class _Lazy(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [*COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), attribute)
        if not isinstance(found, typer.Typer):
            single = typer.Typer(add_completion=False)
            single.command(cmd_name)(found)
            found = single
        command = typer.main.get_command(found)
        command.name = cmd_name
        return command


app = typer.Typer(
    name="genonaut",
    cls=_Lazy,
    help="Genonaut: the platform around ComfyUI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Genonaut: the platform around ComfyUI."""


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__, highlight=False)


def main() -> None:
    """Run a command; exit with 0, 1 (it failed), 2 (asked wrongly) or 130 (interrupted)."""
    try:
        app()
    except ConfigError as error:
        fail(str(error), status=2)
    except GenonautError as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.filename is None:
            raise
        fail(f"cannot use {error.filename}: {error.strerror}")
    except Exception as error:
        _fail_if_database_away(error)
        raise


def _fail_if_database_away(error: Exception) -> None:
    from sqlalchemy.exc import OperationalError

    if isinstance(error, OperationalError):
        why = str(error.orig).strip().splitlines()[0]
        env = get_settings().app_env
        fail(f"PostgreSQL does not answer ({why}); start it with: genonaut up --env {env}")
