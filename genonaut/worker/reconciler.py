"""Repair what was lost, every few seconds, from the main process of every worker.

It needs neither beat nor a free slot, so it works whatever else is stuck. One pass runs at a time
across all workers (an advisory lock); what must be told to ComfyUI is told after the commits.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy.exc import SQLAlchemyError

from genonaut.api.config import Settings
from genonaut.clients.comfyui import CancelOutcome
from genonaut.core.errors import GenonautError
from genonaut.db.session import Database
from genonaut.domain import abandoned
from genonaut.domain.abandoned import Abandoned
from genonaut.worker.backends import PROBE_TIMEOUT_S, client_for
from genonaut.worker.dispatch import Broker
from genonaut.worker.forks import gate
from genonaut.worker.repair import Repairs, try_lock

log = structlog.get_logger(__name__)

REMOVED_AT_ONCE = 10


class Reconciler:
    """Make passes of :class:`genonaut.worker.repair.Repairs`, and tell ComfyUI what to drop."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._broker = Broker(settings, timeout_s=2.0)
        self._repairs = Repairs(database.transaction, settings, self._broker)
        self._remover = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prompt-remover")
        self._contact = Contact(
            lost_after_s=settings.lease_s / 2, grace_s=settings.postgres_grace_s
        )

    def close(self) -> None:
        """Close the connections."""
        self._broker.close()
        self._remover.shutdown(wait=False, cancel_futures=True)

    def run_once(self) -> None:
        """Make one pass, unless another worker is making one.

        Raises: SQLAlchemyError: PostgreSQL is away; the next pass tries again.
        """
        with self._database.engine.begin() as lock:
            is_ours = try_lock(lock)
            outage = self._contact.is_settling(time.monotonic())
            if not is_ours:
                return
            done = self._repairs.make(lock, outage=outage)
            if done.prompts:
                self._remove_prompts()
        self._contact.had(time.monotonic())

    def _remove_prompts(self) -> None:
        with self._database.transaction() as session:
            due = abandoned.take_due(session, limit=REMOVED_AT_ONCE)
        for prompt in due:
            self._remover.submit(self._remove, prompt)

    def _remove(self, prompt: Abandoned) -> None:
        """Tell ComfyUI; what cannot be told now comes due again."""
        try:
            with gate.closed():
                outcome = self._cancel(prompt)
                log.info("prompt_removed", prompt_id=prompt.prompt_id, outcome=outcome)
                if outcome is not CancelOutcome.STILL_RUNNING:
                    with self._database.transaction() as session:
                        abandoned.forget(session, prompt.id)
        except (GenonautError, SQLAlchemyError) as error:
            log.warning("prompt_not_removed", prompt_id=prompt.prompt_id, reason=str(error)[:200])

    def _cancel(self, prompt: Abandoned) -> CancelOutcome:
        settings = self._settings
        with client_for(settings, prompt.backend, read_timeout_s=PROBE_TIMEOUT_S) as client:
            return client.cancel(prompt.prompt_id)


class Contact:
    """Notice that PostgreSQL could not be reached for a while: other holders could not either.

    A server that was frozen or cut off has not restarted, so it does not tell; times in seconds of
    one clock.
    """

    def __init__(self, *, lost_after_s: float, grace_s: float) -> None:
        self._lost_after_s = lost_after_s
        self._grace_s = grace_s
        self._last_at: float | None = None
        self._settled_at = float("-inf")

    def had(self, now: float) -> None:
        """Note that PostgreSQL answers."""
        self._last_at = now

    def is_settling(self, now: float) -> bool:
        """Note that it answers, and say whether holders may not have renewed their leases yet."""
        if self._last_at is not None and now - self._last_at > self._lost_after_s:
            self._settled_at = now + self._grace_s
        self._last_at = now
        return now < self._settled_at
