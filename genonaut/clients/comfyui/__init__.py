"""Speak with ComfyUI over HTTP and its WebSocket, against the protocol as recorded."""

from genonaut.clients.comfyui.client import (
    BackendOptions,
    CancelOutcome,
    ComfyClient,
    Located,
)
from genonaut.clients.comfyui.history import ExecutionError, HistoryEntry
from genonaut.clients.comfyui.listener import Listener
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
)
from genonaut.clients.comfyui.transport import without_login

__all__ = [
    "BackendOptions",
    "Cached",
    "CancelOutcome",
    "ComfyClient",
    "Event",
    "Executing",
    "ExecutionError",
    "Failed",
    "HistoryEntry",
    "Interrupted",
    "Listener",
    "Located",
    "Preview",
    "Started",
    "Status",
    "Step",
    "without_login",
]
