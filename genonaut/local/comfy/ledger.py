"""Keep a log of what was asked and what really ran, so that tests can count GPU runs."""

import threading
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class LogEntry:
    """Tell the story of one prompt id."""

    prompt_id: str
    client_id: str | None
    number: float
    received: int = 0
    """Times it was accepted by POST /prompt."""
    runs: int = 0
    """Times the executor began it."""
    sampled: int = 0
    """Times a sampler node really ran for it: the GPU's work."""
    ended: list[str] = field(default_factory=list)
    """success, error, interrupted, deleted or forgotten; one per end."""


class Ledger:
    """Remember every prompt since the process began, whatever is forgotten elsewhere."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, LogEntry] = {}

    def received(self, prompt_id: str, extra_data: Any, number: float) -> None:
        """Note that a prompt was accepted."""
        client_id = extra_data.get("client_id") if isinstance(extra_data, dict) else None
        with self._lock:
            entry = self._entries.setdefault(prompt_id, LogEntry(prompt_id, client_id, number))
            entry.received += 1

    def started(self, prompt_id: str) -> None:
        """Note that the executor began it."""
        with self._lock:
            self._entries[prompt_id].runs += 1

    def sampled(self, prompt_id: str) -> None:
        """Note that a sampler ran for it."""
        with self._lock:
            self._entries[prompt_id].sampled += 1

    def ended(self, prompt_id: str, how: str) -> None:
        """Note how it ended."""
        with self._lock:
            self._entries[prompt_id].ended.append(how)

    def entries(self) -> list[dict[str, Any]]:
        """Give all entries, in the order of their first arrival."""
        with self._lock:
            return [asdict(entry) for entry in self._entries.values()]
