"""A job that hangs while it draws, and shrugs off the soft time limit."""

import time
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from genonaut.worker.generation import _Attempt

_note_start = _Attempt._note_start


def _hang(self: Any) -> None:
    _note_start(self)
    while True:
        try:
            time.sleep(60)
        except SoftTimeLimitExceeded:
            continue


_Attempt._note_start = _hang  # type: ignore[method-assign]
