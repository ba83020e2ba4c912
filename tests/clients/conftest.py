"""Fixtures of the client tests."""

from collections.abc import Iterator

import pytest

from genonaut.clients.comfyui import ComfyClient
from tests.clients.scripted import ScriptedServer


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with ScriptedServer() as scripted:
        yield scripted


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[ComfyClient]:
    with ComfyClient(server.url, connect_timeout_s=1, read_timeout_s=2) as comfy:
        yield comfy
