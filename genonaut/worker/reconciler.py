"""Repair what was lost, every few seconds, from the main process of every worker.

It needs neither beat nor a free slot, so it works whatever else is stuck. One pass runs at a time
across all workers (an advisory lock); what must be told to ComfyUI is told after the commits.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import structlog
from sqlalchemy import Connection, func, select, text
from sqlalchemy.exc import SQLAlchemyError

from genonaut.api.config import Settings
from genonaut.clients.comfyui import CancelOutcome
from genonaut.core.errors import GenonautError
from genonaut.db.session import Database
from genonaut.domain import abandoned, heartbeats, reaping, run_reaping
from genonaut.domain.abandoned import Abandoned
from genonaut.domain.delivery import Message, Outbox, missing
from genonaut.worker import discovery
from genonaut.worker.backends import PROBE_TIMEOUT_S, client_for
from genonaut.worker.dispatch import OUTBOXES, Broker, BrokerUnavailableError, publish
from genonaut.worker.forks import gate

log = structlog.get_logger(__name__)

LOCK_ID = 0x67656E6F72  # any number that nobody else locks
LOCK_IDLE_S = 15
SETTLE_S = 1.0
BATCH = 500
PASS_S = 10.0
LOOKED_AT = 20_000
REMOVED_AT_ONCE = 10
UNKNOWN_AFTER_S = 60.0

_GIVE_UP_WHEN_IDLE = text(f"SET LOCAL idle_in_transaction_session_timeout = '{LOCK_IDLE_S}s'")


class Reconciler:
    """Run the rules of ``domain/reaping.py`` and publish what is due."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._broker = Broker(settings, timeout_s=2.0)
        self._remover = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prompt-remover")
        self._looked_at = dict.fromkeys(OUTBOXES, float("-inf"))

    def close(self) -> None:
        """Close the connections."""
        self._broker.close()
        self._remover.shutdown(wait=False, cancel_futures=True)

    def run_once(self) -> None:
        """Make one pass, unless another worker is making one.

        The lock is a transaction of its own that touches no row, so it blocks no vacuum while
        messages are sent. A worker that freezes in a pass loses it soon, or nobody would reconcile.

        Raises: SQLAlchemyError: PostgreSQL is away; the next pass tries again.
        """
        with self._database.engine.begin() as lock:
            lock.execute(_GIVE_UP_WHEN_IDLE)
            if not lock.scalar(select(func.pg_try_advisory_xact_lock(LOCK_ID))):
                return
            self._reap()
            self._remove_prompts()
            try:
                self._publish(lock)
            except BrokerUnavailableError as error:
                log.warning("broker_away", reason=str(error)[:200])

    def _reap(self) -> None:
        settings = self._settings
        with self._database.transaction() as session:
            reaping.close_cancels(session)
            run_reaping.close_cancels(session)
            if not reaping.postgres_is_settling(session, grace_s=settings.postgres_grace_s):
                reaping.reap_expired(session, grace_s=settings.lease_grace_s)
                run_reaping.reap_expired(session, grace_s=settings.lease_grace_s)
        with self._database.transaction() as session:
            run_reaping.begin_what_waits(session)
            run_reaping.fail_unknown(session, discovery.known_names(), after_s=UNKNOWN_AFTER_S)
        with self._database.transaction() as session:
            heartbeats.forget_old(session)
            abandoned.forget_old(session)

    def _publish(self, lock: Connection) -> None:
        """Publish what is due; the rest of a long backlog is left to the next pass.

        A pass must not take so long that the worker, whose heartbeat waits for it, looks dead.
        """
        ends_at = time.monotonic() + PASS_S
        while time.monotonic() < ends_at:
            epoch = self._broker.epoch()  # read anew: a flush meanwhile makes another one
            with self._database.transaction() as session:
                due = [
                    message
                    for outbox in OUTBOXES.values()
                    for message in outbox.unpublished(
                        session, epoch, settle_s=SETTLE_S, limit=BATCH
                    )
                ]
            if not due:
                break
            log.info("published", count=publish(self._database, self._broker, due))
            lock.execute(select(1))  # not idle
        for outbox in OUTBOXES.values():
            lost = self._lost(outbox)
            if lost:
                count = publish(self._database, self._broker, lost)
                log.warning("published_again", kind=outbox.kind, count=count)

    def _lost(self, outbox: Outbox) -> list[Message]:
        """Find rows published a while ago whose message the broker does not hold.

        The broker is read at most once per ``republish_after_s``: a backlog, in which rows wait
        for long, is looked at rarely and never sent twice.
        """
        after_s = self._settings.republish_after_s
        if time.monotonic() - self._looked_at[outbox.kind] < after_s:
            return []
        with self._database.transaction() as session:
            overdue = outbox.overdue(session, after_s=after_s, limit=LOOKED_AT)
        if not overdue:
            return []
        self._looked_at[outbox.kind] = time.monotonic()
        held: set[str] = set()
        for queue in {message.queue for message in overdue}:
            held |= self._broker.held_task_ids(queue, delivered_within_s=after_s)
        return missing(overdue, held)[:BATCH]

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
