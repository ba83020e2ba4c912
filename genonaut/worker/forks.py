"""Keep the worker's main process from forking while one of its threads is busy.

A child has none of the parent's threads but all the locks they held at that moment, those of
half-done imports among them, and nobody left to release them.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FORK_PATIENCE_S = 5.0
"""A fork waits so long at most: a pool without processes is worse than the danger."""


class ForkGate:
    """Count who is busy; a fork waits until nobody is."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._busy = 0

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let nobody fork inside."""
        with self._free:
            self._busy += 1
        try:
            yield
        finally:
            with self._free:
                self._busy -= 1
                self._free.notify_all()

    def install(self) -> None:
        """Make every fork of this process pass the gate."""
        os.register_at_fork(
            before=self._enter,
            after_in_parent=self._leave,
            after_in_child=self._begin_anew,
        )

    def _enter(self) -> None:
        self._free.acquire()  # until the fork is over: no thread begins meanwhile
        self._free.wait_for(lambda: self._busy == 0, FORK_PATIENCE_S)

    def _leave(self) -> None:
        self._free.release()

    def _begin_anew(self) -> None:
        self._free = threading.Condition()
        self._busy = 0


gate = ForkGate()
