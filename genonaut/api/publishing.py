"""Publish events from a thread of its own: a request waits for PostgreSQL, never for Redis."""

import queue
import threading
from contextlib import suppress

import structlog

from genonaut.clients.bus import EventPublisher
from genonaut.core.events import Event

log = structlog.get_logger(__name__)

_BATCH = 200


class BackgroundPublisher:
    """Queue what was committed and publish it in batches, in order.

    When the queue is full, which takes a Redis that hangs, events are dropped: whoever watches a
    row reads it again within seconds.
    """

    def __init__(self, publisher: EventPublisher, *, size: int = 10_000) -> None:
        self._publisher = publisher
        self._waiting: queue.Queue[list[Event] | None] = queue.Queue(size)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name="publish", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Publish what is waiting, for a few seconds at most, and end."""
        if self._thread is not None:
            with suppress(queue.Full):
                self._waiting.put_nowait(None)
            self._thread.join(timeout=3)
            self._thread = None
        self._publisher.close()

    def on_events(self, events: list[Event]) -> None:
        """Take what was committed; never blocks."""
        try:
            self._waiting.put_nowait(events)
        except queue.Full:
            log.warning("events_dropped", count=len(events))

    def _run(self) -> None:
        ended = False
        while not ended:
            taken = self._waiting.get()
            batch: list[Event] = []
            while True:
                if taken is None:
                    ended = True
                    break
                batch += taken
                if len(batch) >= _BATCH or self._waiting.empty():
                    break
                taken = self._waiting.get()
            self._publisher.publish(batch)
