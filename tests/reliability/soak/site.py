"""The platform under a soak: a program in each place, replaced when it dies."""

import time
from collections.abc import Callable
from contextlib import ExitStack

from tests.reliability.program import Program, until
from tests.reliability.rig import Rig
from tests.support.proxy import Proxy
from tests.support.servers import free_port

TASKS = "default,maintenance,notifications"
WORKERS = {
    "generation-1": "generation",
    "generation-2": "generation",
    "tasks-1": TASKS,
    "tasks-2": TASKS,
}
BEATS = ("beat-1", "beat-2")
API = "api"

WIRED = ("generation-2", "tasks-2", "beat-2", API)
"""Whose connections may be cut: the others reach the servers directly."""
WIRES = (*(f"{name}>{server}" for name in WIRED for server in ("postgres", "redis")), "*>comfyui")

STOP_S = 40.0
"""A program that was asked to end has ended by then."""
LINGER_S = 20.0
"""A child whose parent was killed is gone by then."""
_LOOK_S = 2.0

UNLIMITED = {
    "JOBS_PER_MINUTE": "100000",
    "JOBS_UNFINISHED_MAX": "100000",
    "JOB_MAX_ATTEMPTS": "20",
    "TASK_PACKAGES": "tests.support.toys",
}


class Place:
    """Where one program belongs: who dies there is replaced, as a supervisor does."""

    def __init__(self, name: str, start: Callable[[], Program]) -> None:
        self.name = name
        self.program: Program | None = None
        self.surprises: list[str] = []
        self.orphaned_s = 0.0
        """For how long at most a child has outlived its parent."""
        self._start = start
        self._is_held = False
        self._is_doomed = False
        self._stop_by = float("inf")
        self._looked_at = 0.0
        self._former: dict[Program, float] = {}

    def keep(self) -> None:
        """Put a program here unless there is one, or the place is held empty."""
        self._look_after_orphans()
        program = self.program
        if program is not None and time.monotonic() > self._stop_by:
            self.surprises.append(f"{self.name} did not end within {STOP_S:.0f} s of SIGTERM")
            program.kill9()
        if program is not None and not program.is_alive():
            if not self._is_doomed:
                self.surprises.append(f"{self.name} ended by itself with {program.wait()}")
            self._former[program] = time.monotonic()
            self.program = None
        if self.program is None and not self._is_held:
            self.program = self._start()
            self._is_doomed, self._stop_by = False, float("inf")

    def take_down(self, how: Callable[[Program], None]) -> Callable[[], None]:
        """Have the program here end; nobody takes its place until what is given is called."""
        assert self.program is not None, f"{self.name} is empty"
        self._is_held, self._is_doomed = True, True
        how(self.program)
        return self._release

    def excuse(self) -> None:
        """Take the end of the program here, should it end, for what was done to it."""
        self._is_doomed = True

    def ask_to_end(self) -> Callable[[], None]:
        """Have the program here end in good order (SIGTERM)."""
        self._stop_by = time.monotonic() + STOP_S
        return self.take_down(Program.terminate)

    def close(self) -> None:
        """End the program in good order, and see that no process of this place is left."""
        if self.program is not None:
            self.ask_to_end()
        until(self._is_empty, f"nothing is left of {self.name}", STOP_S + LINGER_S + 5)

    def _is_empty(self) -> bool:
        self.keep()
        return self.program is None and not self._former

    def _release(self) -> None:
        self._is_held = False

    def _look_after_orphans(self) -> None:
        """Wait for the end of the children of those that have ended."""
        if time.monotonic() - self._looked_at < _LOOK_S:
            return
        for program, ended_at in list(self._former.items()):
            age_s = time.monotonic() - ended_at
            left = program.group()
            if not left:
                del self._former[program]
                continue
            self.orphaned_s = max(self.orphaned_s, age_s)
            if age_s > LINGER_S:
                del self._former[program]
                self.surprises.append(
                    f"{self.name}: {len(left)} processes outlive their parent {program.pid}"
                )
                program.close()
        self._looked_at = time.monotonic()


class Site:
    """Every place, the wires between them, and the servers they share."""

    def __init__(self, rig: Rig, stack: ExitStack) -> None:
        self.rig = rig
        rig.environment |= UNLIMITED
        self.wires = {wire: stack.enter_context(Proxy(self._port_of(wire))) for wire in WIRES}
        rig.environment["COMFYUI_URL"] = f"http://127.0.0.1:{self.wires['*>comfyui'].port}"
        self.api_port = free_port()
        self.places = {name: Place(name, self._starter(name)) for name in (*WORKERS, *BEATS, API)}

    @property
    def url(self) -> str:
        """Where the API listens."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def surprises(self) -> list[str]:
        """What programs did that nobody made them do."""
        return [line for place in self.places.values() for line in place.surprises]

    def keep(self) -> None:
        """Replace what has died."""
        for place in self.places.values():
            place.keep()

    def keep_until(self, moment: float) -> None:
        """Replace what dies until ``time.monotonic()`` says so."""
        while True:
            self.keep()
            left_s = moment - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(0.1, left_s))

    def program(self, name: str) -> Program:
        """Give the program in a place."""
        program = self.places[name].program
        assert program is not None, f"{name} is empty"
        return program

    def close(self, *names: str) -> None:
        """End programs in good order, all at once."""
        for name in names:
            if self.places[name].program is not None:
                self.places[name].ask_to_end()
        for name in names:
            self.places[name].close()

    def _starter(self, name: str) -> Callable[[], Program]:
        wired = self._through_wires(name)
        if name in WORKERS:
            return lambda: self.rig.worker(name, queues=WORKERS[name], wait=False, **wired)
        if name in BEATS:
            return lambda: self.rig.beat(name, **wired)
        return lambda: self.rig.api_program(name, self.api_port, **wired)

    def _through_wires(self, name: str) -> dict[str, str]:
        if name not in WIRED:
            return {}
        redis_url = self.rig.environment["REDIS_URL_TEST"]
        port = self.wires[f"{name}>redis"].port
        return {
            "DATABASE_URL_TEST": self.rig.database_url(self.wires[f"{name}>postgres"].port),
            "REDIS_URL_TEST": redis_url.replace(f":{self.rig.valkey.port}/", f":{port}/"),
        }

    def _port_of(self, wire: str) -> int:
        server = wire.partition(">")[2]
        ports = {
            "postgres": self.rig.postgres.port,
            "redis": self.rig.valkey.port,
            "comfyui": self.rig.comfy.port,
        }
        return ports[server]
