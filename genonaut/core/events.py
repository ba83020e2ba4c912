"""Describe what changed, for whoever watches."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """A committed change: the whole public row, so that a lost event costs nothing.

    ``topics`` are channel suffixes (``job:17``, ``user:…``); ``version`` grows with every change
    of the same row, so a receiver drops what is older than what it has.
    """

    kind: str
    id: int
    version: int
    topics: tuple[str, ...]
    row: dict[str, Any]
    final: bool = False

    def payload(self) -> dict[str, Any]:
        """Give the JSON object a socket receives."""
        return {
            "type": self.kind,
            "id": self.id,
            "version": self.version,
            "final": self.final,
            "data": self.row,
        }
