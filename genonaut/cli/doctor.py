"""Check each part of an environment and say what to do."""

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import httpx
from rich.markup import escape
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from genonaut import __version__
from genonaut.api.config import ConfigError, Settings
from genonaut.cli.database import migration_state
from genonaut.cli.environment import settings_for
from genonaut.cli.output import EnvOption, JsonOption, console, print_json
from genonaut.cli.processes import WEDGED_S, free_disk_mb
from genonaut.cli.servers import IS_NEWER, eviction_policy
from genonaut.clients.comfyui import without_login
from genonaut.clients.storage import open_storage
from genonaut.core.errors import GenonautError, RetryableError
from genonaut.db.session import Database
from genonaut.domain import health
from genonaut.domain.health import Check, QueueState
from genonaut.worker.backends import PROBE_TIMEOUT_S, client_for
from genonaut.worker.eviction import EVICTING
from genonaut.worker.queues import GENERATION, QUEUES, WORKERS


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; ``advice`` says what to do when it is not ``ok``."""

    part: str
    ok: bool
    found: str
    advice: str = ""


def doctor(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Check each part and say what to do; exit status 1 if something is wrong."""
    settings = settings_for(env)
    findings = [finding for check in CHECKS for finding in check(settings)]
    findings = [replace(f, advice="") if f.ok else f for f in findings]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            mark = "[green]✓[/green]" if finding.ok else "[red]✗[/red]"
            console.print(
                f"{mark} [bold]{finding.part:<12}[/bold] {escape(finding.found)}", soft_wrap=True
            )
            if finding.advice:
                console.print(f"  {'':<12} → {escape(finding.advice)}", soft_wrap=True)
    sys.exit(0 if all(finding.ok for finding in findings) else 1)


def _program(settings: Settings) -> list[Finding]:
    python = ".".join(map(str, sys.version_info[:3]))
    found = f"Genonaut {__version__}, Python {python}, environment {settings.app_env}"
    return [Finding("program", ok=True, found=found)]


def _postgres(settings: Settings) -> list[Finding]:
    env = settings.app_env
    database = Database.connect(settings.database_url, pool_size=1)
    try:
        with database.transaction() as session:
            session.execute(text("SELECT 1"))
        state = migration_state(settings)
    except SQLAlchemyError as error:
        advice = f"start it with: genonaut up --env {env}; or set DATABASE_URL_{env.upper()}"
        return [Finding("PostgreSQL", ok=False, found=_first_line(error), advice=advice)]
    finally:
        database.close()
    ok = bool(state["is_current"])
    found = f"{state['server']}, migrated to {state['version']}"
    advice = IS_NEWER if state["is_newer"] else f"run: genonaut db upgrade --env {env}"
    return [Finding("PostgreSQL", ok, found, advice)]


def _first_line(error: SQLAlchemyError) -> str:
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0]


def _redis(settings: Settings) -> list[Finding]:
    env = settings.app_env
    try:
        policy = eviction_policy(settings)
    except GenonautError as error:
        return [Finding("Redis", ok=False, found=str(error), advice=f"genonaut up --env {env}")]
    return [
        Finding(
            "Redis",
            not policy.startswith(EVICTING),
            f"answers, maxmemory-policy {policy}, namespace {settings.redis_ns}",
            "redis-cli CONFIG SET maxmemory-policy noeviction",
        )
    ]


def _comfyui(settings: Settings) -> list[Finding]:
    if not settings.comfyui_urls:
        return [Finding("ComfyUI", ok=False, found="COMFYUI_URL is not set", advice="set it")]
    findings = []
    for url in settings.comfyui_urls:
        shown = without_login(url)
        try:
            with client_for(settings, url, read_timeout_s=PROBE_TIMEOUT_S) as client:
                remaining = client.queue_remaining()
                models = len(client.options().checkpoints)
        except GenonautError as error:
            advice = (
                f"the simulator starts with: genonaut up --env {settings.app_env}"
                if settings.uses_simulator
                else "start ComfyUI there, or correct COMFYUI_URL"
            )
            findings.append(Finding("ComfyUI", ok=False, found=f"{shown}: {error}", advice=advice))
        else:
            kind = "simulator" if settings.uses_simulator else "server"
            found = f"{kind} at {shown}: {models} checkpoints, {remaining} prompts queued"
            advice = "put a checkpoint into ComfyUI's models/checkpoints"
            findings.append(Finding("ComfyUI", models > 0, found, advice))
    return findings


