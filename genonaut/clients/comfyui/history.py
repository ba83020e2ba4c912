"""Read ComfyUI's history: how a prompt ended, when, and with what."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from genonaut.clients.comfyui.wording import clean
from genonaut.core.errors import BackendUnavailableError

Outcome = Literal["success", "error", "interrupted"]

_ENDINGS: dict[str, Outcome] = {
    "execution_success": "success",
    "execution_error": "error",
    "execution_interrupted": "interrupted",
}


@dataclass(frozen=True, slots=True)
class ExecutionError:
    """Say which node failed and why; ``message`` is fit for users and at most 500 long."""

    node_id: str
    node_type: str
    exception_type: str
    message: str

    @property
    def is_out_of_memory(self) -> bool:
        """Tell memory exhaustion, of the GPU or the host, from other failures."""
        kind = self.exception_type
        return (
            "OutOfMemory" in kind
            or kind.endswith("MemoryError")
            or "out of memory" in self.message.lower()
        )


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Hold a prompt's end; ``outputs`` is what finished before it, also after an error."""

    outcome: Outcome
    outputs: dict[str, Any]
    error: ExecutionError | None
    started_at: datetime | None
    ended_at: datetime | None


def parse_history(prompt_id: str, body: object) -> HistoryEntry | None:
    """Find a prompt in the answer of ``/history/{id}``; None if it is not there.

    The last message tells an interrupted prompt from a failed one; ``status_str`` is ``error``
    for both.

    Raises: BackendUnavailableError: this is not a history.
    """
    if not isinstance(body, dict):
        raise BackendUnavailableError("ComfyUI answered with something that is not a history")
    if prompt_id not in body:
        return None
    entry = body[prompt_id]
    outputs = entry.get("outputs") if isinstance(entry, dict) else None
    status = entry.get("status") if isinstance(entry, dict) else None
    if not isinstance(outputs, dict) or not isinstance(status, dict):
        raise BackendUnavailableError("ComfyUI answered with a history entry we cannot read")
    messages = dict(_messages(status.get("messages")))
    ending = next((name for name in reversed(messages) if name in _ENDINGS), None)
    if ending is not None:
        outcome = _ENDINGS[ending]
    else:
        outcome = "success" if status.get("status_str") == "success" else "error"
    told = messages.get(ending or "", {})
    return HistoryEntry(
        outcome=outcome,
        outputs=outputs,
        error=_error(told) if outcome == "error" else None,
        started_at=instant(messages.get("execution_start", {}).get("timestamp")),
        ended_at=instant(told.get("timestamp")),
    )


def instant(timestamp_ms: object) -> datetime | None:
    """Turn milliseconds since 1970 into an aware time; None for what is none."""
    if not isinstance(timestamp_ms, int | float) or isinstance(timestamp_ms, bool):
        return None
    try:
        return datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _messages(listed: object) -> list[tuple[str, dict[str, Any]]]:
    return [
        (item[0], item[1])
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, list)
        and len(item) == 2
        and isinstance(item[0], str)
        and isinstance(item[1], dict)
    ]


def _error(told: dict[str, Any]) -> ExecutionError:
    return ExecutionError(
        node_id=clean(told.get("node_id"), 80),
        node_type=clean(told.get("node_type"), 80),
        exception_type=clean(told.get("exception_type"), 120),
        message=clean(told.get("exception_message"), 500) or "ComfyUI gave no reason",
    )
