"""Read what ComfyUI sends over its WebSocket; what is unknown or malformed reads as None."""

import json
import struct
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from genonaut.clients.comfyui.history import instant

_PREVIEW = 1
_PREVIEW_WITH_METADATA = 4
_FORMATS: dict[object, Literal["jpeg", "png"]] = {
    1: "jpeg",
    2: "png",
    "image/jpeg": "jpeg",
    "image/png": "png",
}
_SIGNATURES = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True, slots=True)
class Started:
    """Execution began; ``at`` is ComfyUI's clock."""

    prompt_id: str
    at: datetime | None


@dataclass(frozen=True, slots=True)
class Cached:
    """These nodes are answered from the cache and will not run."""

    prompt_id: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Executing:
    """This node runs now; None: the prompt ended, well or not."""

    prompt_id: str
    node: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """A node reports progress of its own, ``value`` of ``max``."""

    prompt_id: str
    node: str
    value: float
    max: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A node raised; the history says what."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Somebody stopped the prompt."""

    prompt_id: str


@dataclass(frozen=True, slots=True)
class Status:
    """So many prompts are running or waiting, of all clients."""

    queue_remaining: int


Event = Started | Cached | Executing | Step | Failed | Interrupted | Status


@dataclass(frozen=True, slots=True)
class Preview:
    """Hold a picture of an unfinished step; old servers do not say whose."""

    format: Literal["jpeg", "png"]
    data: bytes
    prompt_id: str | None


def parse_event(text: str) -> Event | None:
    """Read a text message; None if it tells us nothing."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return None
    data = message.get("data") if isinstance(message, dict) else None
    if not isinstance(data, dict):
        return None
    kind, prompt_id = message.get("type"), data.get("prompt_id")
    if kind == "status":
        return _status(data)
    if not isinstance(prompt_id, str):
        return None
    match kind:
        case "execution_start":
            return Started(prompt_id, instant(data.get("timestamp")))
        case "execution_cached":
            nodes = data.get("nodes")
            nodes = nodes if isinstance(nodes, list) else []
            return Cached(prompt_id, tuple(node for node in nodes if isinstance(node, str)))
        case "executing" if "node" in data and isinstance(data["node"], str | None):
            return Executing(prompt_id, data["node"])
        case "progress":
            return _step(prompt_id, data)
        case "execution_error":
            return Failed(prompt_id)
        case "execution_interrupted":
            return Interrupted(prompt_id)
    return None


def parse_preview(frame: bytes) -> Preview | None:
    """Read a binary message; None if it is not a picture we can show.

    Type 1 names neither prompt nor node; type 4 carries JSON metadata before the picture.
    """
    if len(frame) < 8:
        return None
    kind, number = struct.unpack_from(">II", frame)
    if kind == _PREVIEW:
        return _preview(number, frame[8:], None)
    if kind == _PREVIEW_WITH_METADATA and number <= len(frame) - 8:
        try:
            told = json.loads(frame[8 : 8 + number])
        except (ValueError, RecursionError):
            return None
        if isinstance(told, dict):
            prompt_id = told.get("prompt_id")
            owner = prompt_id if isinstance(prompt_id, str) else None
            return _preview(told.get("image_type"), frame[8 + number :], owner)
    return None


def _preview(kind: object, data: bytes, prompt_id: str | None) -> Preview | None:
    image_format = _FORMATS.get(kind) if isinstance(kind, int | str) else None
    if image_format is None or not data.startswith(_SIGNATURES[image_format]):
        return None
    return Preview(image_format, data, prompt_id)


def _status(data: dict[str, Any]) -> Status | None:
    status = data.get("status")
    info = status.get("exec_info") if isinstance(status, dict) else None
    remaining = info.get("queue_remaining") if isinstance(info, dict) else None
    if isinstance(remaining, int) and not isinstance(remaining, bool):
        return Status(remaining)
    return None


def _step(prompt_id: str, data: dict[str, Any]) -> Step | None:
    node, value, maximum = data.get("node"), data.get("value"), data.get("max")
    if (
        isinstance(node, str)
        and isinstance(value, int | float)
        and isinstance(maximum, int | float)
    ):
        return Step(prompt_id, node, value, maximum)
    return None
