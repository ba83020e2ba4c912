"""Run a PostgreSQL, a Valkey and processes for one benchmark; nothing stays."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from genonaut.api.config import ROOT, Settings, environment_variables
from genonaut.db.session import Database
from genonaut.domain import users
from tests.support.database import migrate, sqlalchemy_url
from tests.support.servers import free_port, running_postgres, running_valkey, server_dir

START_S = 30.0
NAMESPACE = "genonaut_bench"
DATABASE = "genonaut_bench"


@dataclass(frozen=True, slots=True)
class Account:
    """A user and a token of theirs."""

    user_id: UUID
    token: str


@dataclass(frozen=True, slots=True)
class Served:
    """A server process."""

    port: int
    pid: int

    def cpu_s(self) -> float:
        """Give the processor time it has used, which a busy machine does not change much."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Stage:
    """The servers, as ours and the peer use them."""

    settings: Settings
    database: Database
    environment: dict[str, str]
    _stack: ExitStack = field(default_factory=ExitStack)

    def run(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process of this Python; it is ended with the stage."""
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=self.environment,
            stdout=sys.stderr,
            stderr=subprocess.DEVNULL,
        )
        self._stack.callback(_end, process)
        return process

    def serve(self, app: str, *options: str, port: int | None = None) -> Served:
        """Serve an ASGI application as we are served, and wait until it answers."""
        port = port or free_port()
        command = ["-m", "uvicorn", app, f"--port={port}", "--timeout-graceful-shutdown=1"]
        process = self.run(*command, "--no-server-header", *options)
        wait_for_port(port, process)
        return Served(port, process.pid)

    def make_accounts(self, count: int) -> list[Account]:
        """Open accounts with a token each, used just now, as that of a client at work."""
        made = []
        with self.database.transaction() as session:
            for number in range(count):
                user = users.create_user(session, f"bench{number}")
                made.append(Account(user.id, users.issue_token(session, user.id, name="bench")))
        with self.database.transaction() as session:
            for account in made:
                users.authenticate_token(session, account.token)
        return made


@contextmanager
def stage(**settings: Any) -> Iterator[Stage]:
    """Have the servers run, durable as in production, with an empty migrated database."""
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres(durable=True))
        valkey = stack.enter_context(running_valkey())
        folder = stack.enter_context(server_dir())
        url = sqlalchemy_url(postgres.url(DATABASE))
        migrate(url)
        values = {
            "app_env": "test",
            "database_url_test": url,
            "redis_url_test": valkey.url(1),
            "redis_ns_test": NAMESPACE,
            "celery_broker_url_test": valkey.url(1),
            "celery_result_backend_test": valkey.url(1),
            "comfyui_url": "http://127.0.0.1:9",
            "var_dir": str(folder),
            "process_name": "bench",
            **settings,
        }
        environment = environment_variables() | {
            name.upper(): str(value) for name, value in values.items()
        }
        environment |= {
            "BENCH_DATABASE_URL": postgres.url(DATABASE),
            "BENCH_REDIS_URL": valkey.url(2),
        }
        database = Database.connect(url, pool_size=3)
        stack.callback(database.close)
        yield Stage(Settings(**values), database, environment, stack.enter_context(ExitStack()))


def wait_for_port(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a process listens.

    Raises: RuntimeError: it ended, or took too long.
    """
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
