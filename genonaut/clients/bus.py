"""Tell other processes what changed, and hear it, over Redis Pub/Sub.

Messages are hints: the row in PostgreSQL is the truth, and whoever watches reads it again from
time to time. So nothing here waits long, retries, or fails its caller.
"""

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from genonaut.core.events import Event

log = structlog.get_logger(__name__)

_TIMEOUT_S = 1.0
_PAUSE_S = 1.0
_MAX_BACKOFF_S = 2.0


class EventPublisher:
    """Publish what was committed; the sink of every process that changes rows.

    After a failure nothing is sent for a second, so that a Redis that hangs delays one caller a
    second, not all of them.
    """

    def __init__(self, redis_url: str, ns: str) -> None:
        self._url = redis_url
        self._ns = ns
        self._client = self._connect()
        self._lock = threading.Lock()
        self._silent_until = 0.0
        self._failing = False

    def publish(self, events: list[Event]) -> None:
        """Send each event to every one of its topics, in one round trip; never raises."""
        messages = [
            (f"{self._ns}:events:{topic}", text)
            for event in events
            for text in (json.dumps(event.payload(), separators=(",", ":")),)
            for topic in event.topics
        ]
        self._send(messages)

    def publish_preview(self, job_id: int, frame: bytes) -> int:
        """Send a picture of a job at work; give how many connections heard it, 0 on failure."""
        return sum(self._send([(f"{self._ns}:previews:job:{job_id}", frame)]))

    def ping(self) -> bool:
        """Whether Redis answers now."""
        try:
            return bool(self._client.ping())
        except (redis.RedisError, OSError):
            return False

    def after_fork(self) -> None:
        """Forget the parent's connections and locks."""
        self._client = self._connect()
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _connect(self) -> redis.Redis:
        return redis.Redis.from_url(
            self._url,
            socket_connect_timeout=_TIMEOUT_S,
            socket_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
        )

    def _send(self, messages: Sequence[tuple[str, str | bytes]]) -> list[int]:
        if not messages or not self._may_send():
            return []
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for channel, message in messages:
                    pipe.publish(channel, message)
                receivers: list[int] = pipe.execute()
        except (redis.RedisError, OSError) as error:
            self._note_failure(error)
            return []
        if self._failing:
            self._failing = False
            log.info("event_bus_recovered")
        return receivers

    def _may_send(self) -> bool:
        """Let everyone send while all is well, and one caller a second while it is not."""
        if not self._failing:
            return True
        with self._lock:
            now = time.monotonic()
            if now < self._silent_until:
                return False
            self._silent_until = now + _TIMEOUT_S + _PAUSE_S
            return True

    def _note_failure(self, error: Exception) -> None:
        with self._lock:
            self._silent_until = time.monotonic() + _PAUSE_S
            first, self._failing = not self._failing, True
        if first:
            log.warning("event_bus_down", error=str(error) or type(error).__name__)


@dataclass(frozen=True, slots=True)
class Heard:
    """An event as it arrived: what decides whether it is news, and the text a socket is sent."""

    kind: str
    id: int
    version: int
    final: bool
    text: str


Deliver = Callable[[Heard], None]
DeliverFrame = Callable[[bytes], None]


@dataclass(slots=True)
class _Channel:
    deliver: set[Callable[[Any], None]] = field(default_factory=set)
    acknowledged: asyncio.Event = field(default_factory=asyncio.Event)


