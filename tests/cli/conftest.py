"""Run the commands as users do: ``python -m genonaut`` in processes of their own."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from genonaut.local import processes
from tests.support.servers import RunningPostgres, RunningValkey, free_port

OURS = ("APP_ENV", "REDIS_", "CELERY_", "DATABASE_", "COMFYUI_", "GENONAUT_", "FLOWER_", "NO_COLOR")


class Background:
    """A command that goes on; its output grows in a file."""

    def __init__(self, argv: list[str], variables: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                argv, env=variables, cwd="/", stdout=file, stderr=subprocess.STDOUT
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, text: str, timeout_s: float = 60) -> None:
        def is_there() -> bool:
            return text in self.text or self.popen.poll() is not None

        processes.wait_until(is_there, timeout_s)
        assert text in self.text, self.text

    def end(self, number: signal.Signals = signal.SIGINT, timeout_s: float = 60) -> int:
        self.popen.send_signal(number)
        return self.popen.wait(timeout_s)


class Commands:
    """Genonaut on servers, ports and a folder that nobody else uses."""

    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        ours = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}  # noqa: TID251
        self.variables = {**ours, **variables, "VAR_DIR": str(folder), "COLUMNS": "100"}
        self._background: list[Background] = []

    def __call__(
        self, *words: str, status: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; its exit status must be ``status``."""
        done = subprocess.run(
            [sys.executable, "-m", "genonaut", *words],
            env={**self.variables, **variables},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def refusal(self, *words: str, status: int = 1, **variables: str) -> str:
        """Run a command that fails; give the one line it says."""
        said = self(*words, status=status, **variables).stderr
        [line] = said.splitlines()
        assert line.startswith("genonaut: ")
        return line.removeprefix("genonaut: ")

    def start(self, *words: str, **variables: str) -> Background:
        """Start a command; it is killed after the test if it is still there."""
        log = self.folder.parent / f"{self.folder.name}-{len(self._background)}.log"
        made = Background(
            [sys.executable, "-m", "genonaut", *words], {**self.variables, **variables}, log
        )
        self._background.append(made)
        return made

    def until_ready(self, started: Background) -> None:
        def is_ready() -> bool:
            try:
                answer = httpx.get(f"{self.url}/readyz", timeout=5, trust_env=False)
            except httpx.HTTPError:
                return started.popen.poll() is not None
            return answer.status_code == httpx.codes.OK

        assert processes.wait_until(is_ready, 90, 0.1), started.text
        assert started.popen.poll() is None, started.text

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.variables['API_PORT']}"

    def token(self, env: str = "dev") -> str:
        return (self.folder / env / "cli-token").read_text()

    def get(self, path: str, env: str = "dev") -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token(env)}"}
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=30, trust_env=False)

    def left_running(self) -> list[int]:
        """The processes that any of our supervisors started and that are still there."""
        wanted = f"VAR_DIR={self.folder}"
        own = {started.popen.pid for started in self._background if started.popen.poll() is None}
        return [pid for pid in processes.with_environment(wanted) if pid not in own]

    def close(self) -> None:
        for started in self._background:
            if started.popen.poll() is None:
                started.end(signal.SIGTERM)
        deadline = time.monotonic() + 10
        while self.left_running() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert self.left_running() == []


def make_commands(
    folder: Path, postgres: RunningPostgres, valkey: RunningValkey, databases: str
) -> Commands:
    numbers = {"demo": 2, "test": 3, "dev": 4}
    variables = {
        "API_PORT": str(free_port()),
        "FLOWER_PORT": str(free_port()),
        "SIMULATOR_PORT": str(free_port()),
        "SIMULATOR_STEP_S": "0.02",
        "WORKER_SHUTDOWN_GRACE_S": "2",
    }
    for env, number in numbers.items():
        variables[f"DATABASE_URL_{env.upper()}"] = postgres.url(f"{databases}_{env}")
        variables[f"REDIS_URL_{env.upper()}"] = valkey.url(number)
        variables[f"REDIS_NS_{env.upper()}"] = f"{databases}_{env}"
    return Commands(folder, variables)


def in_terminal(running: Commands, *words: str) -> tuple[int, str]:
    """Run a command in a terminal; give its status and what it wrote."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "genonaut", *words],
        env={**running.variables, "TERM": "xterm-256color"},
        cwd="/",
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    written = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if not select.select([ours], [], [], 1)[0]:
            continue
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not chunk:
            break
        written += chunk
    os.close(ours)
    return process.wait(10), written.decode()


@pytest.fixture
def commands(
    tmp_path: Path, postgres: RunningPostgres, valkey: RunningValkey
) -> Iterator[Commands]:
    """Commands with nothing running."""
    made = make_commands(tmp_path / "var", postgres, valkey, f"cli_{free_port()}")
    yield made
    made.close()


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: RunningPostgres,
    valkey_server: RunningValkey,
) -> Iterator[Commands]:
    """Commands while ``genonaut up`` runs the dev environment, Flower included."""
    made = make_commands(
        tmp_path_factory.mktemp("cli") / "var", postgres, valkey_server, "cli_shared"
    )
    started = made.start("up")
    made.until_ready(started)
    yield made
    assert started.end() == 0
    made.close()
