"""Send rows to Celery, and see what the broker still holds.

A row is published after its commit, by the process that made it due if it can, else by the
reconciler. ``<ns>:epoch`` is made anew when it is missing: a row published under another epoch
was lost together with it. The epoch is read before a message is sent, so a flush in between is
noticed too.
"""

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any, Self, TypeAlias
from uuid import uuid4

import redis
import structlog
from kombu.exceptions import BatchPublishError, OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from genonaut.api.config import Settings
from genonaut.core.clock import utcnow
from genonaut.core.errors import RetryableError
from genonaut.core.events import Event
from genonaut.db.models import GenerationJob, NotificationDelivery, TaskRun
from genonaut.db.session import Database
from genonaut.domain import deliveries
from genonaut.domain.delivery import Message, Outbox, fixed
from genonaut.domain.lifecycle import Status
from genonaut.worker.queue_app import celery
from genonaut.worker.queues import (
    DEFAULT,
    DELIVER,
    GENERATION,
    NOTIFICATIONS,
    QUEUES,
    RUN_COMFY_JOB,
)

log = structlog.get_logger(__name__)

Begin: TypeAlias = Callable[[], AbstractContextManager[Session]]

_PAGE = 500
_BATCH = 200

OUTBOXES = {
    "job": Outbox("job", GenerationJob, fixed(RUN_COMFY_JOB), fixed(GENERATION)),
    "run": Outbox(
        "run", TaskRun, TaskRun.task.expression, TaskRun.queue.expression, (~TaskRun.held_back,)
    ),
    "delivery": Outbox(
        "delivery",
        NotificationDelivery,
        fixed(DELIVER),
        fixed(NOTIFICATIONS),
        (deliveries.heads(),),
    ),
}
"""What is sent to workers, by the kind of its events."""

_FIXED = {"job": (RUN_COMFY_JOB, GENERATION), "delivery": (DELIVER, NOTIFICATIONS)}


class BrokerUnavailableError(RetryableError):
    """Redis does not take messages now."""

    code = "broker_unavailable"


class Broker:
    """Speak with the broker from one thread, with short time limits.

    Every method raises BrokerUnavailableError when Redis does not answer within a second or two.
    After each call ``waited`` is told how many seconds it took, twice ``timeout_s`` at most.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        timeout_s: float = 1.0,
        waited: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._ns = settings.redis_ns
        self._timeout_s = timeout_s
        self._waited = waited
        self._redis = redis.Redis.from_url(
            settings.celery_broker_url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            health_check_interval=5,
            retry=Retry(NoBackoff(), 0),
            max_connections=2,
        )
        self._connection: Any = None
        self._sender: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._drop()
        self._redis.close()

    def epoch(self) -> str:
        """Give the broker's epoch, making one if Redis has lost it."""
        key = f"{self._ns}:epoch"
        with self.call():
            value = self._redis.get(key)
            if value is None:
                self._redis.set(key, str(uuid4()), nx=True)
                value = self._redis.get(key)
        if not isinstance(value, bytes):
            raise BrokerUnavailableError("Redis lost the epoch while it was being read")
        return value.decode()

    def send(self, messages: Sequence[Message]) -> None:
        """Publish the messages of some rows, in one go; when it raises, some may have gone out."""
        with self.call():
            try:
                with self._producer().batch(max_size=_BATCH):
                    for message in messages:
                        celery.send_task(
                            message.task,
                            args=[message.row_id],
                            task_id=message.task_id,
                            queue=queue_of(message),
                            producer=self._sender,
                            declare=(),  # the queue is a list that Redis makes by itself
                            retry=False,
                            ignore_result=True,
                            argsrepr=f"({message.row_id},)",
                            kwargsrepr="{}",
                        )
            except Exception:
                self._drop()
                raise

    def _producer(self) -> Any:
        if self._sender is None:
            self._connection = celery.connection_for_write(
                transport_options={
                    "socket_timeout": self._timeout_s,
                    "socket_connect_timeout": self._timeout_s,
                    "retry_on_timeout": False,
                }
            )
            self._sender = celery.amqp.Producer(self._connection, auto_declare=False)
        return self._sender

    def held_task_ids(self, queue_name: str, *, delivered_within_s: float) -> set[str]:
        """Collect the ids of the tasks that wait in a queue or were just given to a worker.

        A message that a worker received longer ago, and whose row is still pending, died with
        that worker: it does not count. The queue is read from the end that grows, then the
        messages in delivery, so that one that moves meanwhile is seen.
        """
        with self.call():
            return set(self._waiting(queue_name)) | set(self._delivered(delivered_within_s))

    def _waiting(self, queue_name: str) -> Iterator[str]:
        start = 0
        while page := self._lrange(f"{self._ns}:{queue_name}", start, start + _PAGE - 1):
            yield from filter(None, (_task_id(raw) for raw in page))
            start += _PAGE

    def _lrange(self, key: str, start: int, end: int) -> list[bytes]:
        page: Any = self._redis.lrange(key, start, end)
        return list(page)

    def _delivered(self, within_s: float) -> Iterator[str]:
        index: Any = self._redis.zrangebyscore(
            f"{self._ns}:unacked_index", time.time() - within_s, "+inf"
        )
        tags: list[bytes] = list(index)
        for start in range(0, len(tags), _PAGE):
            found: Any = self._redis.hmget(f"{self._ns}:unacked", tags[start : start + _PAGE])
            for raw in found:
                if raw is not None and (task_id := _task_id(raw)):
                    yield task_id

    @contextmanager
    def call(self) -> Iterator[None]:
        """Let the block ask Redis: have its errors in our words, and its time told of."""
        began = time.monotonic()
        try:
            yield
        except (OperationalError, BatchPublishError, redis.RedisError, OSError) as error:
            raise BrokerUnavailableError(str(error.__cause__ or error)) from error
        finally:
            # What took longer was no wait for Redis: this process itself was held up.
            self._waited(min(time.monotonic() - began, 2 * self._timeout_s))

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.collect(socket_timeout=0.1)
            self._connection = self._sender = None


