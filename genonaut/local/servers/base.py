"""What PostgreSQL and Valkey have in common as embedded servers."""

import errno
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from genonaut.local import processes
from genonaut.local.errors import ServerError
from genonaut.local.servers import accounts

HOST = "127.0.0.1"
PORT_TIMEOUT_S = 20.0
START_TIMEOUT_S = 60.0
ADOPT_TIMEOUT_S = 5.0
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
"""All that a server sees of ours: variables such as PGDATA must not reach it."""
_CAUSE = re.compile(r"[^\n]*(?:No space left|Permission denied|Cannot allocate memory)[^\n]*")


def package_folder(package: str) -> Path:
    """Find an installed package without importing it, which would cost time and run its set-up.

    Raises: ServerError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ServerError(f"the package {package} is not installed; run `make setup`")
    return Path(spec.origin).parent


class Answer(Enum):
    """What a server says when it is asked for a sign of life."""

    READY = "ready"
    BUSY = "busy"
    SILENT = "silent"


class Server(ABC):
    """Run one server program as our child, in a session of its own, with its data in ``home``.

    The server outlives us, so that others may go on using it. ``home`` holds ``data`` and ``log``.
    """

    title: ClassVar[str]
    name: ClassVar[str]
    program: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    min_free_mb: ClassVar[int]
    error_pattern: ClassVar[re.Pattern[str]]

    def __init__(self, home: Path, port: int, *, setting: str = "its URL") -> None:
        self.home = home
        self.data_dir = home / "data"
        self.log_path = home / "log"
        self.port = port
        self.setting = setting
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def binary(self) -> Path:
        """Where the server program is."""

    @property
    @abstractmethod
    def pid_path(self) -> Path:
        """The file in which the running server leaves its process id."""

    @abstractmethod
    def arguments(self) -> list[str]:
        """Give the server's command line, without the program."""

    @abstractmethod
    def ask(self) -> Answer:
        """Ask whatever listens on the port for a sign of life."""

    @abstractmethod
    def is_spoken_by(self, connection: socket.socket) -> bool:
        """Whether the other end speaks this server's protocol."""

    def reason(self, log: str) -> str:
        """Find in the log why the server did not start: what lies below, else its last error."""
        if self._free_mb() < 1:
            return "the disk is full"
        found = _CAUSE.findall(log) or self.error_pattern.findall(log) or log.strip().split("\n")
        return str(found[-1]).strip() or "it said nothing"

    def _free_mb(self) -> int:
        return shutil.disk_usage(self.home).free >> 20

    def prepare(self) -> None:
        """Make the data directory ready for a start."""
        account = self.account  # chosen by who owns the data, so before we make any
        if not self.data_dir.exists():
            self.data_dir.mkdir(mode=0o700)
            account.take_over(self.data_dir)

    @cached_property
    def account(self) -> accounts.Account:
        """The account the server runs as."""
        return accounts.choose(self.home, self.binary, title=self.title, setting=self.setting)

    @property
    def pid(self) -> int | None:
        """Process id of the running server that works on our data, whoever started it."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        pid = self.recorded_pid()
        if pid is not None and processes.runs_in(pid, self.program, self.data_dir):
            return pid
        return None

    def recorded_pid(self) -> int | None:
        """Read the pid file, which may be stale."""
        try:
            return int(self.pid_path.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def is_port_taken(self) -> bool:
        """Whether anything listens on the port."""
        try:
            socket.create_connection((HOST, self.port), timeout=2).close()
        except OSError:
            return False
        return True

    def is_served_by_another(self) -> bool:
        """Whether a server of this kind, but not on our data, listens on the port.

        Raises: ServerError: something else listens there.
        """
        if self.pid is not None:
            return False
        for pause_s in (0.1, 0.4, 0):  # a server that is just ending hangs up on us
            try:
                with socket.create_connection((HOST, self.port), timeout=2) as connection:
                    if self.is_spoken_by(connection):
                        return True
            except ConnectionRefusedError:
                return False
            except OSError:
                pass
            time.sleep(pause_s)
        raise ServerError(
            f"port {self.port} is taken by something that is not {self.title}; "
            f"stop it, or set {self.setting}"
        )

    def start(self) -> None:
        """Start the server, or adopt the one that already runs on our data; wait until it answers.

        One of ours that no longer answers is killed and replaced.

        Raises: ServerError: one line that says why not.
        """
        if (pid := self.pid) is not None:
            if self._adopt(pid):
                return
            processes.send(pid, signal.SIGKILL)
            processes.wait_until(lambda: self.pid is None, 10)
        try:
            self._reap()
            self._await_port()
            self._launch()
        except OSError as error:
            where = error.filename or self.home
            raise ServerError(
                f"{self.title} cannot use {where}: {error.strerror or error}"
            ) from error

    def stop(self, timeout_s: float = 20.0) -> None:
        """Stop the server in good order; kill it if it does not end in time."""
        pid = self.pid
        if pid is not None:
            processes.send(pid, self.stop_signal)
            processes.send(pid, signal.SIGCONT)
            if not processes.wait_until(lambda: self.pid is None, timeout_s):
                processes.send(pid, signal.SIGKILL)
                processes.wait_until(lambda: self.pid is None, 10)
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _adopt(self, pid: int) -> bool:
        silent_since = started = time.monotonic()
        while self.pid == pid:
            answer = self.ask()
            if answer is Answer.READY:
                return True
            now = time.monotonic()
            if answer is Answer.BUSY:
                silent_since = now
            if now - silent_since > ADOPT_TIMEOUT_S or now - started > START_TIMEOUT_S:
                return False
            time.sleep(0.05)
        return False

    def _await_port(self) -> None:
        """Wait until the port can be bound.

        Ours may lie among those the kernel gives to outgoing connections: one of these holds it
        for a moment then, although nothing listens there.
        """

        def is_bindable() -> bool:
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((HOST, self.port))
                except OSError as error:
                    return error.errno != errno.EADDRINUSE
            return True

        if not self.is_port_taken():
            processes.wait_until(is_bindable, PORT_TIMEOUT_S)

    def _launch(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (free_mb := self._free_mb()) < self.min_free_mb:
            raise ServerError(
                f"disk full: {self.title} needs {self.min_free_mb} MiB in {self.home}, "
                f"{free_mb} are free"
            )
        self.prepare()
        with self.log_path.open("ab") as log:
            written_before = log.tell()
            self._process = subprocess.Popen(
                [*self.account.prefix, str(self.binary), *self.arguments()],
                cwd="/",
                env=ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self.account.popen_arguments(),
            )
        try:
            if self._await_answer(self._process):
                return
        except BaseException:  # Ctrl-C, say: nobody would know of the server
            self._process.kill()
            self._reap()
            raise
        self._process.kill()
        self._reap()
        with self.log_path.open("rb") as log:
            log.seek(written_before)
            why = self.reason(log.read().decode(errors="replace"))
        raise ServerError(
            f"{self.title} did not start on port {self.port}: {why} (log: {self.log_path})"
        )

    def _await_answer(self, process: subprocess.Popen[bytes]) -> bool:
        deadline = time.monotonic() + START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < deadline:
            # Before it has written its pid file, an answer comes from someone else on the port.
            if self.recorded_pid() == process.pid and self.ask() is Answer.READY:
                return True
            time.sleep(0.01)
        return False
