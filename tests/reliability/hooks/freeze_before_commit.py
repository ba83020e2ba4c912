"""A worker that is stopped with its pictures stored, just before it commits them."""

import os
import signal
from typing import Any

from genonaut.domain import attempts

_complete = attempts.complete


def _freeze(*args: Any, **values: Any) -> list[int]:
    os.killpg(os.getpgrp(), signal.SIGSTOP)
    return _complete(*args, **values)


attempts.complete = _freeze