def _storage(settings: Settings) -> list[Finding]:
    if settings.storage_url is not None:
        return [_object_storage(settings)]
    try:
        free_mb = free_disk_mb(settings)
    except OSError as error:
        found = f"{settings.storage_path}: {error.strerror}"
        return [Finding("storage", ok=False, found=found, advice="set STORAGE_DIR or its rights")]
    return [
        Finding(
            "storage",
            free_mb >= settings.storage_min_free_mb,
            f"{settings.storage_path}, {free_mb} MiB free",
            f"make room: below {settings.storage_min_free_mb} MiB no picture is stored",
        )
    ]


def _object_storage(settings: Settings) -> Finding:
    advice = "set STORAGE_URL, AWS_ENDPOINT_URL, AWS_REGION and the AWS keys; make the bucket"
    try:
        open_storage(settings).check()
    except (RetryableError, ConfigError) as error:
        return Finding("storage", ok=False, found=str(error), advice=advice)
    return Finding("storage", ok=True, found=f"{settings.storage_url} answers", advice=advice)


def _processes(settings: Settings) -> list[Finding]:
    database = Database.connect(settings.database_url, pool_size=1)
    try:
        with database.transaction() as session:
            reporting = health.processes(session)
            states = health.queues(session, QUEUES, job_queue=GENERATION)
            late = health.lateness(session)
    except SQLAlchemyError:
        return []  # PostgreSQL's own finding says it all
    finally:
        database.close()
    advice = f"genonaut up --env {settings.app_env}"
    findings = []
    for name in WORKERS:
        ages = [p.seen_s for p in reporting if p.name.partition("@")[0] == name]
        findings.append(_alive(name, ages, advice))
    findings.append(_alive("beat", [p.seen_s for p in reporting if p.kind == "beat"], advice))
    limits = health.Limits(settings.health_oldest_due_s, settings.health_stalled_s, free_mb=0)
    checks = health.judge(states, [], late=late, limits=limits)
    [found] = [check for check in checks if check.name == "schedules"]
    advice = "see: genonaut schedules list, and whether beat runs"
    findings.append(Finding("schedules", found.ok, found.detail, advice))
    return [*findings, *_waiting(states, checks)]


def _waiting(states: list[QueueState], checks: list[Check]) -> list[Finding]:
    about_work = [c for c in checks if c.name.startswith("queue.") or c.name == "messages"]
    advice = "see GET /api/v1/admin/queues, and the logs of its worker"
    red = [Finding(c.name, ok=False, found=c.detail, advice=advice) for c in about_work if not c.ok]
    due = sum(state.due for state in states)
    running = sum(state.running for state in states)
    return red or [Finding("queues", ok=True, found=f"{due} wait, {running} are worked on")]


def _alive(part: str, ages: list[float], advice: str) -> Finding:
    alive = [age_s for age_s in ages if age_s < WEDGED_S]
    if alive:
        return Finding(part, ok=True, found=f"{len(alive)} alive, seen {min(alive):.0f} s ago")
    found = f"last seen {min(ages):.0f} s ago" if ages else "not running"
    return Finding(part, ok=False, found=found, advice=advice)


def _api(settings: Settings) -> list[Finding]:
    url = f"{settings.base_url}/readyz"
    try:
        status = httpx.get(url, timeout=5, trust_env=False).status_code
    except (httpx.HTTPError, httpx.InvalidURL):
        advice = f"genonaut up --env {settings.app_env}"
        found = f"nothing answers at {settings.base_url}"
        return [Finding("API", ok=False, found=found, advice=advice)]
    ok = status == httpx.codes.OK
    return [Finding("API", ok, f"{url} answers {status}", "see the lines above")]


CHECKS: tuple[Callable[[Settings], list[Finding]], ...] = (
    _program,
    _postgres,
    _redis,
    _comfyui,
    _storage,
    _processes,
    _api,
)
