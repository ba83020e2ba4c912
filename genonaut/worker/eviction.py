"""Refuse a Redis that drops keys when its memory is full: they are queued work."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from genonaut.api.config import Settings
from genonaut.core.errors import GenonautError

EVICTING = ("allkeys-", "volatile-")
_TIMEOUT_S = 2.0


class EvictingError(GenonautError):
    """A Redis would drop work; the message says what to do."""

    code = "redis_evicts"


def policies(settings: Settings) -> list[str]:
    """Ask the broker, and the Redis beside it if that is another, for their ``maxmemory-policy``.

    Raises: redis.RedisError: one does not answer.
    """
    return [_policy(url) for url in _urls(settings)]


def refuse_eviction(settings: Settings) -> None:
    """Do what a worker or a beat does first. One that does not answer is let pass: it may return.

    Raises: EvictingError: the policy of one evicts.
    """
    for url in _urls(settings):
        try:
            policy = _policy(url)
        except redis.RedisError:
            continue
        refuse(policy)


def refuse(policy: str) -> None:
    """Judge a policy. Raises: EvictingError: it evicts."""
    if policy.startswith(EVICTING):
        raise EvictingError(
            f"Redis would drop queued work when its memory is full (maxmemory-policy {policy}); "
            "set it to noeviction: redis-cli CONFIG SET maxmemory-policy noeviction"
        )


def _urls(settings: Settings) -> list[str]:
    return list(dict.fromkeys((settings.celery_broker_url, settings.redis_url)))


def _policy(url: str) -> str:
    with redis.Redis.from_url(
        url,
        socket_timeout=_TIMEOUT_S,
        socket_connect_timeout=_TIMEOUT_S,
        retry=Retry(NoBackoff(), 0),
    ) as client:
        memory: dict[str, object] = client.info("memory")
    return str(memory.get("maxmemory_policy", "unknown"))
