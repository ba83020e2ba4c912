"""Leave no orphan: remember what runs, and end what an earlier supervisor left behind."""

import contextlib
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

from genonaut.local import processes
from genonaut.local.errors import SupervisorError

VARIABLE = "GENONAUT_SUPERVISOR"


class RunFile:
    """The file ``<run_dir>/<name>.json``: process ids, with start marks in case one is reused.

    On Linux every process also carries our mark in its environment, which finds those that left
    their group or were started just before a kill.
    """

    def __init__(self, run_dir: Path, name: str) -> None:
        self.path = run_dir / f"{name}.json"
        self.environment = {VARIABLE: str(run_dir.resolve() / name)}
        self._lock = threading.Lock()
        self._processes: dict[int, dict[str, Any]] = {}

    def add(self, name: str, pid: int) -> None:
        """Remember a child that leads a process group of its own."""
        if (mark := processes.start_mark(pid)) is None:
            return
        with self._lock:
            self._processes[pid] = {"name": name, "pid": pid, "mark": mark}
            self._write()

    def remove(self, pid: int) -> None:
        """Forget a child that has ended."""
        with self._lock:
            if self._processes.pop(pid, None) is not None:
                self._write()

    def end_leftovers(self) -> list[str]:
        """Kill what still runs of this supervisor's name; give the names of what the file listed.

        Only for who holds the supervisor's lock and has no child running.

        Raises: SupervisorError: a process cannot be ended.
        """
        listed = [p for p in self._read() if processes.is_alive(p["pid"], p["mark"])]

        def remaining() -> list[int]:
            return [
                *(p["pid"] for p in listed if processes.is_alive(p["pid"], p["mark"])),
                *processes.with_environment(f"{VARIABLE}={self.environment[VARIABLE]}"),
            ]

        def kill() -> bool:
            found = remaining()
            for process in listed:
                if process["pid"] in found:
                    processes.send_group(process["pid"], signal.SIGKILL)
            for pid in found:
                with contextlib.suppress(PermissionError):
                    processes.send(pid, signal.SIGKILL)
            return not found

        if not processes.wait_until(kill, 10):
            raise SupervisorError(
                f"cannot end process {remaining()[0]}, left by an earlier run; end it and try again"
            )
        self.path.unlink(missing_ok=True)
        return [p["name"] for p in listed]

    def _read(self) -> list[dict[str, Any]]:
        try:
            content = json.loads(self.path.read_text())
            return [p for p in content["processes"] if {"name", "pid", "mark"} <= p.keys()]
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return []

    def _write(self) -> None:
        content = {"supervisor": os.getpid(), "processes": list(self._processes.values())}
        new = self.path.with_suffix(".json.new")
        # A disk that is full is no reason to lose hold of who runs: their mark tells, too.
        with contextlib.suppress(OSError):
            new.write_text(json.dumps(content, indent=1))
            new.replace(self.path)
