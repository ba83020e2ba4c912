"""Keep the WebSockets and send to them, one after the other, as ComfyUI's one publisher does."""

import asyncio
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from genonaut.local.comfy.connections import reset
from genonaut.local.comfy.faults import FaultBox

MAX_UPLOAD_BYTES = 100 << 20
FEATURES = {"supports_preview_metadata": True, "max_upload_size": MAX_UPLOAD_BYTES}

Message = str | bytes


@dataclass(eq=False)
class Sockets:
    """Route messages by client id; everything but ``send`` runs on the event loop.

    A socket that does not read holds up the publisher, and with it the events of all: recorded.
    """

    faults: FaultBox
    owner: str | None = None
    """The client id of the prompt that runs or ran last."""
    running_node: str | None = None
    _open: dict[str, WebSocket] = field(default_factory=dict)
    _features: dict[str, dict[str, Any]] = field(default_factory=dict)
    _outbox: asyncio.Queue[tuple[Message, str | None]] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop | None = None

    def send(self, event: str, data: Any, client_id: str | None) -> None:
        """Queue a message for one client, or for all; may be called from any thread."""
        self._post(json.dumps({"type": event, "data": data}), client_id)

    def send_bytes(self, frame: bytes, client_id: str | None) -> None:
        """Queue a binary frame for one client, or for all; may be called from any thread."""
        self._post(frame, client_id)

    def anyone(self, client_id: str | None) -> bool:
        """Say whether a frame for this client would reach a socket."""
        return bool(self._open) if client_id is None else client_id in self._open

    def wants_metadata(self, client_id: str | None) -> bool:
        """Say whether this client asked for previews of type 4."""
        features = self._features.get(client_id or "", {})
        return features.get("supports_preview_metadata") is True

    def _post(self, message: Message, client_id: str | None) -> None:
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._outbox.put_nowait, (message, client_id))

    async def publish(self) -> None:
        """Send what is queued, for as long as the server runs."""
        self._loop = asyncio.get_running_loop()
        while True:
            message, client_id = await self._outbox.get()
            if client_id is None:
                targets = list(self._open.values())
            else:
                targets = [self._open[client_id]] if client_id in self._open else []
            if self.faults.now.ws == "deaf":
                continue
            for socket in targets:
                if self.faults.now.ws == "garbage":
                    message = b"\x00\xff" if isinstance(message, bytes) else '{"type": "exec'
                await _deliver(socket, message)

    async def serve(self, socket: WebSocket, status: Any) -> None:
        """Hold one connection from its opening to its end."""
        if self.faults.now.ws == "refuse":
            await socket.close()
            return
        await socket.accept()
        sid = socket.query_params.get("clientId") or uuid.uuid4().hex
        self._open[sid] = socket
        try:
            await _deliver(socket, _json("status", {"status": status, "sid": sid}))
            if self.owner == sid and self.running_node is not None:
                await _deliver(socket, _json("executing", {"node": self.running_node}))
            await self._listen(socket, sid)
        except WebSocketDisconnect:
            pass
        finally:
            # By id, not by socket: a newer socket of this id is forgotten too, as recorded.
            self._open.pop(sid, None)
            self._features.pop(sid, None)

    async def _listen(self, socket: WebSocket, sid: str) -> None:
        first = True
        while True:
            received = await socket.receive()
            if received["type"] == "websocket.disconnect":
                return
            message = None
            with contextlib.suppress(ValueError, TypeError):
                message = json.loads(received.get("text") or "")
            if first and isinstance(message, dict) and message.get("type") == "feature_flags":
                self._features[sid] = message.get("data") or {}
                await _deliver(socket, _json("feature_flags", FEATURES))
            first = False

    def drop_all(self) -> None:
        """Reset every connection, as the end of the process would."""
        for socket in self._open.values():
            reset(socket.scope)


def _json(event: str, data: Any) -> str:
    return json.dumps({"type": event, "data": data})


async def _deliver(socket: WebSocket, message: Message) -> None:
    if socket.application_state is not WebSocketState.CONNECTED:
        return
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):
        if isinstance(message, bytes):
            await socket.send_bytes(message)
        else:
            await socket.send_text(message)