class EventSubscriber:
    """Hear every watched topic of this process over one connection.

    It reconnects by itself and then listens to the same topics again; what was published in
    between is lost, which readers heal by reading the rows. A connection on which nothing is
    heard, not even the answer to a ping, is given up after two ``health_check_s``.

    The functions given are called on the event loop and must not block.
    """

    def __init__(self, redis_url: str, ns: str, *, health_check_s: float = 15.0) -> None:
        self._ns = ns
        self._health_check_s = health_check_s
        self._pool = redis.asyncio.ConnectionPool.from_url(
            redis_url, socket_timeout=None, retry=Retry(NoBackoff(), 0), protocol=2
        )
        self._connection: Any = None
        self._channels: dict[str, _Channel] = {}
        self._asked: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen; call it on the event loop."""
        self._task = asyncio.create_task(self._run(), name="event-subscriber")

    async def stop(self) -> None:
        """Stop listening and close the connection."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def watch(self, topic: str, deliver: Deliver, *, timeout_s: float = 1.0) -> bool:
        """Hear the events of ``topic`` (``job:17``).

        Returns: whether Redis confirmed within ``timeout_s``. If not, it is listened to as soon
        as Redis is back.
        """
        return await self._watch(f"{self._ns}:events:{topic}", deliver, timeout_s)

    async def unwatch(self, topic: str, deliver: Deliver) -> None:
        """Stop hearing; the last one to leave a topic ends its subscription."""
        await self._unwatch(f"{self._ns}:events:{topic}", deliver)

    async def watch_previews(
        self, job_id: int, deliver: DeliverFrame, *, timeout_s: float = 1.0
    ) -> bool:
        """Hear the preview frames of a job, as :meth:`watch`."""
        return await self._watch(f"{self._ns}:previews:job:{job_id}", deliver, timeout_s)

    async def unwatch_previews(self, job_id: int, deliver: DeliverFrame) -> None:
        """Stop hearing preview frames."""
        await self._unwatch(f"{self._ns}:previews:job:{job_id}", deliver)

    async def _watch(self, name: str, deliver: Callable[[Any], None], timeout_s: float) -> bool:
        channel = self._channels.get(name)
        if channel is None:
            channel = self._channels[name] = _Channel({deliver})
            await self._ask(name)
        else:
            channel.deliver.add(deliver)
        try:
            await asyncio.wait_for(channel.acknowledged.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    async def _unwatch(self, name: str, deliver: Callable[[Any], None]) -> None:
        channel = self._channels.get(name)
        if channel is None:
            return
        channel.deliver.discard(deliver)
        if not channel.deliver:
            del self._channels[name]
            await self._tell("UNSUBSCRIBE", name)

    async def _ask(self, *names: str) -> None:
        # Counted before it is sent: an answer to an earlier SUBSCRIBE of the same name, since
        # withdrawn, must not count as the answer to this one.
        self._asked.update(names)
        await self._tell("SUBSCRIBE", *names)

    async def _tell(self, *command: str) -> None:
        connection = self._connection
        if connection is None:
            return  # _listen asks for every channel once it is connected
        with suppress(redis.RedisError, OSError):  # the reader meets the same error and reconnects
            await connection.send_command(*command, check_health=False)

    async def _run(self) -> None:
        pause_s, down = 0.025, False
        while True:
            connection: Any = self._pool.connection_class(**self._pool.connection_kwargs)
            began = time.monotonic()
            try:
                async with asyncio.timeout(_TIMEOUT_S * 2):
                    await connection.connect()
                if down:
                    log.info("event_subscriber_recovered")
                down = False
                await self._listen(connection)
            except (redis.RedisError, OSError, TimeoutError) as error:
                if not down:
                    log.warning("event_subscriber_down", error=str(error) or type(error).__name__)
                down = True
            finally:
                self._connection = None
                for channel in self._channels.values():
                    channel.acknowledged.clear()
                with suppress(redis.RedisError, OSError, TimeoutError):
                    await connection.disconnect(nowait=True)
            lasted = time.monotonic() - began > _MAX_BACKOFF_S
            pause_s = 0.05 if lasted else min(_MAX_BACKOFF_S, pause_s * 2)
            await asyncio.sleep(pause_s)

    async def _listen(self, connection: Any) -> None:
        self._asked.clear()
        self._connection = connection
        if self._channels:
            await self._ask(*self._channels)
        pinged = False
        while True:
            answer = await connection.read_response(
                disable_decoding=True, timeout=self._health_check_s
            )
            if answer is not None:
                pinged = False
                self._take(answer)
            elif pinged:
                raise redis.TimeoutError("Redis does not answer a ping")
            else:
                pinged = True
                await connection.send_command("PING", check_health=False)

    def _take(self, answer: Any) -> None:
        if not isinstance(answer, list) or len(answer) != 3:
            return  # the answer to a ping
        kind, name, message = answer[0], answer[1].decode(errors="replace"), answer[2]
        if kind == b"subscribe":
            self._asked[name] -= 1
            if self._asked[name] <= 0:
                del self._asked[name]
                if name in self._channels:
                    self._channels[name].acknowledged.set()
            return
        channel = self._channels.get(name)
        if kind != b"message" or channel is None:
            return
        if name.startswith(f"{self._ns}:events:"):
            message = _parse(message)
        if message is None:
            log.warning("event_malformed", channel=name)
            return
        for deliver in tuple(channel.deliver):
            try:
                deliver(message)
            except Exception:
                log.exception("event_delivery_failed", channel=name)


def _parse(message: bytes) -> Heard | None:
    """Read an event; None for anything else, which another program may have published."""
    try:
        text = message.decode()
        body = json.loads(text)
        kind, row_id, version, final = (body[k] for k in ("type", "id", "version", "final"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(kind, str) and isinstance(row_id, int) and isinstance(version, int)):
        return None
    return Heard(kind, row_id, version, bool(final), text)
