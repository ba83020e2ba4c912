"""Send HTTP requests as fast as they are answered, from a process of its own.

Standard input holds the work as JSON; one line of JSON on standard output tells what came of it.
A thin client, so that the two cores are left to what is measured.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import cycle

import uvloop

from benchmarks.harness.report import note, percentile
from benchmarks.harness.stage import Served


@dataclass(frozen=True, slots=True)
class Work:
    """Whole requests, sent in turn over ``connections`` kept alive for ``seconds``."""

    port: int
    requests: list[str]
    expect: int
    connections: int = 32
    seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came back."""

    count: int
    per_second: float
    p50_ms: float
    p99_ms: float


def request(method: str, path: str, *, token: str = "", body: str = "") -> str:
    """Write an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Accept: application/json"]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body.encode())}"]
    return "\r\n".join([*lines, "", body])


def run(work: Work) -> Outcome:
    """Do the work in another process.

    Raises: RuntimeError: an answer was not the expected one.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.harness.load"],
        input=json.dumps(asdict(work)),
        capture_output=True,
        text=True,
        timeout=work.seconds + 30,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip()[-2000:])
    return Outcome(**json.loads(done.stdout))


def rate(server: Served, requests: list[str], expect: int, seconds: float = 3.0) -> float:
    """Give the requests a server answers per second, and note what each takes."""
    before = server.cpu_s()
    found = run(Work(server.port, requests, expect, seconds=seconds))
    each_ms = (server.cpu_s() - before) / found.count * 1000
    note(f"  p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms, processor {each_ms:.2f} ms each")
    return found.per_second


class _Client(asyncio.Protocol):
    def __init__(self, requests: "cycle[bytes]", until: float) -> None:
        self.latencies: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.sample = b""
        self.ended = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._until = until
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        if self._sent_at >= self._until:
            self._transport.close()
            return
        self._transport.write(next(self._requests))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < length:
            return
        status = int(head[9:12])
        self.statuses[status] += 1
        if not self.sample or status >= 400:
            self.sample = body[:300]
        self.latencies.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(exc)


async def _work(work: Work) -> Outcome:
    loop = asyncio.get_running_loop()
    encoded = [text.encode() for text in work.requests]
    turn = cycle(encoded)
    began = time.perf_counter()
    clients = [
        (
            await loop.create_connection(
                lambda: _Client(turn, began + work.seconds), "127.0.0.1", work.port
            )
        )[1]
        for _ in range(work.connections)
    ]
    await asyncio.gather(*(client.ended for client in clients))
    lasted = time.perf_counter() - began
    statuses = sum((client.statuses for client in clients), Counter())
    if set(statuses) != {work.expect}:
        raise RuntimeError(f"answered {dict(statuses)}: {[c.sample for c in clients][:3]}")
    latencies = [latency * 1000 for client in clients for latency in client.latencies]
    return Outcome(
        len(latencies),
        len(latencies) / lasted,
        percentile(latencies, 0.5),
        percentile(latencies, 0.99),
    )


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_work(Work(**json.load(sys.stdin)))))))
