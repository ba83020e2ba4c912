"""Keep the last lines a run logged, to be shown with it."""

from collections import deque
from collections.abc import Iterable
from typing import Any

from genonaut.core.clock import utcnow
from genonaut.core.text import storable_json

TAIL = 200


class RunLog:
    """Write each line to the worker's log and keep the last 200, those of ``earlier`` before."""

    def __init__(self, log: Any, earlier: Iterable[dict[str, Any]] = ()) -> None:
        self._log = log
        self._lines: deque[dict[str, Any]] = deque(earlier, maxlen=TAIL)
        self._has_news = False

    def debug(self, event: str, **values: Any) -> None:
        """Tell a detail."""
        self._write("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        """Tell what happened."""
        self._write("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Tell what is not as it should be."""
        self._write("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        """Tell what failed."""
        self._write("error", event, values)

    def news(self) -> list[dict[str, Any]] | None:
        """Give the kept lines, oldest first; None if none came since this was last asked."""
        if not self._has_news:
            return None
        self._has_news = False
        return list(self._lines)

    def _write(self, level: str, event: str, values: dict[str, Any]) -> None:
        getattr(self._log, level)(event, **values)
        line = {"at": utcnow().isoformat(), "level": level, "event": event}
        self._lines.append(storable_json({**values, **line}))
        self._has_news = True
