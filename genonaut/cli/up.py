"""Start an environment: servers, API, workers, beat, Flower."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer

from genonaut.api.config import BUILT_IN, Settings, use_settings
from genonaut.cli.output import EnvOption, console, fail
from genonaut.cli.processes import Part, compose, refuse_unusable_port
from genonaut.cli.servers import embedded, eviction_policy, migrate
from genonaut.core.errors import ConflictError, UnauthorizedError
from genonaut.db.session import Database
from genonaut.domain import users
from genonaut.local.supervisor import Supervisor, make_way, signals_as_interrupt
from genonaut.worker.eviction import refuse

OPERATOR = "operator"


def up(
    env: EnvOption = None,
    host: Annotated[
        str | None, typer.Option(help="Address of the API.", show_default="API_HOST")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the API.", show_default="API_PORT")
    ] = None,
    reload: Annotated[bool, typer.Option("--reload", help="Restart the API on change.")] = False,
    only: Annotated[list[Part] | None, typer.Option(help="Start only this; repeatable.")] = None,
) -> None:
    """Start everything and run until Ctrl-C."""
    settings = configured(env, host=host, port=port)
    parts = set(only) if only else set(Part)
    name = "-".join([settings.app_env, *sorted(set(only or []))])
    with signals_as_interrupt(), prepared(settings, parts, name) as (database, keep):
        supervisor = Supervisor(
            compose(settings, database, parts, reload=reload),
            settings.var_path / "run",
            name,
            keep=keep,
        )
        if Part.API in parts:
            console.print(f"Genonaut {settings.app_env} will be at {settings.base_url}")
        if settings.uses_simulator and Part.COMFY in parts:
            console.print("COMFYUI_URL is not set: the built-in simulator draws the pictures")
        status = supervisor.run()
    sys.exit(status)


def configured(env: str | None, *, host: str | None = None, port: int | None = None) -> Settings:
    """Settle the settings for this process and its children."""
    given = {"app_env": env, "api_host": host, "api_port": port}
    return use_settings({name: str(value) for name, value in given.items() if value is not None})


@contextmanager
def prepared(
    settings: Settings, parts: set[Part], name: str
) -> Iterator[tuple[Database, list[Callable[[], object]]]]:
    """Have the servers run, the database migrated, the ports free and the operator known.

    ``name`` is that of the supervisor to come.

    Raises: GenonautError: one line that says what is in the way.
    """
    if not settings.comfyui_urls and parts & {Part.API, Part.WORKERS}:
        fail("COMFYUI_URL is not set, and this environment has no simulator", status=2)
    for left in make_way(settings.var_path / "run", name):
        console.print(f"ended {left}, left by an earlier run that was killed")
    _refuse_unusable_ports(settings, parts)
    with embedded(settings) as leases:
        refuse(eviction_policy(settings))
        migrate(settings)
        database = Database.connect(settings.database_url, pool_size=2)
        try:
            if settings.app_env in BUILT_IN:
                leave_token(settings, database)
            yield database, [lease.revive for lease in leases]
        finally:
            database.close()


def _refuse_unusable_ports(settings: Settings, parts: set[Part]) -> None:
    wanted = [
        (Part.API, settings.api_host, settings.api_port, "API_PORT"),
        (Part.FLOWER, "127.0.0.1", settings.flower_port, "FLOWER_PORT"),
        (Part.COMFY, "127.0.0.1", settings.simulator_port, "SIMULATOR_PORT"),
    ]
    for part, host, port, setting in wanted:
        unused = (part is Part.FLOWER and not settings.flower_active) or (
            part is Part.COMFY and not settings.uses_simulator
        )
        if part in parts and not unused:
            refuse_unusable_port(host, port, setting)


def leave_token(settings: Settings, database: Database) -> str:
    """Make the local operator and a token for the command line, readable by this account alone."""
    path = settings.environment_dir / "cli-token"
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(ConflictError), database.transaction() as session:  # made by an earlier start
        users.create_user(session, OPERATOR, role=users.Role.ADMIN)
    if path.is_file():
        token = path.read_text().strip()
        with suppress(UnauthorizedError), database.transaction() as session:
            users.authenticate_token(session, token)
            return token
    with database.transaction() as session:
        owner = users.find_user(session, OPERATOR)
        token = users.issue_token(session, owner.id, name="command line of this machine")
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)
    part.replace(path)
    return token