def queue_of(message: Message) -> str:
    """Give the queue a message goes to: one that was renamed since has no worker any more."""
    return message.queue if message.queue in QUEUES else DEFAULT


def current_epoch(settings: Settings) -> str | None:
    """Give the broker's epoch for one look; None when Redis is away."""
    with Broker(settings) as broker:
        try:
            return broker.epoch()
        except BrokerUnavailableError:
            return None


def _task_id(raw: bytes) -> str | None:
    """Read the task id of a message as kombu stores it (in ``unacked``: first of a list)."""
    try:
        message = json.loads(raw)
        if isinstance(message, list):
            message = message[0]
        return str(message["headers"]["id"])
    except (ValueError, LookupError, TypeError):
        return None


def publish(begin: Begin, broker: Broker, messages: Sequence[Message]) -> int:
    """Send messages and record those the broker took; give their number.

    ``begin`` begins a transaction.

    Sent twice does no harm: a row is claimed once.

    Raises: BrokerUnavailableError: Redis went away; the batches it took before are recorded.
    """
    count = 0
    for start in range(0, len(messages), _BATCH):
        batch = messages[start : start + _BATCH]
        epoch = broker.epoch()
        broker.send(batch)
        with begin() as session:
            for kind, outbox in OUTBOXES.items():
                ours = [message for message in batch if message.kind == kind]
                if ours:
                    outbox.mark_published(session, ours, epoch)
        count += len(batch)
    return count


class Dispatcher:
    """Publish what this process has just made due, from a thread of its own.

    A request never waits for Redis. What cannot be published now (Redis is away, the queue of
    this thread is full, the process dies) the reconciler publishes later.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._waiting: queue.Queue[Message | None] = queue.Queue(maxsize=10_000)
        self._thread: threading.Thread | None = None
        self._ended = False

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="dispatch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Publish what is waiting, for at most a few seconds, and end the thread."""
        if self._thread is not None:
            with suppress(queue.Full):
                self._waiting.put_nowait(None)
            self._thread.join(timeout=5)

    def on_events(self, events: list[Event]) -> None:
        """Take the committed rows among ``events`` that are due now; never blocks."""
        for message in _due(events):
            try:
                self._waiting.put_nowait(message)
            except queue.Full:
                log.warning("dispatch_full", kind=message.kind, id=message.row_id)
                return

    def _run(self) -> None:
        with Broker(self._settings) as broker:
            while (batch := self._batch()) is not None:
                try:
                    publish(self._database.transaction, broker, batch)
                except (BrokerUnavailableError, SQLAlchemyError) as error:
                    log.warning("dispatch_failed", count=len(batch), reason=str(error)[:200])
                except Exception:
                    # The thread must outlive any bug: without it every job waits for a reconciler.
                    log.exception("dispatch_failed", count=len(batch))

    def _batch(self) -> list[Message] | None:
        """Wait for messages; None once the end was asked for and nothing waits before it."""
        batch: list[Message] = []
        while len(batch) < _BATCH and not self._ended:
            try:
                message = self._waiting.get(block=not batch)
            except queue.Empty:
                break
            if message is None:
                self._ended = True
            else:
                batch.append(message)
        return batch or None


def _due(events: Iterable[Event]) -> Iterator[Message]:
    now = utcnow()
    for event in events:
        row = event.row
        if event.kind not in OUTBOXES or row["status"] != Status.PENDING:
            continue
        if not row["celery_task_id"] or row["cancel_requested"] or row.get("held_back"):
            continue
        # A row due as it was written is due, whatever this machine's clock says.
        moment = max(now, datetime.fromisoformat(row["updated_at"]))
        if datetime.fromisoformat(row["available_at"]) <= moment:
            task, queue_name = _FIXED.get(event.kind) or (row["task"], row["queue"])
            yield Message(
                event.kind, event.id, task, queue_name, row["celery_task_id"], event.version
            )
