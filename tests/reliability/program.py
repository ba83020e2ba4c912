"""Start our programs as operators do, and do to them what operators fear."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from genonaut.local import processes

T = TypeVar("T")

PATIENCE_S = 30.0
"""For what takes a second or two on an idle machine."""


class NeverError(AssertionError):
    """What is waited for cannot happen any more."""


def until(condition: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """Wait for a true value and give it; fail, saying ``what`` did not happen, after the deadline.

    An error of the condition counts as "not yet": what it asks may be down.
    """
    deadline = time.monotonic() + timeout_s
    problem: Exception | None = None
    while True:
        try:
            if value := condition():
                return value
            problem = None
        except NeverError:
            raise
        except Exception as error:  # noqa: BLE001
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}") from problem
        time.sleep(0.05)


def holds(condition: Callable[[], bool], what: str, for_s: float) -> None:
    """Check that something stays true for a while: for what must not happen."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert condition(), what
        time.sleep(0.05)


class Program:
    """One program, its children and its log; all in a process group of their own."""

    def __init__(
        self, name: str, arguments: list[str], *, environment: Mapping[str, str], folder: Path
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("ab") as log:
            self._log_begins_at = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Id of the main process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return self.log_path.read_text(errors="replace")

    @property
    def own_log(self) -> str:
        """What it has said since its start; those of its name before it wrote into the same log."""
        return self.log_path.read_bytes()[self._log_begins_at :].decode(errors="replace")

    def is_alive(self) -> bool:
        """Whether the main process runs."""
        return self._process.poll() is None

    def is_frozen(self) -> bool:
        """Whether the main process is stopped (SIGSTOP)."""
        return self._is_in_state("T", self.pid)

    def is_busy(self, pid: int) -> bool:
        """Whether a process of the group uses the processor."""
        return self._is_in_state("R", pid)

    def _is_in_state(self, state: str, pid: int) -> bool:
        shown = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return shown.stdout.startswith(state)

    def open_files(self) -> int:
        """Count what the main process has open: files, sockets, pipes."""
        listed = subprocess.run(
            ["lsof", "-n", "-P", "-p", str(self.pid), "-F", "f"],
            capture_output=True,
            text=True,
            check=False,
        )
        return sum(line.startswith("f") for line in listed.stdout.splitlines())

    def memory(self) -> int:
        """Give the bytes of memory that all processes of the group hold together."""
        table = subprocess.run(
            ["ps", "-axo", "pgid=,rss="], capture_output=True, text=True, check=True
        )
        rows = (line.split() for line in table.stdout.splitlines())
        return sum(int(size) for pgid, size in rows if int(pgid) == self.pid) * 1024

    def group(self) -> list[int]:
        """Give every live process of the group, the main one first."""
        table = subprocess.run(
            ["ps", "-axo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True
        )
        rows = (line.split() for line in table.stdout.splitlines())
        pids = [int(pid) for pid, pgid, state in rows if int(pgid) == self.pid and state[0] != "Z"]
        return sorted(pids, key=lambda pid: (pid != self.pid, pid))

    def children(self) -> list[int]:
        """Give the live processes of the group but the main one."""
        return [pid for pid in self.group() if pid != self.pid]

    def wait_for_log(self, pattern: str, *, times: int = 1, timeout_s: float = PATIENCE_S) -> None:
        """Wait until the log has the pattern so often."""

        def said() -> bool:
            if not self.is_alive():
                raise NeverError(f"{self.name} ended with {self._process.returncode}")
            return len(re.findall(pattern, self.log)) >= times

        until(said, f"{self.name} says {pattern!r}", timeout_s)

    def kill9(self) -> None:
        """Kill the whole group at once."""
        processes.send_group(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)
        until(lambda: not self.group(), f"{self.name} is gone")

    def kill_main(self) -> None:
        """Kill the main process alone; what becomes of its children is theirs to see."""
        processes.send(self.pid, signal.SIGKILL)
        self._process.wait(PATIENCE_S)

    def kill_children(self) -> None:
        """Kill every child but not the main process, as an out-of-memory killer might."""
        children = self.children()
        assert children, f"{self.name} has no children"
        for pid in children:
            processes.send(pid, signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the main process to end (SIGTERM); does not wait."""
        processes.send(self.pid, signal.SIGTERM)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the end of the main process and give its exit status."""
        return self._process.wait(timeout_s)

    def pause(self) -> None:
        """Freeze the whole group (SIGSTOP)."""
        processes.send_group(self.pid, signal.SIGSTOP)

    def pause_main(self) -> None:
        """Freeze the main process alone; its children go on."""
        processes.send(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Thaw what ``pause`` froze."""
        processes.send_group(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self._process.returncode is None or self.group():
            self.kill9()

    def tail(self, lines: int = 40) -> str:
        """Give the end of the log."""
        return "\n".join(self.log.splitlines()[-lines:])


def base_environment() -> dict[str, str]:
    """Give what a program needs of ours; no setting of the developer's own."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG", "USER")
    root = str(Path(__file__).resolve().parents[2])
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},  # noqa: TID251
        "PYTHONPATH": root,
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
