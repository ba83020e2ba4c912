"""Mind one child process: start it, wait for it, restart it, drain it."""

import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from genonaut.api.config import environment_variables
from genonaut.local import processes
from genonaut.local.leftovers import RunFile

_LINE_BYTES = 32 * 1024
_TAIL_LINES = 15
_READY_PAUSE_S = 0.1


@dataclass(frozen=True)
class Process:
    """Describe a process to supervise.

    ``ready`` and ``healthy`` are asked from a thread of their own and should answer within
    seconds. ``healthy`` says False only of a process known to hang, as by an old heartbeat; an
    error counts as unknown. It is not asked before ``health_grace_s``, while an old heartbeat may
    be the predecessor's.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)  # added to our own environment
    cwd: Path | None = None
    ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 60.0
    healthy: Callable[[], bool] | None = None
    health_grace_s: float = 60.0
    drain_signal: signal.Signals = signal.SIGTERM
    drain_timeout_s: float = 30.0
    restart: bool = True  # False: its end ends the supervisor, with its exit status


@dataclass(frozen=True)
class Timing:
    """Say how often to look and how long to wait, in seconds."""

    check_s: float = 5.0
    failed_checks: int = 3  # a machine that wakes from sleep shows old heartbeats for a moment
    backoff_s: float = 0.5
    backoff_max_s: float = 30.0
    settled_s: float = 30.0  # up so long, the next back-off starts from the beginning


class Child:
    """Keep one process running until ``stop_restarting``."""

    def __init__(
        self,
        process: Process,
        run_file: RunFile,
        timing: Timing,
        say: Callable[[str, str], None],
        on_end: Callable[[int], None],
    ) -> None:
        self.process = process
        self.settled = threading.Event()  # ready, failed or given up
        self.failure: str | None = None
        self._run_file = run_file
        self._timing = timing
        self._voice = say
        self._on_end = on_end
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._popen: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._minder = threading.Thread(target=self._mind, name=process.name, daemon=True)

    def start(self) -> None:
        """Start the process and mind it from a thread."""
        self._minder.start()

    def stop_restarting(self) -> None:
        """Let the process be, but do not start it again."""
        self._stopping.set()

    def drain(self) -> None:
        """Ask the process to finish; after ``stop_restarting``."""
        with self._lock:  # a start under way is over, and there will be no other
            popen = self._popen
        if popen is not None and not self._ended.is_set():
            processes.send(popen.pid, self.process.drain_signal)
            processes.send_group(popen.pid, signal.SIGCONT)

    def wait(self, deadline: float) -> None:
        """Wait for the end until the deadline (monotonic clock); then kill what is left."""
        if self._popen is not None:
            if not self._ended.wait(max(0.0, deadline - time.monotonic())):
                self._say(f"did not end in {self.process.drain_timeout_s:g} s: killed")
                self.kill()
            self._ended.wait()
        if self._minder.ident is not None:
            self._minder.join()
        self.settled.set()

    def kill(self) -> None:
        """Kill the whole group now; takes no lock, so that a signal handler may call it."""
        popen = self._popen
        if popen is not None and not self._ended.is_set():
            processes.send_group(popen.pid, signal.SIGKILL)

    def finish_output(self) -> None:
        """Pass the last lines on, once nobody is left who could write."""
        if self._reader is not None:
            self._reader.join(2)

    def _say(self, line: str) -> None:
        self._voice(self.process.name, line)

    def _mind(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            how = self._live()
            if self._stopping.is_set():
                break
            if not self.process.restart:
                self._say(how)
                self._on_end(self._exit_status())
                break
            if not self.settled.is_set():
                self.failure = "\n".join([f"{self.process.name} {how}", *self._tail])
                break
            if time.monotonic() - began > self._timing.settled_s:
                failures = 0
            delay = min(self._timing.backoff_max_s, self._timing.backoff_s * 2**failures)
            failures += 1
            self._say(f"{how}; starting again in {delay:g} s")
            self._stopping.wait(delay)
        self.settled.set()

    def _live(self) -> str:
        """Run the process once, from start to end; tell how it ended."""
        try:
            popen = self._spawn()
        except OSError as error:
            return f"cannot be started: {error.strerror}: {error.filename}"
        if popen is None:
            return "is not wanted any more"
        started = time.monotonic()
        while not self._ended.wait(_READY_PAUSE_S):
            if self.process.ready is None or self._ask(self.process.ready, if_unknown=False):
                self.settled.set()
                self._watch(started)
                break
            if time.monotonic() - started > self.process.ready_timeout_s:
                self.kill()
                self._ended.wait()
                return f"was not ready in {self.process.ready_timeout_s:g} s"
        if not self._stopping.is_set():
            self.finish_output()
        if popen.returncode < 0:
            return f"was ended by {signal.Signals(-popen.returncode).name}"
        return f"ended with status {popen.returncode}"

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._stopping.is_set():
                return None
            popen = subprocess.Popen(
                list(self.process.argv),
                cwd=self.process.cwd,
                env={
                    **environment_variables(),
                    "PYTHONUNBUFFERED": "1",
                    **self.process.env,
                    **self._run_file.environment,
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is ours to pass on; and one signal ends the group
            )
            self._ended.clear()
            self._popen = popen
            self._run_file.add(self.process.name, popen.pid)
        self._reader = threading.Thread(target=self._read, args=(popen,), daemon=True)
        self._reader.start()
        threading.Thread(target=self._reap, args=(popen,), daemon=True).start()
        return popen

    def _watch(self, started: float) -> None:
        """Wait for the end; bring it about when the process hangs."""
        healthy = self.process.healthy
        failed = 0
        while healthy is not None and not self._ended.wait(self._timing.check_s):
            if time.monotonic() - started < self.process.health_grace_s:
                continue
            failed = 0 if self._ask(healthy, if_unknown=True) else failed + 1
            if failed >= self._timing.failed_checks:
                self._say("shows no sign of life: killed")
                self.kill()
                break
        self._ended.wait()

    def _ask(self, check: Callable[[], bool], *, if_unknown: bool) -> bool:
        try:
            return check()
        except Exception:  # noqa: BLE001 - whatever a check trips over must not end the minding
            return if_unknown

    def _read(self, popen: subprocess.Popen[bytes]) -> None:
        pipe = popen.stdout
        if pipe is None:  # pragma: no cover - we asked for a pipe
            return
        with pipe:
            while line := pipe.readline(_LINE_BYTES):
                text = line.decode(errors="replace").rstrip()
                self._tail.append(text)
                self._say(text)

    def _reap(self, popen: subprocess.Popen[bytes]) -> None:
        # Until it is reaped its id cannot be reused, so what is left of its group is ended first.
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
            processes.send_group(popen.pid, signal.SIGKILL)
        popen.wait()
        self._run_file.remove(popen.pid)
        self._ended.set()

    def _exit_status(self) -> int:
        if self._popen is None:
            return 1
        code = self._popen.returncode
        return code if code >= 0 else 128 - code
