"""Listen to a ComfyUI WebSocket in the background."""

import io
import json
import struct
import threading
from contextlib import ExitStack
from typing import Any

from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.simulator import wait_until
from tests.support.transcripts import token


class Listener:
    """Collect every message of one socket."""

    def __init__(self, url: str, client_id: str | None) -> None:
        query = f"?clientId={client_id}" if client_id else ""
        address = url.rstrip("/").replace("http", "ws", 1) + f"/ws{query}"
        self.messages: list[dict[str, Any]] = []
        self.clean = True
        self._stack = ExitStack()
        self.socket = self._stack.enter_context(
            connect(address, max_size=None, ping_interval=None, close_timeout=2)
        )
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        try:
            for message in self.socket:
                if isinstance(message, str):
                    self.messages.append({"json": json.loads(message)})
                else:
                    self.messages.append({"binary": describe(message)})
        except (ConnectionClosed, ValueError):
            self.clean = False

    def send(self, text: str) -> None:
        """Send a text message."""
        self.socket.send(text)

    def tokens(self) -> list[str]:
        """Give what came so far, reduced."""
        return [token(message) for message in list(self.messages)]

    def wait_for(self, what: str, count: int = 1) -> None:
        """Wait until so many messages of this token came."""
        wait_until(lambda: self.tokens().count(what) >= count)

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        """Give the data of all JSON messages of a type."""
        return [
            m["json"]["data"] for m in list(self.messages) if m.get("json", {}).get("type") == kind
        ]

    def ended(self) -> bool:
        """Say whether the connection is gone."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Close cleanly and wait for the reader."""
        self._stack.close()
        self._thread.join(5)


def describe(frame: bytes) -> dict[str, Any]:
    """Read a binary frame as the transcripts describe it."""
    (kind,) = struct.unpack(">I", frame[:4])
    (second,) = struct.unpack(">I", frame[4:8])
    described: dict[str, Any] = {"event_type_u32be": kind, "image": ""}
    start = 8 + second if kind == 4 else 8
    if kind == 4:
        described["metadata"] = json.loads(frame[8:start])
    if frame[start : start + 2] == b"\xff\xd8":
        with Image.open(io.BytesIO(frame[start:])) as image:
            described["image"] = f"{image.format} {image.width}x{image.height} {image.mode}"
    return described
