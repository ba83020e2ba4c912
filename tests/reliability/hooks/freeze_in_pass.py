"""A worker that is stopped while it reconciles, once a file ``freeze`` is beside its log."""

import os
import signal
from pathlib import Path
from typing import Any

from genonaut.worker.repair import Repairs

_reap = Repairs.reap


def _freeze(self: Repairs, **options: Any) -> Any:
    switch = Path("freeze")
    if switch.exists():
        switch.unlink()
        os.killpg(os.getpgrp(), signal.SIGSTOP)
    return _reap(self, **options)


Repairs.reap = _freeze  # type: ignore[method-assign]
