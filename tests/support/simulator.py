"""Start the ComfyUI simulator as a real process, for any suite."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")
START_S = 20.0


def free_port() -> int:
    """Give a port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], T], timeout_s: float = 10.0) -> T:
    """Give the first true answer of ``condition``; fail when none comes in time."""
    end = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < end, f"not within {timeout_s} s: {condition}"
        time.sleep(0.01)


class RunningSimulator:
    """Be a simulator that can be asked, broken, killed and started again on its port."""

    def __init__(self, arguments: list[str], directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.directory = directory
        self.http = httpx.Client(base_url=self.url, trust_env=False)
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = arguments

    def start(self) -> None:
        """Start the process and wait until it answers."""
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "genonaut.local.comfy", "--port", str(self.port)),
                *("--dir", str(self.directory), *self._arguments),
            ],
            stdout=subprocess.DEVNULL,
        )
        wait_until(self._answers, START_S)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"simulator ended with {self.process.returncode}"
        # A connection is enough: an injected fault may keep it from answering.
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> None:
        """End the process and wait for it; ``SIGKILL`` gives it no chance to tidy up."""
        if self.process is not None:
            self.process.send_signal(sig)
            self.process.wait(10)
            self.process = None

    def faults(self, **faults: Any) -> None:
        """Replace all faults; call it without any to end them."""
        self.http.post("/simulator/faults", json=faults).raise_for_status()

    def log(self) -> dict[str, dict[str, Any]]:
        """Give the log by prompt id: received, runs, sampled, ended…."""
        answer = self.http.get("/simulator/log").raise_for_status().json()
        return {entry["prompt_id"]: entry for entry in answer["prompts"]}


@contextmanager
def running_simulator(
    *,
    directory: Path | None = None,
    step_delay: float = 0.0,
    load_delay: float = 0.0,
    allow_faults: bool = True,
    synthetic_nodes: bool = False,
) -> Iterator[RunningSimulator]:
    """Run a simulator on a free port for as long as the block lasts."""
    arguments = ["--step-delay", str(step_delay), "--load-delay", str(load_delay)]
    arguments += ["--allow-faults"] * allow_faults + ["--synthetic-nodes"] * synthetic_nodes
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        simulator = RunningSimulator(arguments, directory or Path(temporary))
        try:
            simulator.start()
            yield simulator
        finally:
            simulator.http.close()
            simulator.stop(signal.SIGKILL)


def text_to_image(
    prompt: str = "a lighthouse at dusk",
    *,
    seed: int = 1,
    steps: int = 4,
    size: tuple[int, int] = (64, 64),
    batch: int = 1,
    prefix: str = "test/picture",
) -> dict[str, Any]:
    """Give the usual graph in API format."""
    return {
        "3": {
            "class_type": "KSampler",
            "inputs": {
                "seed": seed,
                "steps": steps,
                "cfg": 7.0,
                "sampler_name": "euler",
                "scheduler": "normal",
                "denoise": 1.0,
                "model": ["4", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "latent_image": ["5", 0],
            },
        },
        "4": {
            "class_type": "CheckpointLoaderSimple",
            "inputs": {"ckpt_name": "aurelia-xl.safetensors"},
        },
        "5": {
            "class_type": "EmptyLatentImage",
            "inputs": {"width": size[0], "height": size[1], "batch_size": batch},
        },
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": prompt, "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {
            "class_type": "SaveImage",
            "inputs": {"images": ["8", 0], "filename_prefix": prefix},
        },
    }
