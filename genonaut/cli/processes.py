"""List the processes of an environment, for the supervisor."""

import errno
import shutil
import socket
import sys
from collections.abc import Callable, Collection
from datetime import datetime
from enum import StrEnum
from functools import partial

import httpx
from sqlalchemy import select

from genonaut.api.config import ENV_FILE, ROOT, Settings, env_file
from genonaut.cli.servers import ServersError
from genonaut.core.clock import utcnow
from genonaut.db.models import Heartbeat
from genonaut.db.session import Database
from genonaut.domain import heartbeats
from genonaut.local.supervisor import Process
from genonaut.worker.queues import GENERATION, WORKERS

APP = "genonaut.worker.queue_app"
WEDGED_S = 60.0
_PREFORKED = 2


class Part(StrEnum):
    """What can be started alone."""

    API = "api"
    WORKERS = "workers"
    BEAT = "beat"
    FLOWER = "flower"
    COMFY = "comfy"


def compose(
    settings: Settings,
    database: Database,
    parts: set[Part],
    *,
    workers: Collection[str] = tuple(WORKERS),
    reload: bool = False,
) -> list[Process | list[Process]]:
    """Give the processes in the order they start; an inner list starts side by side."""
    env = {"APP_ENV": settings.app_env, ENV_FILE: str(env_file())}
    together: list[Process] = []
    if Part.COMFY in parts and settings.uses_simulator:
        together.append(_simulator(settings, env))
    if Part.WORKERS in parts:
        events = settings.flower_active and Part.FLOWER in parts
        together += [
            _worker(name, queues, settings, database, env, events=events)
            for name, queues in WORKERS.items()
            if name in workers
        ]
    if Part.API in parts:
        together.append(_api(settings, env, reload=reload))
    later: list[Process] = []
    if Part.BEAT in parts:
        later.append(_beat(database, env))
    if Part.FLOWER in parts and settings.flower_active:
        later.append(_flower(settings, env))
    return [stage for stage in (together, later) if stage]


def _simulator(settings: Settings, env: dict[str, str]) -> Process:
    return Process(
        "comfy",
        [
            sys.executable,
            "-m",
            "genonaut.local.comfy",
            f"--port={settings.simulator_port}",
            f"--dir={settings.environment_dir / 'comfy'}",
            f"--step-delay={settings.simulator_step_s}",
        ],
        env=env,
        cwd=ROOT,
        ready=partial(_answers, f"http://127.0.0.1:{settings.simulator_port}/prompt"),
        drain_timeout_s=5,
    )


def _worker(
    name: str,
    queues: tuple[str, ...],
    settings: Settings,
    database: Database,
    env: dict[str, str],
    *,
    events: bool,
) -> Process:
    slots = settings.generation_slots if name == GENERATION else _PREFORKED
    hostname = f"{name}@{socket.gethostname()}"
    return Process(
        name,
        [
            sys.executable,
            "-m",
            "celery",
            f"--app={APP}",
            "--quiet",
            "worker",
            f"--queues={','.join(queues)}",
            f"--hostname={hostname}",
            f"--concurrency={slots}",
            f"--loglevel={settings.log_level}",
            "--without-gossip",
            "--without-mingle",
            *(["--task-events"] if events else []),
        ],
        env=env,
        cwd=ROOT,
        ready=_reported_since(database, hostname, utcnow()),
        healthy=partial(_is_not_wedged, database, hostname),
        drain_timeout_s=settings.worker_shutdown_grace_s + 15,
    )


def _api(settings: Settings, env: dict[str, str], *, reload: bool) -> Process:
    workers = [] if reload else [f"--workers={settings.api_workers}"]
    return Process(
        "api",
        [
            sys.executable,
            "-m",
            "uvicorn",
            "genonaut.api.main:app",
            f"--host={settings.api_host}",
            f"--port={settings.api_port}",
            "--timeout-graceful-shutdown=5",
            "--ws-per-message-deflate=false",
            "--ws-max-size=65536",
            "--no-server-header",
            *(["--reload", f"--reload-dir={ROOT / 'genonaut'}"] if reload else workers),
        ],
        env=env,
        cwd=ROOT,
        ready=partial(_answers, f"{settings.local_url}/livez"),
        drain_timeout_s=10,
    )


def _beat(database: Database, env: dict[str, str]) -> Process:
    name = f"beat@{socket.gethostname()}"
    return Process(
        "beat",
        [sys.executable, "-m", "celery", f"--app={APP}", "--quiet", "beat", "--pidfile="],
        env={**env, "PROCESS_NAME": name},
        cwd=ROOT,
        healthy=partial(_is_not_wedged, database, name),
        drain_timeout_s=10,
    )


def _flower(settings: Settings, env: dict[str, str]) -> Process:
    return Process(
        "flower",
        [
            sys.executable,
            "-m",
            "celery",
            f"--app={APP}",
            "--quiet",
            "flower",
            "--address=127.0.0.1",
            f"--port={settings.flower_port}",
            "--read_only",
            "--logging=warning",
        ],
        env={**env, "FLOWER_UNAUTHENTICATED_API": "false"},
        cwd=ROOT,
        drain_timeout_s=5,
    )


def _answers(url: str) -> bool:
    return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK


def _reported_since(database: Database, name: str, since: datetime) -> Callable[[], bool]:
    def reported() -> bool:
        with database.transaction() as session:
            seen_at = session.scalars(
                select(Heartbeat.seen_at).where(Heartbeat.name == name)
            ).one_or_none()
        return seen_at is not None and seen_at >= since

    return reported


def _is_not_wedged(database: Database, name: str) -> bool:
    with database.transaction() as session:
        age_s = heartbeats.ages(session).get(name)
    return age_s is None or age_s < WEDGED_S


def refuse_unusable_port(host: str, port: int, setting: str) -> None:
    """Try to listen there; ``setting`` names the port.

    Raises: ServersError: it is taken, or the address is not this machine's, or not ours to use.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServersError(
                f"port {port} is taken by another program; stop it, or set {setting}"
            ) from error
        raise ServersError(
            f"cannot listen on port {port} of {host}: {error.strerror}; see {setting}"
        ) from error


def free_disk_mb(settings: Settings) -> int:
    """Give the free space where pictures are kept, MiB."""
    settings.storage_path.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(settings.storage_path).free // 2**20
