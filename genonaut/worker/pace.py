"""Keep long work to its rate and its turn, and say when it will be done."""

import time
from collections.abc import Callable

from genonaut.core.text import pace

_STEP_S = 0.5


class Pace:
    """Time one attempt: ``rate`` is items a second at most, ``turn_s`` how long a turn is."""

    def __init__(self, *, rate: float | None = None, turn_s: float = float("inf")) -> None:
        self._rate = rate
        self._turn_s = turn_s
        self._began = self._lapped = time.monotonic()
        self._count = 0

    @property
    def turn_is_over(self) -> bool:
        """Whether others should have the slot now."""
        return time.monotonic() - self._began >= self._turn_s

    def next(self, check: Callable[[], None]) -> None:
        """Wait until the next item may begin; ``check`` is called meanwhile, and may raise."""
        if self._rate is not None:
            due = self._began + self._count / self._rate
            while (left_s := due - time.monotonic()) > 0:
                check()
                time.sleep(min(left_s, _STEP_S))
        self._count += 1

    def lap_s(self) -> float:
        """Give the seconds since this was asked last, or since the beginning."""
        now = time.monotonic()
        lap, self._lapped = now - self._lapped, now
        return lap

    def words(self, left: int) -> str:
        """Say how fast the work goes, and when what is ``left`` will be done; empty at first."""
        elapsed = time.monotonic() - self._began
        if not self._count or elapsed <= 0:
            return ""
        return pace(self._count / elapsed, left)
