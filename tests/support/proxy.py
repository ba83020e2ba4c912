"""A TCP proxy that stands between two parts of the system and breaks their connection."""

import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Literal, Self

from tests.support.servers import free_port

Mode = Literal["forward", "refuse", "black_hole"]

_CHUNK = 65536
_CONNECT_S = 5.0


class Proxy:
    """Forward a port of its own to ``target``, until told otherwise.

    ``refuse`` closes the port and every connection, as if nothing listened. ``black_hole`` goes on
    accepting but passes nothing on, as a network that swallows packets. ``delay_s`` holds back each
    piece of data.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.delay_s = 0.0
        self.connections = 0
        """Connections accepted since the start."""
        self._mode: Mode = "forward"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._mode = "forward"
        self._stop_listening()
        self.drop()

    def forward(self) -> None:
        """Work as if the proxy were not there; what hung goes on."""
        self._mode = "forward"
        if self._listener is None:
            self._listen()

    def refuse(self) -> None:
        """Close everything and accept nothing."""
        self._mode = "refuse"
        self._stop_listening()
        self.drop()

    def black_hole(self) -> None:
        """Accept, and swallow whatever comes from either side until ``forward``."""
        self._mode = "black_hole"

    def drop(self) -> None:
        """Cut the connections that are open now; new ones are welcome."""
        with self._lock:
            doomed, self._open = self._open, set()
        for connection in doomed:
            _cut(connection)

    def _listen(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            _cut(listener)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with self._lock:
            self._open.add(near)
        try:
            far = socket.create_connection(("127.0.0.1", self.target), timeout=_CONNECT_S)
        except OSError:
            self._forget(near)
            return
        far.settimeout(None)
        with self._lock:
            self._open.add(far)
        try:
            self._pump(near, far)
        except (OSError, ValueError):
            pass  # either side, or drop(), has closed it
        finally:
            self._forget(near)
            self._forget(far)

    def _pump(self, near: socket.socket, far: socket.socket) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(near, selectors.EVENT_READ, far)
            ready.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in ready.select(timeout=1):
                    side = near if key.data is far else far
                    data = side.recv(_CHUNK)
                    if not data:
                        return
                    self._hold_back()
                    key.data.sendall(data)

    def _hold_back(self) -> None:
        if self.delay_s:
            time.sleep(self.delay_s)
        while self._mode == "black_hole" and not self._ended.is_set():
            time.sleep(0.02)

    def _forget(self, connection: socket.socket) -> None:
        with self._lock:
            self._open.discard(connection)
        _cut(connection)


def _cut(connection: socket.socket) -> None:
    """Close so that a thread blocked on it wakes up."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
