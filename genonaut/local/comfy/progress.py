"""Tell the sockets how far a prompt is, with previews, and notice interrupts."""

import io
import json
import struct
import threading
from collections.abc import Callable
from typing import Any

from PIL import Image

from genonaut.local.comfy.sockets import Sockets

PREVIEW_IMAGE = 1
PREVIEW_WITH_METADATA = 4
_JPEG = 1


class Interrupted(Exception):  # noqa: N818 - no error: somebody asked for it
    """Stop the running prompt."""


class Progress:
    """Report on the nodes of one prompt."""

    def __init__(
        self,
        sockets: Sockets,
        interrupt: threading.Event,
        prompt_id: str,
        client_id: str | None,
        guard: Callable[[], None],
    ) -> None:
        self._sockets = sockets
        self._interrupt = interrupt
        self._prompt_id = prompt_id
        self._client_id = client_id
        self._guard = guard
        self._nodes: dict[str, dict[str, Any]] = {}
        self._current = ""

    def stop_if_interrupted(self) -> None:
        """Raise when an interrupt waits, and use it up."""
        self._guard()
        if self._interrupt.is_set():
            self._interrupt.clear()
            raise Interrupted

    def start(self, node_id: str) -> None:
        """Report that a node begins."""
        self._current = node_id
        self._state(node_id, 0.0, 1.0, "running")

    def finish(self, node_id: str) -> None:
        """Report that a node has its result."""
        maximum = self._nodes[node_id]["max"] if node_id in self._nodes else 1.0
        self._state(node_id, maximum, maximum, "finished")

    def step(self, value: int, of: int, preview: Callable[[], Any] | None) -> None:
        """Report a step of the current node, in the order of the recorded messages."""
        self.stop_if_interrupted()
        self._state(self._current, value, of, "running")
        image = None
        if preview is not None and self._sockets.anyone(self._client_id):
            image = _jpeg(preview())
        with_metadata = self._sockets.wants_metadata(self._client_id)
        if image and with_metadata:
            metadata = json.dumps(
                {
                    "node_id": self._current,
                    "prompt_id": self._prompt_id,
                    "display_node_id": self._current,
                    "parent_node_id": None,
                    "real_node_id": self._current,
                    "image_type": "image/jpeg",
                }
            ).encode()
            head = struct.pack(">II", PREVIEW_WITH_METADATA, len(metadata))
            self._sockets.send_bytes(head + metadata + image, self._client_id)
        self._sockets.send(
            "progress",
            {"value": value, "max": of, "prompt_id": self._prompt_id, "node": self._current},
            self._client_id,
        )
        if image and not with_metadata:
            frame = struct.pack(">II", PREVIEW_IMAGE, _JPEG) + image
            self._sockets.send_bytes(frame, self._client_id)

    def _state(self, node_id: str, value: float, maximum: float, state: str) -> None:
        self._nodes[node_id] = {
            "value": value,
            "max": maximum,
            "state": state,
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        self._sockets.send(
            "progress_state",
            {"prompt_id": self._prompt_id, "nodes": dict(self._nodes)},
            self._client_id,
        )


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
