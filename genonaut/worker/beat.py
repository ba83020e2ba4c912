"""Run the schedules: one active process and standbys.

The rows say what is due, and this loop asks them; RedBeat gives the lock that elects who asks, and
its entries show the rows to whoever looks into Redis. It sends no message: a run is a row first,
and its message follows the commit, from here if Redis is there, else from a reconciler.
"""

import os
import socket
import threading
import time
from typing import Any

import redis
import structlog
from celery import signals
from redbeat.schedulers import RedBeatScheduler
from sqlalchemy.exc import SQLAlchemyError

from genonaut.api.config import get_settings
from genonaut.core.clock import utcnow
from genonaut.core.log import configure_logging
from genonaut.domain import heartbeats, schedule_clock
from genonaut.worker import firing
from genonaut.worker.dispatch import Dispatcher
from genonaut.worker.leadership import LOOK_S, Leadership
from genonaut.worker.projection import REPAIR_S, Projection
from genonaut.worker.services import get_services

log = structlog.get_logger(__name__)

IDLE_S = 1.0
"""A schedule that is made or resumed begins at most so late."""
FIRE_S = 5.0
AWAY_S = 5.0
"""Who has had no database for so long leaves the lead to one that may have it."""


@signals.setup_logging.connect
def _log_as_we_do(**_: Any) -> None:
    settings = get_settings()
    configure_logging(settings.log_level, as_json=settings.log_json)


class Scheduler(RedBeatScheduler):
    """Fire what the rows say; report each loop: a beat whose loop hangs is seen and replaced."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._services = get_services()
        self._started_at = utcnow()
        self._beat_at = float("-inf")
        self._late_s = 0.0
        self._is_synchronised = False
        self._away_since: float | None = None
        self._dispatcher: Dispatcher | None = None
        self._repairing: threading.Thread | None = None
        self._ends = threading.Event()
        super().__init__(*args, **kwargs)
        # RedBeat would wait for its lock without a sign of life, and end when it is lost.
        self.lock_key = None
        self._leadership = Leadership(self.app)

    def setup_schedule(self) -> None:
        """Install nothing: Celery's ``backend_cleanup`` has no results to clean up here."""

    def tick(self, *_: Any, **__: Any) -> float:
        """Fire what is due; give the seconds until the next look."""
        try:
            return self._tick()
        except SQLAlchemyError as error:
            self._lost_database(error)
            return IDLE_S

    def _lost_database(self, error: SQLAlchemyError) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("beat_without_database", reason=str(error)[:200])
        elif self._leadership.leads and now - self._away_since > AWAY_S:
            self._leadership.step_aside()

    def _has_database(self) -> None:
        if self._away_since is not None:
            self._away_since = None
            log.info("beat_has_database")

    def close(self) -> None:
        """Give up the lock and take leave, so that nobody takes this beat for alive."""
        self._ends.set()
        self._leadership.give_up()
        if self._repairing is not None:
            self._repairing.join(timeout=2)
        if self._dispatcher is not None:
            self._dispatcher.stop()
        super().close()
        try:
            with self._services.database.transaction() as session:
                heartbeats.leave(session, heartbeat_name())
        except SQLAlchemyError as error:
            log.warning("heartbeat_not_removed", reason=str(error)[:200])

    def _tick(self) -> float:
        leads = self._leadership.look()
        if not leads:
            self._is_synchronised = False
            self._report()
            return LOOK_S
        self._start_threads()
        if not self._is_synchronised:
            firing.synchronise(self._services.database)
            self._is_synchronised = True
        wait_s = self._fire()
        self._report()
        return wait_s

    def _fire(self) -> float:
        database = self._services.database
        with database.looking() as session:
            seen = schedule_clock.look(session)
        self._has_database()
        self._late_s = max(self._late_s, seen.late_s)
        is_over = seen.resume_at is not None and seen.resume_at <= seen.now
        if is_over and firing.end_pauses(database, seen.now):
            return 0.0
        if seen.next_due_at is None:
            return IDLE_S
        if seen.next_due_at <= seen.now:
            return 0.0 if firing.fire_due(database, seen.now, for_s=FIRE_S) else IDLE_S
        return min((seen.next_due_at - seen.now).total_seconds(), IDLE_S)

    def _start_threads(self) -> None:
        """Begin what only a beat that works needs; Celery makes schedulers just to print them."""
        if self._dispatcher is not None:
            return
        database = self._services.database
        self._dispatcher = Dispatcher(database, self._services.settings)
        self._dispatcher.start()
        database.sinks.append(self._dispatcher.on_events)
        self._repairing = threading.Thread(target=self._repair, name="projection", daemon=True)
        self._repairing.start()

    def _repair(self) -> None:
        """Repair the projection while this beat holds the lock, in a thread of its own.

        With ten thousand schedules a pass takes longer than what is due may wait.
        """
        projection = Projection(self.app, self._services.database)
        while not self._ends.is_set():
            try:
                if self._leadership.has_lock:
                    repaired = projection.repair()
                    if repaired.written or repaired.removed:
                        log.info(
                            "projection_repaired",
                            written=repaired.written,
                            removed=repaired.removed,
                        )
            except (SQLAlchemyError, redis.RedisError) as error:
                log.warning("projection_not_repaired", reason=str(error)[:200])
            except Exception:
                # It is only shown: a fault in it must not keep the next pass from mending it.
                log.exception("projection_not_repaired")
            self._ends.wait(REPAIR_S)

    def _report(self) -> None:
        """Write the heartbeat, with the greatest lateness since the last one."""
        if time.monotonic() - self._beat_at < self._services.settings.heartbeat_interval_s:
            return
        self._beat_at = time.monotonic()
        with self._services.database.transaction() as session:
            info = {
                "role": "active" if self._leadership.leads else "standby",
                "tick_at": utcnow().isoformat(),
                "late_s": round(self._late_s, 3),
                **schedule_clock.count(session),
            }
            heartbeats.beat(
                session, heartbeat_name(), kind="beat", started_at=self._started_at, info=info
            )
        self._has_database()
        self._late_s = 0.0


def heartbeat_name() -> str:
    """Name this beat among several."""
    return get_settings().process_name or f"beat-{os.getpid()}@{socket.gethostname()}"
