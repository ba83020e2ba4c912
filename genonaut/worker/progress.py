"""Show how far a job is: a few rows a second, and preview frames while somebody watches."""

import time
from typing import Any

from genonaut.clients.bus import EventPublisher
from genonaut.clients.comfyui import Listener
from genonaut.domain import attempts
from genonaut.worker.held import HeldJob

ROW_EVERY_S = 0.5
FRAME_EVERY_S = 0.5
NOBODY_WATCHES_S = 2.0
MAX_FRAME_BYTES = 2**20


class Reporter:
    """Write progress at most twice a second, and only when it is news."""

    def __init__(self, row: HeldJob, events: EventPublisher, job_id: int) -> None:
        self._row = row
        self._events = events
        self._job_id = job_id
        self._written: dict[str, Any] | None = None
        self._written_at = 0.0
        self._next_frame_at = 0.0

    def phase(self, name: str, *, now: bool = False, **details: Any) -> None:
        """Show the phase; ``now`` is for one that must not be left out."""
        progress = {"phase": name, **details}
        if progress == self._written:
            return
        if not now and time.monotonic() - self._written_at < ROW_EVERY_S:
            return
        self._written_at = time.monotonic()
        if self._row.tell(lambda session, held: attempts.report(session, held, progress)):
            self._written = progress

    def steps(self, reading: tuple[int, int]) -> None:
        """Show the sampling steps done of all."""
        done, total = reading
        self.phase("drawing", step=done, steps=total, percent=round(100 * done / total))

    def frame(self, listener: Listener, prompt_id: str) -> None:
        """Pass the newest preview on; the answer to PUBLISH says whether anybody watches."""
        if time.monotonic() < self._next_frame_at:
            return
        preview = listener.take_preview()
        if preview is None or preview.format != "jpeg" or len(preview.data) > MAX_FRAME_BYTES:
            return
        if preview.prompt_id != prompt_id:
            return
        watched = self._events.publish_preview(self._job_id, preview.data)
        self._next_frame_at = time.monotonic() + (FRAME_EVERY_S if watched else NOBODY_WATCHES_S)
