"""Have one of several beats at work, by RedBeat's lock in Redis.

Two at work would harm nothing: PostgreSQL lets one of them start what is due. So without Redis,
where no lock can be held, a beat works rather than waits.
"""

import time
from typing import Any

import redis
import structlog
from celery import Celery
from redbeat.schedulers import ensure_conf, get_redis
from redis.exceptions import LockError
from redis.lock import Lock

log = structlog.get_logger(__name__)

LOOK_S = 2.0
AWAY_S = 5.0
"""A Redis that hangs is asked so rarely: each time delays what is due by its timeout."""
ASIDE_S = 2 * LOOK_S
"""Within so long a standby takes what was left to it."""


class Leadership:
    """Take the lock when it is free, keep it, and notice when it is lost."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._lock: Lock | None = None
        self._leads = False
        self._is_away = False
        self._look_at = float("-inf")

    @property
    def leads(self) -> bool:
        """Whether this beat was to work when last looked."""
        return self._leads

    @property
    def has_lock(self) -> bool:
        """Whether this beat leads because it holds the lock, not because Redis is away."""
        return self._leads and self._lock is not None and not self._is_away

    def look(self) -> bool:
        """Whether this beat is to work now; asks Redis every two seconds."""
        if time.monotonic() < self._look_at:
            return self._leads
        try:
            leads = self._keep() or self._take()
        except redis.RedisError as error:
            if not self._is_away:
                log.warning("beat_without_lock", reason=str(error)[:200])
            self._is_away, self._leads = True, True
            self._look_at = time.monotonic() + AWAY_S
            return True
        if leads is not self._leads or self._is_away:
            log.info("beat_leads" if leads else "beat_stands_by")
        self._is_away, self._leads = False, leads
        self._look_at = time.monotonic() + LOOK_S
        return leads

    def step_aside(self) -> None:
        """Free the lock, and let others take it before this beat tries again."""
        self.give_up()
        self._look_at = time.monotonic() + ASIDE_S

    def give_up(self) -> None:
        """Free the lock for the next."""
        lock, self._lock, self._leads = self._lock, None, False
        if lock is None:
            return
        try:
            lock.release()
        except redis.RedisError as error:
            log.warning("beat_lock_not_released", reason=str(error)[:200])

    def _keep(self) -> bool:
        if self._lock is None:
            return False
        try:
            self._lock.reacquire()
        except LockError:
            log.warning("beat_lock_lost")
            self._lock = None
            return False
        return True

    def _take(self) -> bool:
        ensure_conf(self._app)
        conf: Any = self._app.redbeat_conf
        lock = get_redis(self._app).lock(
            conf.lock_key, timeout=conf.lock_timeout, thread_local=False
        )
        if lock.acquire(blocking=False):
            self._lock = lock
        return self._lock is not None
