"""Tell processes apart without being fooled by a reused process id.

Everything reads ``/proc`` where there is one and falls back to ``ps`` (macOS), which knows start
times to the second only.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

_PROC = Path("/proc")


@lru_cache(maxsize=1)
def has_proc() -> bool:
    """Whether this system has Linux's ``/proc``."""
    return (_PROC / "self" / "stat").exists()


def start_mark(pid: int) -> str | None:
    """Give a text no other process with this id will ever have; None if it is dead or a zombie."""
    if pid <= 0:
        return None
    if not has_proc():
        state, _, started = _ps(pid, "stat=,lstart=").partition(" ")
        return started.strip() if started and not state.startswith("Z") else None
    try:
        # The command's name stands in parentheses and may hold spaces and parentheses.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie whose other threads are still ending still holds its files and ports.
    is_dead = fields[0] == "X" or (fields[0] == "Z" and int(fields[17]) <= 1)
    return None if is_dead else f"{_boot_id()}/{fields[19]}"


def is_alive(pid: int, mark: str) -> bool:
    """Whether the process that had this start mark still runs."""
    return start_mark(pid) == mark


def runs_in(pid: int, program: str, directory: Path) -> bool:
    """Whether ``pid`` is a live ``program`` whose working directory is ``directory``.

    Where the directory cannot be told (macOS), the program's name decides.
    """
    if start_mark(pid) is None:
        return False
    if not has_proc():
        return Path(_ps(pid, "comm=")).name == program
    try:
        name = (_PROC / str(pid) / "comm").read_text().strip()
        return name == program and (_PROC / str(pid) / "cwd").samefile(directory)
    except OSError:
        return False


def with_environment(entry: str) -> list[int]:
    """Find the live processes started with ``NAME=value`` in their environment (Linux only)."""
    found: list[int] = []
    if not has_proc():
        return found
    wanted = entry.encode()
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                pid = int(folder.name)
                if start_mark(pid) is not None:
                    found.append(pid)
    return found


def wait_until(condition: Callable[[], bool], timeout_s: float, pause_s: float = 0.02) -> bool:
    """Wait until the condition holds; tell whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
    return True


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone is no error."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def send_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group; one that is gone is no error."""
    # macOS answers EPERM for a group in which only zombies are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


@lru_cache(maxsize=1)
def _boot_id() -> str:
    """Tell one boot from the next: start times count from it."""
    try:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "boot"


def _ps(pid: int, columns: str) -> str:
    answer = subprocess.run(
        ["ps", "-o", columns, "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip()
