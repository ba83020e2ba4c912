"""Tell running jobs that their worker is about to stop.

The worker's main process sets a moment; its pool processes, forked before or after, read it from
shared memory. A signal would interrupt them anywhere, a message might come too late.
"""

import time
from multiprocessing.sharedctypes import RawValue

_give_back_at = RawValue("d", 0.0)
"""CLOCK_MONOTONIC seconds, one clock for all processes of a machine; 0 means never."""


def begin(grace_s: float) -> None:
    """Let running jobs go on for ``grace_s`` seconds, then have them given back.

    Asking again does not extend it.
    """
    if _give_back_at.value == 0.0:
        _give_back_at.value = time.monotonic() + grace_s


def is_over() -> bool:
    """Whether running jobs must be given back now."""
    moment: float = _give_back_at.value
    return 0.0 < moment <= time.monotonic()
