"""A worker that is stopped while it reconciles, once a file ``freeze`` is beside its log."""

import os
import signal
from pathlib import Path
from typing import Any

from genonaut.worker.repair import Repairs

_make = Repairs.make


def _freeze(self: Repairs, *arguments: Any, **options: Any) -> Any:
    switch = Path("freeze")
    if switch.exists():
        switch.unlink()
        os.killpg(os.getpgrp(), signal.SIGSTOP)
    return _make(self, *arguments, **options)


Repairs.make = _freeze  # type: ignore[method-assign]
