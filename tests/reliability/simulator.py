"""The ComfyUI simulator as a process that tests break, and whose GPU runs they count."""

from pathlib import Path
from typing import Any

import httpx

from tests.reliability.program import Program, base_environment, until
from tests.support.servers import free_port

STEP_S = 0.05


class Comfy:
    """Run one simulator; it may be killed and started again on the same port."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = "comfyui",
        port: int | None = None,
        step_s: float = STEP_S,
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.name = name
        self.output = folder / name / "output"
        self._folder = folder
        self._step_s = step_s
        self._http = httpx.Client(base_url=self.url, timeout=5, trust_env=False)
        self._known: set[str] = set()
        self.program: Program | None = None

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.program = Program(
            self.name,
            [
                *("-m", "genonaut.local.comfy", "--port", str(self.port), "--allow-faults"),
                *("--dir", str(self._folder / self.name), "--step-delay", str(self._step_s)),
                *("--load-delay", "0"),
            ],
            environment=base_environment(),
            folder=self._folder,
        )
        until(lambda: self._http.get("/queue").status_code == 200, f"{self.name} answers")

    def stop(self) -> None:
        """Kill it; it forgets everything, as ComfyUI does."""
        if self.program is not None:
            self.program.close()
            self.program = None

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._http.close()

    def reset(self) -> None:
        """Begin a test: no faults, an empty queue, and only what comes now is counted."""
        if self.program is None or not self.program.is_alive():
            self.start()
        self.program.cont()  # type: ignore[union-attr]
        self.faults(forget=True)
        self.faults()
        until(lambda: not self.busy(), f"{self.name} is idle")
        self._known = set()
        self._known = {entry["prompt_id"] for entry in self.prompts()}

    def faults(self, **faults: Any) -> None:
        """Put these faults in place of all former ones."""
        self._http.post("/simulator/faults", json=faults).raise_for_status()

    def prompts(self) -> list[dict[str, Any]]:
        """List the prompts received since ``reset``: received, runs, sampled, ended."""
        answer = self._http.get("/simulator/log").raise_for_status()
        return [e for e in answer.json()["prompts"] if e["prompt_id"] not in self._known]

    def runs(self) -> int:
        """Count how often the GPU really worked since ``reset``."""
        return sum(entry["sampled"] for entry in self.prompts())

    def unfinished(self) -> list[str]:
        """List the prompts that run or wait."""
        queue = self._http.get("/queue").raise_for_status().json()
        return [entry[1] for entry in (*queue["queue_running"], *queue["queue_pending"])]

    def busy(self) -> bool:
        """Whether a prompt runs or waits."""
        return bool(self.unfinished())

    def runs_now(self, prompt_id: str | None = None) -> bool:
        """Whether a prompt (this one) is being executed."""
        running = self._http.get("/queue").raise_for_status().json()["queue_running"]
        return any(prompt_id is None or entry[1] == prompt_id for entry in running)
