"""Run a set of processes as one: start in order, restart what dies, drain, leave no orphan."""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from genonaut.api.config import environment_variables
from genonaut.core.errors import GenonautError
from genonaut.local.children import Child, Process, Timing
from genonaut.local.errors import SupervisorError
from genonaut.local.leftovers import RunFile
from genonaut.local.locks import LockFile

__all__ = [
    "Process",
    "Supervisor",
    "SupervisorError",
    "Timing",
    "make_way",
    "signals_as_interrupt",
]

KILLED_STATUS = 130
SIGNAL_NOTICED_S = 1.0
"""A signal that arrives just before we wait interrupts nothing: its handler runs on waking up."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_COLOURS = (36, 32, 33, 35, 34, 96, 92, 93, 95, 94)


class Supervisor:
    """Supervise processes, in the order given; an inner list starts and drains side by side.

    Args:
        processes: each is ready before the next is started; drained in reverse.
        run_dir: where the lock and the list of process ids are kept.
        name: one supervisor of a name runs at a time per ``run_dir``.
        echo: gets each log line, prefixed; default: standard output.
        keep: called every few seconds while we run, as to revive an embedded server.
    """

    def __init__(
        self,
        processes: Sequence[Process | Sequence[Process]],
        run_dir: Path,
        name: str,
        *,
        echo: Callable[[str], None] | None = None,
        keep: Sequence[Callable[[], object]] = (),
        timing: Timing | None = None,
    ) -> None:
        self.name = name
        self._lock = LockFile(run_dir / f"{name}.lock")
        self._run_file = RunFile(run_dir, name)
        self._keep = keep
        self._timing = timing or Timing()
        stages = [[p] if isinstance(p, Process) else list(p) for p in processes]
        names = [p.name for stage in stages for p in stage]
        self._voice = _Voice(["genonaut", *names], echo)
        self._stages = [
            [Child(p, self._run_file, self._timing, self._voice.say, self._end) for p in stage]
            for stage in stages
        ]
        self._ends: queue.SimpleQueue[int] = queue.SimpleQueue()  # safe from signal handlers
        self._settled = threading.Event()
        self._stopping = threading.Event()
        self._is_ready = False
        self._is_over = False
        self._failure: str | None = None
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Take the name, end what a killed supervisor left, and start the processes in a thread.

        Raises: LocalError: another supervisor of this name runs, or a leftover cannot be ended.
        """
        _take(self._lock, self.name)
        self._lock.write(f"{os.getpid()}\n")
        for left in self._run_file.end_leftovers():
            self._voice.say("genonaut", f"ended {left}, left by an earlier run that was killed")
        self._threads = [threading.Thread(target=self._bring_up, daemon=True)]
        if self._keep:
            self._threads.append(threading.Thread(target=self._keep_up, daemon=True))
        for thread in self._threads:
            thread.start()

    def wait_ready(self, timeout_s: float | None = None) -> None:
        """Wait until every process is ready.

        Raises: SupervisorError: one did not get ready; with its last log lines. Call ``stop``.
        """
        if not self._settled.wait(timeout_s):
            raise SupervisorError(f"not everything was ready in {timeout_s:g} s")
        if not self._is_ready:
            raise SupervisorError(self._failure or "stopped before everything was ready")

    def wait(self) -> int:
        """Wait for a reason to stop; give the exit status. Call ``stop`` then."""
        while True:
            with suppress(queue.Empty):
                return self._ends.get(timeout=SIGNAL_NOTICED_S)

    def stop(self) -> None:
        """Drain in reverse order and free the name; harmless when nothing runs.

        An exception on the way, such as a second Ctrl-C, kills what is left.
        """
        if not self._threads:
            self._lock.close()
            return
        self._stopping.set()
        children = [child for stage in self._stages for child in stage]
        for child in children:
            child.stop_restarting()
        try:
            for stage in reversed(self._stages):
                for child in stage:
                    child.drain()
                began = time.monotonic()
                for child in stage:
                    child.wait(began + child.process.drain_timeout_s)
        except BaseException:
            self._kill()
            raise
        finally:
            for child in children:
                child.wait(time.monotonic() + 5)
            for thread in self._threads:
                thread.join(self._timing.check_s)
            self._run_file.end_leftovers()
            for child in children:
                child.finish_output()
            self._threads = []
            self._settled.set()
            self._lock.close()

    def run(self) -> int:
        """Run until SIGINT, SIGTERM or SIGHUP and drain; a second signal kills at once.

        Main thread only. Returns: the exit status: 0 after draining, 130 after killing, 1 if a
        process did not get ready, that of a process which is not restarted if it ends.
        Raises: LocalError: as ``start``.
        """
        asked: list[int] = []

        def on_signal(number: int, _frame: FrameType | None) -> None:
            asked.append(number)
            if len(asked) == 1:
                self._ends.put(0)
            else:
                self._kill()

        previous = _handle(_SIGNALS, on_signal)
        try:
            self.start()
            status = self.wait()
            if asked:
                self._voice.say("genonaut", "stopping; once more to stop at once")
            elif self._failure:
                self._voice.say("genonaut", self._failure.partition("\n")[0])
        finally:
            self.stop()
            _restore(previous)
        return KILLED_STATUS if len(asked) > 1 else status

    def _bring_up(self) -> None:
        for stage in self._stages:
            for child in stage:
                if self._stopping.is_set():
                    break
                child.start()
            for child in stage:
                if self._stopping.is_set():
                    break
                child.settled.wait()
                if child.failure:
                    self._failure = child.failure
                    self._end(1)
                if self._is_over:
                    return
        self._is_ready = not self._stopping.is_set()
        self._settled.set()

    def _keep_up(self) -> None:
        last = ""
        while not self._stopping.wait(self._timing.check_s):
            for keep in self._keep:
                try:
                    keep()
                except GenonautError as error:
                    if str(error) != last:
                        self._voice.say("genonaut", str(error))
                    last = str(error)

    def _end(self, status: int) -> None:
        self._is_over = True
        self._ends.put(status)
        self._settled.set()

    def _kill(self) -> None:
        for stage in self._stages:
            for child in stage:
                child.kill()


