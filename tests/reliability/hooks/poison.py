"""A job that kills its process as soon as it is claimed."""

import os
import signal
from typing import Any

from genonaut.worker.generation import _Attempt

_run = _Attempt.run


def _die(self: Any) -> list[int]:
    if "poison" in self._job.prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    return _run(self)


_Attempt.run = _die  # type: ignore[method-assign]
