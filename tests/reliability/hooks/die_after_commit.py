"""A worker that dies between the commit of a finished job and telling anyone."""

import os
import signal

from genonaut.clients.bus import EventPublisher
from genonaut.core.events import Event

_publish = EventPublisher.publish


def _die(self: EventPublisher, events: list[Event]) -> None:
    if any(event.kind == "job" and event.final for event in events):
        os.kill(os.getpid(), signal.SIGKILL)
    _publish(self, events)


EventPublisher.publish = _die  # type: ignore[method-assign]
