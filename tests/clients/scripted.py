"""A real HTTP and WebSocket server that answers what a test tells it to, faults included."""

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

TRANSCRIPTS = Path(__file__).parents[1] / "data" / "comfyui"


def steps(case: str) -> list[dict[str, Any]]:
    """Read the steps of a recorded case, such as ``04``."""
    (path,) = TRANSCRIPTS.glob(f"{case}_*.json")
    return json.loads(path.read_text())["steps"]


def wait_until(condition: Callable[[], Any], timeout_s: float = 5) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
    return value


@dataclass
class Reply:
    """An answer; ``fault`` is reset (none), truncate (a part), stall (never), trickle (slowly)."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    fault: str | None = None


def as_json(value: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(value).encode(), status, {"content-type": "application/json"})


def recorded(case: str, method: str, path: str, label: str = "") -> Reply:
    """Give the recorded answer to the first such request whose label contains ``label``."""
    for step in steps(case):
        request = step.get("request", {})
        if (request.get("method"), request.get("path")) == (method, path) and label in step.get(
            "label", ""
        ):
            answer = step["response"]
            if "json" in answer:
                return as_json(answer["json"], answer["status"])
            return Reply(answer.get("text", "").encode(), answer["status"])
    raise LookupError((case, method, path, label))


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, str]
    body: Any
    authorization: str | None = None


class Socket:
    """The server's end of a WebSocket."""

    def __init__(self, connection: socket.socket, protocol: ServerProtocol) -> None:
        self.received: list[str] = []
        self.closed = threading.Event()
        self._connection = connection
        self._protocol = protocol
        self._lock = threading.Lock()

    def send(self, message: Any) -> None:
        """Send text, bytes, or anything else as JSON."""
        with self._lock:
            if isinstance(message, bytes):
                self._protocol.send_binary(message)
            else:
                text = message if isinstance(message, str) else json.dumps(message)
                self._protocol.send_text(text.encode())
            self._flush()

    def drop(self) -> None:
        """Vanish without a close frame."""
        self._connection.shutdown(socket.SHUT_RDWR)

    def serve(self, *, answer_close: bool) -> None:
        while data := self._receive():
            with self._lock:
                self._protocol.receive_data(data)
                for event in self._protocol.events_received():
                    if isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                        self.received.append(bytes(event.data).decode())
                if answer_close or not self._protocol.close_expected():
                    self._flush()
                    if self._protocol.close_expected():
                        break
        self.closed.set()

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(65536)
        except OSError:
            return b""

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._connection.sendall(data)


class ScriptedServer:
    """Answers by method and path: each answer once, the last one for ever; else 404."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.sockets: list[Socket] = []
        self.overlapping = 0
        self.accept_sockets = True
        self.answer_close = True
        self.stopping = threading.Event()
        self._answers: dict[tuple[str, str], list[Reply]] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,))

    def __enter__(self) -> "ScriptedServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for open_socket in self.sockets:
            if not open_socket.closed.is_set():
                open_socket.drop()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def on(self, method: str, path: str, *answers: Reply) -> None:
        self._answers[method, path] = list(answers)

    def queue(self, *states: tuple[list[Any], list[Any]]) -> None:
        """Script GET /queue by the (number, id) pairs running and pending."""
        self.on("GET", "/queue", *(queue_of(running, pending) for running, pending in states))

    def socket(self, number: int = 0) -> Socket:
        """Wait for the client's first WebSocket, or a later one."""
        return wait_until(lambda: len(self.sockets) > number and self.sockets[number])

    def asked(self, *methods: str) -> list[tuple[str, str]]:
        return [(r.method, r.path) for r in self.requests if not methods or r.method in methods]

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        answers = self._answers.get((request.method, request.path), [Reply(status=404)])
        return answers.pop(0) if len(answers) > 1 else answers[0]


def queue_of(running: list[Any], pending: list[Any]) -> Reply:
    entries = [[[number, name, {}, {}, []] for number, name in part] for part in (running, pending)]
    return as_json({"queue_running": entries[0], "queue_pending": entries[1]})


def _handler(server: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client has gone
                super().handle()

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self.headers.get("upgrade", "").lower() == "websocket" and server.accept_sockets:
                self._upgrade()
            else:
                self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length", "0")))
            url = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(url.query, keep_blank_values=True).items()}
            body = json.loads(raw) if raw else None
            login = self.headers.get("authorization")
            reply = server.answer(Request(self.command, url.path, query, body, login))
            if reply.fault == "reset":
                linger = struct.pack("ii", 1, 0)
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.connection.close()
                self.close_connection = True
                return
            if reply.fault == "stall":
                server.stopping.wait(10)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if "transfer-encoding" in reply.headers:
                reply.body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(reply.body), reply.body)
            else:
                extra = 100 if reply.fault == "truncate" else 0
                self.send_header("content-length", str(len(reply.body) + extra))
            self.end_headers()
            pause_s, size = (0.05, 1) if reply.fault == "trickle" else (0, 1 << 20)
            for start in range(0, len(reply.body), size):
                self.wfile.write(reply.body[start : start + size])
                server.stopping.wait(pause_s)
            self.close_connection = reply.fault is not None

        def _upgrade(self) -> None:
            login = self.headers.get("authorization")
            server.requests.append(Request("WS", self.path, {}, None, login))
            protocol = ServerProtocol(max_size=None)
            head = f"{self.requestline}\n{self.headers}".replace("\n", "\r\n")
            protocol.receive_data(head.encode())
            (handshake,) = protocol.events_received()
            protocol.send_response(protocol.accept(handshake))
            self.connection.sendall(b"".join(protocol.data_to_send()))
            opened = Socket(self.connection, protocol)
            server.overlapping += any(not s.closed.is_set() for s in server.sockets)
            server.sockets.append(opened)
            try:
                opened.serve(answer_close=server.answer_close)
            except (OSError, InvalidState):
                opened.closed.set()
            self.close_connection = True

        def finish(self) -> None:
            with contextlib.suppress(OSError, ValueError):
                super().finish()

    return Handler
