"""Hear ComfyUI's WebSocket in the background; whatever it says is only a hint."""

import json
import logging
import ssl
import threading
import time
from collections import deque
from dataclasses import replace
from types import TracebackType
from typing import Self

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from genonaut.clients.comfyui.messages import (
    Cached,
    Event,
    Executing,
    Failed,
    Interrupted,
    Preview,
    Started,
    Status,
    Step,
    parse_event,
    parse_preview,
)
from genonaut.clients.comfyui.transport import without_login

MAX_FRAME_BYTES = 32 * 1024 * 1024
MAILBOX = 512
"""Events kept for a slow reader; the oldest go first."""

_log = logging.getLogger(__name__)

_FEATURE_FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
_SLICE_S = 0.1
_CLOSE_S = 0.5
_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 5.0
_PATIENCE_S = 1.0


class Listener:
    """Read one client id's messages in a thread of its own, as fast as they come.

    ComfyUI has one publisher for all sockets, so a reader that stalls would freeze everybody's
    events; hence the thread. It connects again with back-off, only after the old socket is fully
    closed: ComfyUI forgets a new one when an old one of the same id closes later. Nothing missed
    is ever repeated, so poll beside it.

    As a context manager it waits up to one second for the first connection, so that a prompt
    posted inside is heard from its start.
    """

    def __init__(
        self, url: str, *, tls: ssl.SSLContext | None, connect_timeout_s: float = 3
    ) -> None:
        self._url = url
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._news = threading.Condition()
        self._events: deque[Event] = deque(maxlen=MAILBOX)
        self._preview: Preview | None = None
        self._drawing: str | None = None
        self._heard_at = 0.0
        self._is_told = False
        self._closing = threading.Event()
        self._hang_up = threading.Event()
        self._tried = threading.Event()
        self._connected = threading.Event()
        self._thread = threading.Thread(target=self._run, name="comfyui-listener", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._tried.wait(_PATIENCE_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Tell whether a socket is open; an open one may still be deaf."""
        return self._connected.is_set()

    @property
    def heard_at(self) -> float:
        """Give the monotonic time when a socket was opened, or said anything, last."""
        return self._heard_at

    def poll(self, timeout_s: float) -> list[Event]:
        """Take what has come, in order; waits up to ``timeout_s`` seconds for the first."""
        with self._news:
            self._news.wait_for(lambda: self._events or self._closing.is_set(), timeout_s)
            events = list(self._events)
            self._events.clear()
            return events

    def take_preview(self) -> Preview | None:
        """Take the newest preview; None if none came since the last call.

        One that does not say whose it is belongs to the prompt that this socket last heard of, and
        is dropped after that one's end: a stranger's may be sent to all.
        """
        with self._news:
            preview, self._preview = self._preview, None
            return preview

    def reconnect(self) -> None:
        """Drop the socket and open another; for when polling sees news that never came here."""
        self._hang_up.set()

    def close(self) -> None:
        """End the thread, in well under a second unless it is just connecting."""
        self._closing.set()
        with self._news:
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        backoff_s = _FIRST_BACKOFF_S
        while not self._closing.is_set():
            heard = self._converse()
            backoff_s = _FIRST_BACKOFF_S if heard else min(backoff_s * 2, _LONGEST_BACKOFF_S)
            self._closing.wait(backoff_s)

    def _converse(self) -> bool:
        """Hold one socket from opening until it is fully closed; tell whether it said anything."""
        heard = False
        try:
            with self._dial() as socket:
                self._hang_up.clear()
                socket.send(_FEATURE_FLAGS)  # counts only as the very first message
                self._drawing = None
                self._heard_at = time.monotonic()
                self._connected.set()
                self._tried.set()
                while not (self._closing.is_set() or self._hang_up.is_set()):
                    try:
                        message = socket.recv(_SLICE_S)
                    except TimeoutError:
                        continue
                    heard = True
                    self._heard_at = time.monotonic()
                    self._deliver(message)
        except (OSError, EOFError, WebSocketException) as error:
            self._tell(error)
        finally:
            self._connected.clear()
            self._tried.set()
        return heard

    def _tell(self, error: Exception) -> None:
        """Warn of the first socket that cannot be opened; a proxy may let none pass."""
        reason = f"{type(error).__name__}: {error}".replace(self._url, "the address")
        if self._connected.is_set() or self._is_told:
            _log.debug("ComfyUI's socket is gone: %s", reason)
            return
        self._is_told = True
        where = without_login(self._url).partition("?")[0]
        _log.warning("ComfyUI's socket at %s cannot be opened: %s", where, reason)

    def _dial(self) -> ClientConnection:
        return connect(
            self._url,
            ssl=self._tls,
            proxy=None,
            compression=None,
            open_timeout=self._connect_timeout_s,
            close_timeout=_CLOSE_S,
            max_size=MAX_FRAME_BYTES,
        )

    def _deliver(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            preview = parse_preview(message)
            if preview is not None and preview.prompt_id is None:
                preview = replace(preview, prompt_id=self._drawing)
            if preview is not None and preview.prompt_id is not None:
                with self._news:
                    self._preview = preview
            return
        event = parse_event(message)
        if event is None:
            return
        match event:  # one prompt is drawn at a time
            case Executing(node=None) | Failed() | Interrupted():
                self._drawing = None
            case Started() | Cached() | Executing() | Step():
                self._drawing = event.prompt_id
        with self._news:
            if self._events and _supersedes(event, self._events[-1]):
                self._events[-1] = event
            else:
                self._events.append(event)
            self._news.notify_all()


def _supersedes(new: Event, old: Event) -> bool:
    """Tell whether ``old`` is worth nothing once ``new`` is known."""
    if isinstance(new, Step) and isinstance(old, Step):
        return (new.prompt_id, new.node) == (old.prompt_id, old.node)
    return isinstance(new, Status) and isinstance(old, Status)
