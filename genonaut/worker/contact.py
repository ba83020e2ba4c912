"""Notice that holders of leases had no chance to renew them, though PostgreSQL did not restart.

It was frozen or cut off, or failed over; or this machine slept, or the database's clock was set:
then every lease looks lost at once. The main process of a worker notes when it had contact; its
pool processes, forked before or after, read that from shared memory.
"""

from ctypes import Array, c_double
from math import inf, isnan, nan
from multiprocessing.sharedctypes import RawArray

Memory = Array[c_double]


def fresh() -> Memory:
    """Give memory for a contact that has not been had yet."""
    made: Memory = RawArray("d", (nan, nan, -inf))
    return made


SHARED = fresh()
"""What the processes of one worker share."""


class Contact:
    """Compare two clocks with those of the last contact, all in seconds.

    ``now`` is this machine's CLOCK_MONOTONIC, one clock for all its processes, which stands still
    while it sleeps; ``clock`` is the database's, by which leases are judged.
    """

    def __init__(
        self, *, lost_after_s: float, grace_s: float, memory: Memory | None = None
    ) -> None:
        self._lost_after_s = lost_after_s
        self._grace_s = grace_s
        self._memory = fresh() if memory is None else memory

    def asks(self, now: float) -> None:
        """Note that it is asked from now on: a silence before its first answer counts, too."""
        if isnan(self._memory[0]):
            self._memory[0] = now

    def had(self, now: float) -> None:
        """Note that PostgreSQL answers."""
        self._memory[0] = now

    def missed(self) -> None:
        """Note that PostgreSQL does not answer; an outage may be older than this process."""
        if isnan(self._memory[1]):
            self._memory[0] = -inf

    def elsewhere(self, seconds: float) -> None:
        """Note that others were waited for meanwhile: that is no silence of PostgreSQL."""
        self._memory[0] += seconds

    def note(self, now: float, clock: float) -> bool:
        """Note that it answers, and say whether holders may not have renewed their leases yet."""
        if self._was_lost(now, clock):
            self._memory[2] = now + self._grace_s
        self._memory[1] = clock - now
        self.had(now)
        return self.is_settling(now, clock)

    def is_settling(self, now: float, clock: float) -> bool:
        """Say whether holders may not have renewed their leases yet, and note nothing."""
        return self._was_lost(now, clock) or now < self._memory[2]

    def _was_lost(self, now: float, clock: float) -> bool:
        """Compare; what was never noted compares as no loss."""
        last_at, apart, _ = self._memory
        silent_s, jumped_s = now - last_at, clock - now - apart
        return silent_s > self._lost_after_s or jumped_s > self._lost_after_s
