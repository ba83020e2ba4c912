"""Make one pass over everything that may be stuck: move rows on, publish what is due, clean up.

The reconciler of every worker makes one every few seconds, and ``jobs.reap_stale`` on demand: the
same pass under the same lock, so that one is made at a time.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeAlias

import structlog
from sqlalchemy import Connection, Select, func, literal, select
from sqlalchemy.orm import Session

from genonaut.api.config import Settings
from genonaut.domain import abandoned, heartbeats, reaping, repairs, schedule_alerts
from genonaut.domain.delivery import Message, missing
from genonaut.domain.repairs import Limits, Stale
from genonaut.worker import discovery, hygiene
from genonaut.worker.contact import Contact, Memory
from genonaut.worker.dispatch import (
    OUTBOXES,
    Begin,
    Broker,
    BrokerUnavailableError,
    publish,
    queue_of,
)

log = structlog.get_logger(__name__)

Lock: TypeAlias = Connection | Session
"""The transaction that holds the lock of a pass."""

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
_FORGOTTEN = "Redis lost its memory, the message with it"

_TRY_LOCK = select(
    func.pg_try_advisory_xact_lock(LOCK_ID),
    # A worker that freezes in a pass loses the lock soon, or nobody would reconcile.
    func.set_config("idle_in_transaction_session_timeout", "15s", literal(value=True)),
)
_PROMPTS = "prompts"


def try_lock(lock: Lock) -> bool:
    """Take the lock that one pass holds, for a transaction; whether it was free.

    It touches no table, so it stands in nobody's way while messages are sent.
    """
    return bool(lock.execute(_TRY_LOCK).one()[0])


def show_life(lock: Lock) -> None:
    """Ask something in the transaction of the lock, which is ended when it is idle for long."""
    lock.execute(select(1))


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


def contact_of(settings: Settings, memory: Memory | None) -> Contact:
    """Say from when on a silence of PostgreSQL, or a jump of its clock, counts."""
    return Contact(
        lost_after_s=settings.lease_s / 2, grace_s=settings.postgres_grace_s, memory=memory
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What is stale: the first of each rule, and how many there are by ``kind.rule``."""

    items: list[Stale]
    counts: dict[str, int]


@dataclass(slots=True)
class Done:
    """What a pass did: rows moved on, messages sent, and how many of them were lost before.

    ``first`` counts by kind the messages that were none's second, and ``prompts`` tells that
    ComfyUI has to be told of some, which is left to the caller.
    """

    reaped: list[Stale] = field(default_factory=list)
    sent: int = 0
    sent_again: int = 0
    first: Counter[str] = field(default_factory=Counter)
    prompts: bool = False


