"""Put the commands together; errors are one line and an exit status."""

import sys

import typer
from sqlalchemy.exc import OperationalError

from genonaut import __version__
from genonaut.api.config import ConfigError
from genonaut.cli import accounts, database, demo, doctor, jobs, redis_tools, up
from genonaut.cli.output import console, fail
from genonaut.core.errors import GenonautError

app = typer.Typer(
    name="genonaut",
    help="Genonaut: the platform around ComfyUI.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(jobs.app, name="jobs")
app.add_typer(accounts.users_app, name="users")
app.add_typer(accounts.tokens_app, name="tokens")
app.add_typer(redis_tools.app, name="redis")
app.add_typer(database.app, name="db")


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
    except OperationalError as error:
        fail(
            f"PostgreSQL does not answer ({str(error.orig).strip().splitlines()[0]}); "
            "start it with: genonaut up"
        )
    except KeyboardInterrupt:
        sys.exit(130)
