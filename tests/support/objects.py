"""A server that speaks S3, as a process of its own."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.support.servers import free_port

BUCKET = "pictures"
OPTIONS = {"region": "us-east-1", "access_key_id": "key", "secret_access_key": "secret"}


@contextmanager
def object_server() -> Iterator[str]:
    """Serve an empty bucket; give the address."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + 60
            while True:
                try:
                    httpx.put(f"{url}/{BUCKET}").raise_for_status()
                    break
                except httpx.TransportError:
                    assert server.poll() is None
                    assert time.monotonic() < until
                    time.sleep(0.05)
            yield url
        finally:
            server.kill()
