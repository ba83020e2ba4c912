"""Real servers for tests: on free ports, in a folder of their own, gone afterwards."""

import random
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from genonaut.local import processes
from genonaut.local.servers import Postgres, ServerError, Valkey
from genonaut.local.servers.base import Server

S = TypeVar("S", bound=Server)

_PORTS = (15_000, 32_000)


class _Faults(Server):
    """What a reliability test does to a server."""

    def pids(self) -> list[int]:
        """The server's process and its children (PostgreSQL has one per connection)."""
        top = self.pid
        if top is None:
            return []
        table = subprocess.run(
            ["ps", "-axo", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        rows = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
        return [top, *(pid for pid, parent in rows if parent == top)]

    def pause(self) -> None:
        """Freeze every process (SIGSTOP): connections hang, nothing is refused."""
        for pid in self.pids():
            processes.send(pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Thaw what ``pause`` froze."""
        for pid in reversed(self.pids()):
            processes.send(pid, signal.SIGCONT)

    def kill9(self) -> None:
        """Kill every process at once and wait until all are gone; ``start`` brings it back."""
        pids = self.pids()
        for pid in pids:
            processes.send(pid, signal.SIGKILL)
        gone = processes.wait_until(
            lambda: all(processes.start_mark(pid) is None for pid in pids), 10
        )
        assert gone
        self.stop()

    def restart(self) -> None:
        """Stop in good order and start again on the same port and data."""
        self.stop()
        self.start()


class RunningPostgres(Postgres, _Faults):
    """A PostgreSQL server for tests."""


class RunningValkey(Valkey, _Faults):
    """A Valkey server for tests."""

    def forget(self) -> None:
        """Restart with nothing on disk, as a server without persistence does."""
        self.kill9()
        shutil.rmtree(self.data_dir)
        self.start()


def free_port() -> int:
    """Find a port on which nothing listens now.

    It is none of those the system gives to outgoing connections: one of these would take the port
    of a server that is down for a moment.
    """
    while True:
        port = random.SystemRandom().randrange(*_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextmanager
def server_dir() -> Iterator[Path]:
    """Make a folder that the unprivileged account of the servers can reach, even as root."""
    folder = Path(tempfile.mkdtemp(prefix="genonaut-"))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(make: Callable[[int], S]) -> S:
    """Start on a free port; another program may take it first, so try a few."""
    for attempt in range(5):
        server = make(free_port())
        try:
            server.start()
        except ServerError:
            if attempt == 4 or not server.is_port_taken():
                raise
        else:
            break
    return server


@contextmanager
def running_postgres(*, durable: bool = False) -> Iterator[RunningPostgres]:
    """Run PostgreSQL; ``.url(database)``, ``.start()``, ``.stop()`` and the faults above."""
    with server_dir() as folder:
        server = _start(lambda port: RunningPostgres(folder / "pg", port, durable=durable))
        try:
            yield server
        finally:
            server.stop()


@contextmanager
def running_valkey() -> Iterator[RunningValkey]:
    """Run Valkey; ``.url(number)``, ``.start()``, ``.stop()`` and the faults above."""
    with server_dir() as folder:
        server = _start(lambda port: RunningValkey(folder / "kv", port))
        try:
            yield server
        finally:
            server.stop()
