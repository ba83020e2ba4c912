"""Remove what Celery leaves in Redis and nobody will read.

A process that dies while it waits for an answer of the workers leaves a list that nobody sets an
expiry on (the worker that answers does not know of one), and a result that was stored without an
expiry stays for ever. Only keys under our prefix are looked at, and only what has no expiry and was
not touched for a while is taken.
"""

from dataclasses import dataclass
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from genonaut.api.config import Settings
from genonaut.worker.dispatch import BrokerUnavailableError

_PAGE = 1000
_PAGES = 1000

_TAKE = """
local taken = 0
for _, key in ipairs(KEYS) do
    if redis.call('TTL', key) == -1
            and redis.call('OBJECT', 'IDLETIME', key) >= tonumber(ARGV[1]) then
        if ARGV[2] == 'remove' then redis.call('UNLINK', key) end
        taken = taken + 1
    end
end
return taken
"""
"""Looked at and removed in one step: nobody can begin to use a key in between."""


@dataclass(frozen=True, slots=True)
class Litter:
    """Keys that may be left behind: ``pattern`` after the prefix, untouched for ``idle_s``."""

    rule: str
    pattern: str
    idle_s: int
    why: str


REPLIES = Litter(
    "orphan_reply",
    "????????-????-????-????-????????????.reply.celery.pidbox*",
    300,  # whoever asks waits for seconds, and kombu keeps a reply queue for a minute
    "the process that asked the workers is gone",
)
RESULTS = Litter(
    "orphan_result",
    "celery-task-meta-*",
    2 * 3600,  # twice as long as our results are kept
    "the result is past its expiry",
)
LITTER = (REPLIES, RESULTS)


def sweep(settings: Settings, *, dry_run: bool = False, timeout_s: float = 2.0) -> dict[str, int]:
    """Remove what is left behind, or only count it; give the numbers by rule.

    Raises: BrokerUnavailableError: Redis does not answer.
    """
    places = {REPLIES: settings.celery_broker_url, RESULTS: settings.celery_result_backend}
    return {
        litter.rule: _take(url, settings.redis_ns, litter, dry_run=dry_run, timeout_s=timeout_s)
        for litter, url in places.items()
    }


def _take(url: str, ns: str, litter: Litter, *, dry_run: bool, timeout_s: float) -> int:
    """Go through the keys by a scan, which blocks nobody; a vast database is not seen whole."""
    client: Any = redis.Redis.from_url(
        url,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    taken = 0
    try:
        with client:
            take = client.register_script(_TAKE)
            cursor = 0
            for _ in range(_PAGES):
                cursor, keys = client.scan(cursor, match=f"{ns}:{litter.pattern}", count=_PAGE)
                if keys:
                    taken += take(keys, [litter.idle_s, "count" if dry_run else "remove"])
                if cursor == 0:
                    break
    except redis.RedisError as error:
        raise BrokerUnavailableError(str(error)) from error
    return taken
