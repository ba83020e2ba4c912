"""Keep an eye on everything that may end the work on a job from outside."""

import time
from datetime import datetime

from celery.exceptions import SoftTimeLimitExceeded

from genonaut.worker import drain
from genonaut.worker.held import HeldJob
from genonaut.worker.lease import LeaseKeeper
from genonaut.worker.outcomes import CancelRequestedError, DrainError, TimedOutError

ROW_CHECK_S = 1.0


class Vigil:
    """Watch the lease, the row, the worker and the clock."""

    def __init__(
        self, row: HeldJob, lease: LeaseKeeper, *, soft_limit_s: float, execution_limit_s: float
    ) -> None:
        self._row = row
        self._lease = lease
        self._soft_limit_s = soft_limit_s
        self._execution_limit_s = execution_limit_s
        self._began = time.monotonic()
        self._looked_at = 0.0
        self._executing_s: float | None = None
        self._webhook_at: datetime | None = None
        self._webhook_is_news = False

    def check(self, *, now: bool = False) -> None:
        """Stop where the row, the worker or the clock says so.

        Raises:
            LeaseLostError: another worker may hold the job already.
            CancelRequestedError: its owner wants it ended.
            DrainError: this worker is stopping.
            SoftTimeLimitExceeded: the task has had its time; Celery's own signal may have come
                at a moment when it could only be logged.
        """
        self._lease.check()
        if drain.is_over():
            raise DrainError
        if time.monotonic() - self._began > self._soft_limit_s:
            raise SoftTimeLimitExceeded
        if not now and time.monotonic() - self._looked_at < ROW_CHECK_S:
            return
        self._looked_at = time.monotonic()
        seen = self._row.glance()
        if seen is None:
            return
        self._executing_s = seen.executing_s
        if seen.cancel_requested:
            raise CancelRequestedError
        if seen.webhook_received_at != self._webhook_at:
            self._webhook_at = seen.webhook_received_at
            self._webhook_is_news = True

    def check_execution_time(self) -> None:
        """Stop a prompt that still executes; what has ended is collected however long it took.

        Raises: TimedOutError: it executes for longer than it may.
        """
        if self._executing_s is not None and self._executing_s > self._execution_limit_s:
            raise TimedOutError(f"ComfyUI took longer than {self._execution_limit_s:.0f} seconds")

    def take_webhook(self) -> bool:
        """Whether a webhook has come since this was last asked."""
        news, self._webhook_is_news = self._webhook_is_news, False
        return news
