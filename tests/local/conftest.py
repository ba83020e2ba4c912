import os
from collections.abc import Iterator

import httpx
import pytest

from tests.support.simulator import RunningSimulator, running_simulator
from tests.support.wsclient import Listener


@pytest.fixture(scope="module")
def simulator() -> Iterator[RunningSimulator]:
    """A simulator with faults and synthetic nodes; what a test breaks is whole for the next."""
    with running_simulator(synthetic_nodes=True, step_delay=0.01) as running:
        yield running


@pytest.fixture
def sim(simulator: RunningSimulator) -> Iterator[RunningSimulator]:
    simulator.faults(forget=True)
    simulator.faults()
    yield simulator
    simulator.faults()


@pytest.fixture(scope="module")
def comfyui_url() -> Iterator[str]:
    """A real ComfyUI when COMFYUI_TEST_URL names one; else a simulator."""
    real = os.environ.get("COMFYUI_TEST_URL")  # noqa: TID251
    if real:
        yield real
        return
    with running_simulator(synthetic_nodes=True, allow_faults=False) as running:
        yield running.url


@pytest.fixture
def comfyui(comfyui_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=comfyui_url, timeout=60) as client:
        yield client


@pytest.fixture
def listen() -> Iterator[type[Listener] | object]:
    """Opens sockets that are closed after the test: ``listen(url, client_id)``."""
    opened: list[Listener] = []

    def open_socket(url: str, client_id: str | None = None) -> Listener:
        opened.append(Listener(url, client_id))
        return opened[-1]

    yield open_socket
    for listener in opened:
        listener.close()
