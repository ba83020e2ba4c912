"""Repair what was lost, every few seconds, from the main process of every worker.

It needs neither beat nor a free slot, so it works whatever else is stuck. One pass runs at a time
across all workers (an advisory lock); what must be told to ComfyUI is told after the commits.
"""

import time
from concurrent.futures import Future, ThreadPoolExecutor

import structlog
from sqlalchemy.exc import SQLAlchemyError

from genonaut.api.config import Settings
from genonaut.clients.comfyui import CancelOutcome
from genonaut.core.errors import GenonautError
from genonaut.db.session import Database
from genonaut.domain import abandoned, reaping
from genonaut.domain.abandoned import Abandoned
from genonaut.worker.backends import PROBE_TIMEOUT_S, client_for
from genonaut.worker.contact import Memory
from genonaut.worker.dispatch import Broker
from genonaut.worker.forks import gate
from genonaut.worker.repair import Lock, Repairs, contact_of, try_lock

log = structlog.get_logger(__name__)

REMOVED_AT_ONCE = 10


class Reconciler:
    """Make passes of :class:`genonaut.worker.repair.Repairs`, and tell ComfyUI what to drop.

    In ``memory`` it notes its contact with PostgreSQL for other processes to read.
    """

    def __init__(
        self, database: Database, settings: Settings, *, memory: Memory | None = None
    ) -> None:
        self._database = database
        self._settings = settings
        self._contact = contact_of(settings, memory)
        self._contact.asks(time.monotonic())
        self._broker = Broker(settings, timeout_s=2.0, waited=self._contact.elsewhere)
        self._repairs = Repairs(database.transaction, settings, self._broker, self._contact)
        self._remover = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prompt-remover")
        self._removing: list[Future[None]] = []

    def close(self) -> None:
        """Close the connections."""
        self._broker.close()
        self._remover.shutdown(wait=False, cancel_futures=True)

    def missed(self) -> None:
        """Know that PostgreSQL does not answer, also when no pass has come so far as to ask it."""
        self._contact.missed()

    def run_once(self) -> None:
        """Make one pass, unless another worker is making one.

        Raises: SQLAlchemyError: PostgreSQL is away; the next pass tries again.
        """
        with self._database.engine.begin() as lock:
            is_ours = try_lock(lock)
            self._note_contact(lock)
            if not is_ours:
                return
            done = self._repairs.make(lock, show_life=self._note_contact)
            if done.prompts:
                self._remove_prompts()
            self._note_contact(lock)

    def _note_contact(self, lock: Lock) -> None:
        clock = reaping.clock(lock)
        self._contact.note(time.monotonic(), clock)

    def _remove_prompts(self) -> None:
        if not all(removal.done() for removal in self._removing):
            return  # a server hangs; what is due then is still due later
        with self._database.transaction() as session:
            due = abandoned.take_due(session, limit=REMOVED_AT_ONCE)
        self._removing = [self._remover.submit(self._remove, prompt) for prompt in due]

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
