"""Make one pass over everything that may be stuck: move rows on, publish what is due, clean up.

The reconciler of every worker makes one every few seconds, and ``jobs.reap_stale`` on demand: the
same pass under the same lock, so that one is made at a time.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import structlog
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from genonaut.api.config import Settings
from genonaut.domain import abandoned, heartbeats, reaping, repairs
from genonaut.domain.delivery import Message, missing
from genonaut.domain.repairs import Limits, Stale
from genonaut.worker import discovery, hygiene
from genonaut.worker.dispatch import OUTBOXES, Begin, Broker, publish

log = structlog.get_logger(__name__)

LOCK_ID = 0x67656E6F72  # any number that nobody else locks
SETTLE_S = 1.0
BATCH = 500
PASS_S = 10.0
LOOKED_AT = 20_000
UNKNOWN_AFTER_S = 60.0
UNPUBLISHED_AFTER_S = 15.0
"""Whoever made a row due publishes it at once, and the reconciler soon after."""
HYGIENE_EVERY_S = 600.0
FORGET_EVERY_S = 60.0

_NOT_SENT = "it is due, and the broker has no message for it"
_NOT_HELD = "the broker held no message for it any more"

_TRY_LOCK = select(func.pg_try_advisory_xact_lock(LOCK_ID))
_GIVE_UP_WHEN_IDLE = text("SET LOCAL idle_in_transaction_session_timeout = '15s'")


def try_lock(connection: Any) -> bool:
    """Take the lock that one pass holds, for a transaction; whether it was free.

    A worker that freezes in a pass loses it soon, or nobody would reconcile.
    """
    connection.execute(_GIVE_UP_WHEN_IDLE)
    return bool(connection.execute(_TRY_LOCK).scalar_one())


def limits_of(settings: Settings) -> Limits:
    """Say when a row counts as stuck."""
    return Limits(
        lease_grace_s=settings.lease_grace_s,
        stuck_grace_s=settings.stuck_grace_s,
        job_limit_s=settings.task_time_limit_s,
        run_limits_s={
            name: float(definition.hard_limit_s)
            for definition in discovery.catalogue().values()
            for name in (definition.name, *definition.aliases)
        },
        unknown_after_s=UNKNOWN_AFTER_S,
        retry_backoff_s=settings.job_retry_backoff_s,
    )


@dataclass(frozen=True, slots=True)
class Sent:
    """How many messages were sent, and how many of them for rows that had one before."""

    count: int = 0
    again: int = 0


@dataclass(frozen=True, slots=True)
class Found:
    """What is stale: the first of each rule, and how many there are by ``kind.rule``."""

    items: list[Stale]
    counts: dict[str, int]


class Repairs:
    """What a pass works with. The caller holds the lock, and keeps its transaction from idling."""

    def __init__(self, begin: Begin, settings: Settings, broker: Broker) -> None:
        self._begin = begin
        self._settings = settings
        self._broker = broker
        self._looked_at = self._cleaned_at = self._forgot_at = float("-inf")

    @cached_property
    def _limits(self) -> Limits:
        return limits_of(self._settings)

    # --- rows ------------------------------------------------------------------------------

    def reap(self, *, outage: bool = False) -> list[Stale]:
        """Go by every rule until nothing is left to do, for some seconds at most.

        Nothing is taken from holders that had no chance to renew their leases: after a restart of
        PostgreSQL, or after an ``outage`` of which the caller knows.
        """
        limits = self._limits
        done: list[Stale] = []
        ends_at = time.monotonic() + PASS_S
        with self._begin() as session:
            rules = repairs.with_work(session, reaping.RULES, limits)
        for rule in rules:
            after: int | None = 0
            while after is not None and time.monotonic() < ends_at:
                with self._begin() as session:
                    if rule.takes_from_holders and (outage or self._is_settling(session)):
                        break
                    swept = repairs.sweep(session, rule, limits, after=after)
                done += swept.done
                after = swept.last_id
        return done

    def forget(self) -> None:
        """Drop what is too old to matter, now and then."""
        if time.monotonic() - self._forgot_at < FORGET_EVERY_S:
            return
        self._forgot_at = time.monotonic()
        with self._begin() as session:
            heartbeats.forget_old(session)
            abandoned.forget_old(session)
            repairs.forget_old(session)

    def _is_settling(self, session: Session) -> bool:
        return reaping.postgres_is_settling(session, grace_s=self._settings.postgres_grace_s)

    # --- messages --------------------------------------------------------------------------

    def publish(self, keep_lock: Callable[[], object]) -> Sent:
        """Publish what is due; the rest of a long backlog is left to the next pass.

        A pass must not take so long that the worker, whose heartbeat waits for it, looks dead.

        Raises: BrokerUnavailableError: Redis is away.
        """
        count = again = 0
        ends_at = time.monotonic() + PASS_S
        while time.monotonic() < ends_at:
            epoch = self._broker.epoch()  # read anew: a flush meanwhile makes another one
            due = self._unpublished(epoch)
            if not due:
                break
            count += publish(self._begin, self._broker, due)
            again += self._note_lost(due, "Redis lost its memory, the message with it")
            log.info("published", count=len(due))
            keep_lock()
        lost = self._lost()
        if lost:
            count += publish(self._begin, self._broker, lost)
            again += self._note_lost(lost, _NOT_HELD)
            log.warning("published_again", count=len(lost))
        return Sent(count, again)

    def _unpublished(self, epoch: str) -> list[Message]:
        with self._begin() as session:
            return [
                message
                for outbox in OUTBOXES.values()
                for message in outbox.unpublished(session, epoch, settle_s=SETTLE_S, limit=BATCH)
            ]

    def _lost(self) -> list[Message]:
        """Find rows published a while ago whose message the broker does not hold.

        The broker is read at most once per ``republish_after_s``: a backlog, in which rows wait
        for long, is looked at rarely and never sent twice.
        """
        after_s = self._settings.republish_after_s
        if time.monotonic() - self._looked_at < after_s:
            return []
        with self._begin() as session:
            overdue = [
                message
                for outbox in OUTBOXES.values()
                for message in outbox.overdue(session, after_s=after_s, limit=LOOKED_AT)
            ]
        if not overdue:
            return []
        self._looked_at = time.monotonic()
        held: set[str] = set()
        for queue in {message.queue for message in overdue}:
            held |= self._broker.held_task_ids(queue, delivered_within_s=after_s)
        return missing(overdue, held)[:BATCH]

    def _note_lost(self, messages: Iterable[Message], why: str) -> int:
        lost = [message for message in messages if message.was_sent]
        if lost:
            with self._begin() as session:
                for kind in OUTBOXES:
                    number = sum(message.kind == kind for message in lost)
                    repairs.record_count(
                        session, "message_lost", kind, number, became="published", why=why
                    )
        return len(lost)

    # --- Redis -----------------------------------------------------------------------------

    def clean(self) -> None:
        """Remove from Redis what nobody will read, now and then.

        Raises: BrokerUnavailableError: Redis is away.
        """
        if time.monotonic() - self._cleaned_at < HYGIENE_EVERY_S:
            return
        self._cleaned_at = time.monotonic()
        removed = hygiene.sweep(self._settings)
        with self._begin() as session:
            for litter in hygiene.LITTER:
                repairs.record_count(
                    session,
                    litter.rule,
                    "redis",
                    removed[litter.rule],
                    became="removed",
                    why=litter.why,
                )

    # --- a look ----------------------------------------------------------------------------

    def look(self, *, limit: int) -> Found:
        """Say what a pass would do now, listing at most ``limit`` rows of each rule.

        Raises: BrokerUnavailableError: Redis is away.
        """
        epoch = self._broker.epoch()
        with self._begin() as session:
            found = look(session, self._settings, epoch=epoch, limit=limit)
        stale = [message.stale(why=_NOT_HELD) for message in self._lost()]
        counts = {**found.counts, **repairs.by_name(stale)}
        for rule, number in hygiene.sweep(self._settings, dry_run=True).items():
            counts[f"redis.{rule}"] = number
        listed = [*found.items, *stale[:limit]]
        return Found(listed, {name: number for name, number in counts.items() if number})


def look(session: Session, settings: Settings, *, epoch: str | None, limit: int) -> Found:
    """Say which rows are stale now, listing at most ``limit`` of each rule; nothing is changed.

    Without an ``epoch``, what Redis lost together with its memory is not seen.
    """
    limits = limits_of(settings)
    items: list[Stale] = []
    counts: dict[str, int] = {}
    for rule in reaping.RULES:
        listed = repairs.look(session, rule, limits, limit=limit)
        items += listed
        many = len(listed) == limit
        counts[rule.full_name] = repairs.count(session, rule, limits) if many else len(listed)
    for outbox in OUTBOXES.values():
        waiting = outbox.unpublished(session, epoch, settle_s=UNPUBLISHED_AFTER_S, limit=limit)
        items += [message.stale(why=_NOT_SENT) for message in waiting]
        counts[f"{outbox.kind}.unpublished"] = outbox.count_unpublished(
            session, epoch, settle_s=UNPUBLISHED_AFTER_S
        )
    return Found(items, {name: number for name, number in counts.items() if number})
