"""Real receivers for what notifications send: an SMTP server, and an HTTP server with a script."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

from aiosmtpd.controller import Controller

from tests.support.servers import free_port


@dataclass
class MailSink:
    """What an SMTP server was handed; ``answers`` are given to the next messages instead of yes."""

    port: int
    messages: list[EmailMessage] = field(default_factory=list)
    recipients: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0
    hangs_up_at: str | None = None
    """The command, RCPT or DATA, that it answers once by hanging up."""

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:  # noqa: N802
        self._may_hang_up(server, "RCPT")
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:  # noqa: N802
        if self.answers:
            return self.answers.pop(0)
        self.messages.append(message_from_bytes(envelope.content, policy=default))
        self.recipients += envelope.rcpt_tos
        self._may_hang_up(server, "DATA")
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        return "250 taken"

    def _may_hang_up(self, server: Any, command: str) -> None:
        if self.hangs_up_at == command:
            self.hangs_up_at = None
            server.transport.abort()

    @property
    def ids(self) -> list[str]:
        return [message["Message-ID"] for message in self.messages]


@contextmanager
def mail_sink(**options: Any) -> Iterator[MailSink]:
    sink = MailSink(free_port())
    controller = Controller(sink, hostname="127.0.0.1", port=sink.port, **options)
    controller.start()
    try:
        yield sink
    finally:
        controller.stop(no_assert=True)


@dataclass(frozen=True)
class Heard:
    """One request: its headers in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Script = Callable[[Heard, socket.socket], None]


def answer(status: int, body: bytes = b"", **headers: str) -> Script:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return lambda _, connection: connection.sendall(
        "\r\n".join(lines).encode() + b"\r\n\r\n" + body
    )


def echo(heard: Heard, connection: socket.socket) -> None:
    """Repeat the challenge, as a receiver that wants to hear does."""
    answer(200, json.dumps({"challenge": heard.json()["data"]["challenge"]}).encode())(
        heard, connection
    )


def drip(_: Heard, connection: socket.socket) -> None:
    """Answer a byte at a time, for ever: no single wait is long."""
    with_patience = b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000
    for number in range(len(with_patience)):
        connection.sendall(with_patience[number : number + 1])
        time.sleep(0.02)


def flood(_: Heard, connection: socket.socket) -> None:
    """Answer with ten megabytes."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10485760\r\n\r\n")
    for _part in range(160):
        connection.sendall(b"x" * 65_536)


class HttpSink:
    """Follow a script, one step per request; when it is over, say yes."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.script: list[Script] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                heard = _read(connection)
                if heard is None:
                    return
                self.heard.append(heard)
                step = self.script.pop(0) if self.script else answer(204)
                step(heard, connection)
            except OSError:
                pass  # it had enough of us


def _read(connection: socket.socket) -> Heard | None:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65_536)
    return Heard(first.split()[1], headers, body)


@contextmanager
def http_sink() -> Iterator[HttpSink]:
    sink = HttpSink()
    try:
        yield sink
    finally:
        sink.close()