class Repairs:
    """Make passes; the caller holds the lock, for the length of the ``lock`` transaction."""

    def __init__(self, begin: Begin, settings: Settings, broker: Broker, contact: Contact) -> None:
        self._begin = begin
        self._settings = settings
        self._broker = broker
        self._contact = contact
        self._looked_at = self._cleaned_at = self._forgot_at = float("-inf")

    def make(self, lock: Lock, *, show_life: Callable[[Lock], None] = show_life) -> Done:
        """Make one pass. While nothing is to be done, it is one question to PostgreSQL.

        Nothing is taken from holders that had no chance to renew their leases: after a restart of
        PostgreSQL, or after an outage that the contact with it tells of, be it one within this
        pass. Without Redis, rows are moved on all the same. Now and then ``show_life`` is called.
        """
        done = Done()
        try:
            epoch: str | None = self._broker.epoch()
        except BrokerUnavailableError as error:
            log.warning("broker_away", reason=str(error)[:200])
            epoch = None
        found = self._ask(epoch)
        self._reap(found, done, partial(show_life, lock))
        self._forget()
        done.prompts = _PROMPTS in found
        if epoch is not None:
            try:
                self._publish(epoch, found, done, partial(show_life, lock))
                self._clean()
            except BrokerUnavailableError as error:
                log.warning("broker_away", reason=str(error)[:200])
        return done

    def _ask(self, epoch: str | None) -> frozenset[str]:
        # Not in the transaction of the lock, which would lock the tables it reads for as long as
        # the pass takes: who wants one for himself (a migration) would wait for the pass, and the
        # pass, in its other transactions, for him.
        with self._begin() as session:
            return repairs.answer(session, self._question, epoch=epoch)

    @cached_property
    def _limits(self) -> Limits:
        return limits_of(self._settings)

    @cached_property
    def _question(self) -> Select[Any]:
        asked = {rule.full_name: rule.finds_any(self._limits) for rule in reaping.RULES}
        after_s = self._settings.republish_after_s
        for kind, outbox in OUTBOXES.items():
            asked[f"{kind}.unpublished"] = outbox.any_unpublished(settle_s=SETTLE_S)
            asked[f"{kind}.overdue"] = outbox.any_overdue(after_s=after_s)
        return repairs.question({**asked, _PROMPTS: abandoned.any_due()})

    # --- rows ------------------------------------------------------------------------------

    def _reap(self, found: Collection[str], done: Done, show_life: Callable[[], None]) -> None:
        """Go by each rule that finds anything until it does not, for some seconds at most."""
        ends_at = time.monotonic() + PASS_S
        for rule in (rule for rule in reaping.RULES if rule.full_name in found):
            after: int | None = 0
            while after is not None and time.monotonic() < ends_at:
                with self._begin() as session:
                    if rule.takes_from_holders and self._is_settling(session):
                        break
                    swept = repairs.sweep(session, rule, self._limits, after=after)
                done.reaped += swept.done
                after = swept.last_id
                show_life()

    def _forget(self) -> None:
        """Drop what is too old to matter, and tell of schedules that are late, now and then."""
        if time.monotonic() - self._forgot_at < FORGET_EVERY_S:
            return
        self._forgot_at = time.monotonic()
        with self._begin() as session:
            heartbeats.forget_old(session)
            abandoned.forget_old(session)
            repairs.forget_old(session)
            schedule_alerts.tell_late(session)

    def _is_settling(self, session: Session) -> bool:
        """Ask in the transaction that takes rows: its clock may stand behind an outage."""
        grace_s = self._settings.postgres_grace_s
        if reaping.postgres_is_settling(session, grace_s=grace_s):
            return True
        return self._contact.is_settling(time.monotonic(), reaping.clock(session))

    # --- messages --------------------------------------------------------------------------

    def _publish(
        self, epoch: str, found: Collection[str], done: Done, show_life: Callable[[], None]
    ) -> None:
        """Publish what is due; the rest of a long backlog is left to the next pass.

        A pass must not take so long that the worker, whose heartbeat waits for it, looks dead.
        """
        ends_at = time.monotonic() + PASS_S
        if done.reaped or any(f"{kind}.unpublished" in found for kind in OUTBOXES):
            while time.monotonic() < ends_at:
                epoch = self._broker.epoch()  # read anew: a flush meanwhile makes another one
                due = self._unpublished(epoch)
                if not due:
                    break
                self._send(due, done, why=_FORGOTTEN)
                show_life()
        if any(f"{kind}.overdue" in found for kind in OUTBOXES) and time.monotonic() < ends_at:
            lost = self._lost(epoch)
            while lost and time.monotonic() < ends_at:
                self._send(lost[:BATCH], done, why=_NOT_HELD)
                del lost[:BATCH]
                show_life()

    def _send(self, messages: list[Message], done: Done, *, why: str) -> None:
        """Send, and record what was sent before: of jobs each one, for its timeline."""
        if not messages:
            return
        with self._begin() as session:
            at = session.scalars(select(func.now())).one()  # a worker may begin at once
        done.sent += publish(self._begin, self._broker, messages)
        again = [message.stale(why=why) for message in messages if message.was_sent]
        log.info("published", count=len(messages), again=len(again))
        if again:
            others = Counter(stale.kind for stale in again if stale.kind != "job")
            with self._begin() as session:
                repairs.record(session, [stale for stale in again if stale.kind == "job"], at=at)
                for kind, number in others.items():
                    repairs.record_count(
                        session, repairs.MESSAGE_LOST, kind, number, became="published", why=why
                    )
        done.sent_again += len(again)
        done.first += Counter(message.kind for message in messages if not message.was_sent)

    def _unpublished(self, epoch: str) -> list[Message]:
        with self._begin() as session:
            return [
                message
                for outbox in OUTBOXES.values()
                for message in outbox.unpublished(session, epoch, settle_s=SETTLE_S, limit=BATCH)
            ]

    def _lost(self, epoch: str) -> list[Message]:
        """Find rows published a while ago under ``epoch`` whose message the broker does not hold.

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
                for message in outbox.overdue(session, epoch, after_s=after_s, limit=LOOKED_AT)
            ]
        if not overdue:
            return []
        held: set[str] = set()
        for queue in {queue_of(message) for message in overdue}:
            held |= self._broker.held_task_ids(queue, delivered_within_s=after_s)
        self._looked_at = time.monotonic()
        return missing(overdue, held)

    # --- Redis -----------------------------------------------------------------------------

    def _clean(self) -> None:
        """Remove from Redis what nobody will read, now and then."""
        if time.monotonic() - self._cleaned_at < HYGIENE_EVERY_S:
            return
        self._cleaned_at = time.monotonic()
        with self._broker.call():
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
            outage = self._contact.is_settling(time.monotonic(), reaping.clock(session))
            found = look(
                session,
                self._settings,
                epoch=epoch,
                limit=limit,
                settle_s=SETTLE_S,
                outage=outage,
            )
        lost = [message.stale(why=_NOT_HELD) for message in self._lost(epoch)]
        counts = Counter(found.counts)
        counts.update(repairs.by_name(lost))
        for rule, number in hygiene.sweep(self._settings, dry_run=True).items():
            counts[f"redis.{rule}"] = number
        return Found([*found.items, *lost[:limit]], dict(+counts))


def look(
    session: Session,
    settings: Settings,
    *,
    epoch: str | None,
    limit: int,
    settle_s: float = UNPUBLISHED_AFTER_S,
    outage: bool = False,
) -> Found:
    """Say which rows are stale now, listing at most ``limit`` of each rule; nothing is changed.

    Rows that became due within ``settle_s`` seconds are about to be published. As in a pass,
    nothing counts as left by holders that had no chance to renew their leases. Without an
    ``epoch``, what Redis lost together with its memory is not seen.
    """
    limits = limits_of(settings)
    settling = outage or reaping.postgres_is_settling(session, grace_s=settings.postgres_grace_s)
    items: list[Stale] = []
    counts: Counter[str] = Counter()
    for rule in reaping.RULES:
        if rule.takes_from_holders and settling:
            continue
        listed = repairs.look(session, rule, limits, limit=limit)
        items += listed
        many = len(listed) == limit
        counts[rule.full_name] = repairs.count(session, rule, limits) if many else len(listed)
    for outbox in OUTBOXES.values():
        waiting = outbox.unpublished(session, epoch, settle_s=settle_s, limit=limit)
        items += [
            message.stale(why=_FORGOTTEN if message.was_sent else _NOT_SENT) for message in waiting
        ]
        counts.update(outbox.count_unpublished(session, epoch, settle_s=settle_s))
    return Found(items, dict(+counts))
