"""A worker that is stopped while it reconciles, once a file ``freeze`` is beside its log."""

import os
import signal
from pathlib import Path

from genonaut.worker.reconciler import Reconciler

_reap = Reconciler._reap


def _freeze(self: Reconciler) -> None:
    switch = Path("freeze")
    if switch.exists():
        switch.unlink()
        os.killpg(os.getpgrp(), signal.SIGSTOP)
    _reap(self)


Reconciler._reap = _freeze  # type: ignore[method-assign]