def make_way(run_dir: Path, name: str) -> list[str]:
    """End what a killed supervisor of this name left; give the names of what that was.

    ``start`` does so too; a caller that looks whether ports are free must do it before.

    Raises: LocalError: a supervisor of this name runs, or a leftover cannot be ended.
    """
    lock = LockFile(run_dir / f"{name}.lock")
    try:
        _take(lock, name)
        return RunFile(run_dir, name).end_leftovers()
    finally:
        lock.close()


def _take(lock: LockFile, name: str) -> None:
    if not lock.try_lock():
        raise SupervisorError(
            f"'{name}' is already running (process {lock.read().strip()}); stop it first"
        )


@contextmanager
def signals_as_interrupt() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does. Main thread only."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = _handle((signal.SIGTERM, signal.SIGHUP), interrupt)
    try:
        yield
    finally:
        _restore(previous)


def _handle(
    numbers: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], None]
) -> dict[signal.Signals, Any]:
    """Install a handler; SIGHUP stays ignored where ``nohup`` has seen to that."""
    return {
        number: signal.signal(number, handler)
        for number in numbers
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
    }


def _restore(previous: dict[signal.Signals, Any]) -> None:
    for number, handler in previous.items():
        signal.signal(number, handler)


class _Voice:
    """Write log lines one at a time, each with its process's name, in colour on a terminal."""

    def __init__(self, names: list[str], echo: Callable[[str], None] | None) -> None:
        self._echo = echo or _to_standard_output
        self._width = max(map(len, names))
        self._is_coloured = (
            echo is None and sys.stdout.isatty() and "NO_COLOR" not in environment_variables()
        )
        self._colours = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)}
        self._lock = threading.Lock()

    def say(self, name: str, line: str) -> None:
        """Pass one line on; output that has gone away must not stop the processes."""
        prefix = f"{name:<{self._width}} |"
        if self._is_coloured:
            prefix = f"\x1b[{self._colours[name]}m{prefix}\x1b[0m"
        with self._lock, suppress(OSError, ValueError):
            self._echo(f"{prefix} {line}")


def _to_standard_output(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
