"""Hold many WebSockets in a process of their own and time how fast a broadcast reaches them all.

Standard input holds the description as one line of JSON, then one line per broadcast series: how
many events to publish. An event is published when the one before has reached every socket. Frames
are read by hand: a full client would take more time than the server that is measured.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import redis
import uvloop

from benchmarks.harness.report import percentile

_AT_ONCE = 40
_PATIENCE_S = 40.0
_PING, _CLOSE = 9, 8


@dataclass(frozen=True, slots=True)
class Audience:
    """Sockets to one address, and what is published to them; ``{n}`` stands for its number."""

    port: int
    path: str
    token: str
    sockets: int
    redis_url: str
    channel: str
    message: str


@dataclass(frozen=True, slots=True)
class Heard:
    """How fast a series of events reached everyone."""

    per_second: float
    p50_ms: float
    p99_ms: float


class Swarm:
    """The process; opened when every socket has had its first message."""

    def __init__(self, audience: Audience) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness.swarm"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._ask(json.dumps(asdict(audience)))

    def broadcast(self, events: int) -> Heard:
        """Publish so many events, one after the other."""
        return Heard(**json.loads(self._ask(str(events))))

    def close(self) -> None:
        """Drop every socket."""
        self._process.communicate(timeout=10)

    def _ask(self, line: str) -> str:
        pipes = self._process.stdin, self._process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise RuntimeError("the swarm has no pipes")
        print(line, file=pipes[0], flush=True)
        answer = pipes[1].readline()
        if not answer:
            raise RuntimeError("the swarm has ended; its errors are above")
        return answer


class _Round:
    """One event on its way."""

    def __init__(self, sockets: int) -> None:
        self.began = time.perf_counter()
        self.latencies: list[float] = []
        self.everyone = asyncio.get_running_loop().create_future()
        self._sockets = sockets

    def arrived(self) -> None:
        self.latencies.append(time.perf_counter() - self.began)
        if len(self.latencies) == self._sockets:
            self.everyone.set_result(None)


class _Socket(asyncio.Protocol):
    round: "_Round"

    def __init__(self, audience: Audience) -> None:
        self.first = asyncio.get_running_loop().create_future()
        self._audience = audience
        self._buffer = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(  # type: ignore[attr-defined]
            f"GET {self._audience.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {self._audience.token}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._open:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            if not head.startswith(b"HTTP/1.1 101"):
                self.first.set_exception(RuntimeError(head.decode()))
                return
            self._open, self._buffer = True, rest
        while (frame := self._frame()) is not None:
            self._take(*frame)

    def _frame(self) -> tuple[int, bytes] | None:
        """Cut the next whole frame off the buffer."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, start = buffer[1], 2
        if length >= 126:
            start = 4 if length == 126 else 10
            length = int.from_bytes(buffer[2:start], "big")
        if len(buffer) < start + length:
            return None
        self._buffer = buffer[start + length :]
        return buffer[0] & 15, buffer[start : start + length]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            pong = b"\x8a" + bytes([0x80 | len(payload)]) + bytes(4) + payload
            self._transport.write(pong)  # type: ignore[attr-defined]
        elif opcode == _CLOSE:
            raise RuntimeError(f"the server closed a socket: {payload!r}")
        elif self.first.done():
            self.round.arrived()
        else:
            self.first.set_result(None)


async def _open(audience: Audience) -> None:
    loop = asyncio.get_running_loop()
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with gate:
            _, socket = await loop.create_connection(
                lambda: _Socket(audience), "127.0.0.1", audience.port
            )
            await socket.first

    await asyncio.gather(*(one() for _ in range(audience.sockets)))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    audience = Audience(**json.loads(sys.stdin.readline()))
    await _open(audience)
    print("open", flush=True)
    publisher = redis.Redis.from_url(audience.redis_url)
    number = 1000
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        latencies: list[float] = []
        lasted = 0.0
        for _ in range(int(line)):
            number += 1
            _Socket.round = now = _Round(audience.sockets)
            publisher.publish(audience.channel, audience.message.replace("{n}", str(number)))
            await asyncio.wait_for(now.everyone, _PATIENCE_S)
            lasted += time.perf_counter() - now.began
            latencies += now.latencies
        milliseconds = [latency * 1000 for latency in latencies]
        heard = Heard(
            len(latencies) / lasted, percentile(milliseconds, 0.5), percentile(milliseconds, 0.99)
        )
        print(json.dumps(asdict(heard)), flush=True)


if __name__ == "__main__":
    uvloop.run(_serve())
