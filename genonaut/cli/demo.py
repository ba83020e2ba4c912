"""Show the whole thing: start it, draw three pictures, say where to look."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from genonaut.api.config import Settings, use_settings
from genonaut.cli import progress, seeding
from genonaut.cli.output import console, fail
from genonaut.cli.processes import Part, compose
from genonaut.cli.remote import Api
from genonaut.cli.up import OPERATOR, configured, leave_token, prepared
from genonaut.core.clock import utcnow
from genonaut.db.session import Database
from genonaut.domain import users
from genonaut.local.supervisor import Supervisor, SupervisorError, signals_as_interrupt
from genonaut.worker.queues import GENERATION, WORKERS

PICTURES: tuple[dict[str, Any], ...] = (
    {
        "prompt": "a lighthouse on a rocky coast at dusk, calm sea, warm light",
        "width": 768,
        "height": 512,
    },
    {"prompt": "misty mountains above a pine forest at dawn", "batch_size": 2},
    {
        "prompt": "a city skyline at night, lit windows, a full moon",
        "width": 512,
        "height": 768,
    },
)
LINK_TTL = timedelta(hours=12)


app = typer.Typer(invoke_without_command=True, add_completion=False)
app.command("seed")(seeding.seed)


@app.callback()
def demo(
    ctx: typer.Context,
    once: Annotated[bool, typer.Option("--once", help="End after the pictures.")] = False,
) -> None:
    """Start everything, draw three pictures before your eyes, run until Ctrl-C."""
    if ctx.invoked_subcommand is None:
        _demo(once=once)


def _demo(*, once: bool) -> None:
    began = utcnow()
    settings = local_settings()
    # What draws no picture would only make it later.
    parts = {Part.API, Part.WORKERS, Part.COMFY} if once else set(Part)
    workers = [GENERATION] if once else list(WORKERS)
    log_file = settings.environment_dir / "demo.log"
    console.print("Genonaut demo: starting PostgreSQL, Valkey, API, workers and ComfyUI…")
    with (
        signals_as_interrupt(),
        prepared(settings, parts, settings.app_env) as (database, keep),
        _log(log_file) as echo,
    ):
        supervisor = Supervisor(
            compose(settings, database, parts, workers=workers),
            settings.var_path / "run",
            settings.app_env,
            echo=echo,
            keep=keep,
        )
        try:
            supervisor.start()
            supervisor.wait_ready()
            all_made = _draw(settings, leave_token(settings, database), began)
            status = 0 if all_made else 1
            if not once:
                _say_where(settings, database, log_file)
                status = supervisor.wait()
        except SupervisorError as error:
            fail(f"{error}; the log is {log_file}")
        except KeyboardInterrupt:
            status = 0 if not once else 130
            console.print("\nstopping…")
        finally:
            supervisor.stop()
    sys.exit(status)


def local_settings() -> Settings:
    """Settle the settings: whatever site ``env/.env`` is for, the demo is this machine's alone."""
    settings = configured("demo", host="127.0.0.1")
    return use_settings({"public_url": settings.local_url, "cookie_secure": "false"})


@contextmanager
def _log(path: Path) -> Iterator[Callable[[str], None]]:
    """Keep the processes' lines in a file: the screen is for the pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", buffering=1) as file:
        yield lambda line: print(line, file=file)


def _draw(settings: Settings, token: str, began: datetime) -> bool:
    """Make the pictures with a bar each; whether all were made."""
    with Api.of(settings.model_copy(update={"genonaut_token": token})) as api:
        jobs = [api.call("POST", "/generation-jobs", json=body) for body in PICTURES]
        ended = progress.watch(api, jobs)
        made = 0
        for job in ended:
            if job["status"] != "completed":
                console.print(f"[red]job {job['id']} {job['status']}[/red]: {job['error']}")
                continue
            item = api.call("GET", f"/content/{job['content_id']}")
            made += len(item["images"])
            for image in item["images"]:
                console.print(f"  {settings.base_url}{image['url']}", soft_wrap=True)
    took_s = (utcnow() - began).total_seconds()
    times = [job["completed_at"] for job in ended if job["status"] == "completed"]
    if times:
        first_s = (datetime.fromisoformat(min(times)) - began).total_seconds()
        console.print(f"{made} pictures in {took_s:.1f} s, the first after {first_s:.1f} s")
    return len(times) == len(ended)


def _say_where(settings: Settings, database: Database, log_file: Path) -> None:
    with database.transaction() as session:
        owner = users.find_user(session, OPERATOR)
        token = users.issue_login_link(session, owner.id, ttl=LINK_TTL)
    console.print(f"\nOpen  [bold]{settings.base_url}/login?token={token}[/bold]", soft_wrap=True)
    console.print("      (signs in once; then: genonaut tokens create --env demo --user operator)")
    console.print(
        f"API   {settings.base_url}/api/v1, described by {settings.base_url}/openapi.json"
    )
    if settings.flower_active:
        console.print(f"Tasks http://127.0.0.1:{settings.flower_port} (Flower)")
    console.print(f"Logs  {log_file}", soft_wrap=True)
    console.print("Ctrl-C stops everything.")
