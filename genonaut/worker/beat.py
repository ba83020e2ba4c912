"""Run the schedules: RedBeat as alarm clock, one active process and standbys."""

import os
import socket
import time
from typing import Any

import structlog
from celery import signals
from redbeat.schedulers import RedBeatScheduler
from sqlalchemy.exc import SQLAlchemyError

from genonaut.api.config import get_settings
from genonaut.core.clock import utcnow
from genonaut.core.log import configure_logging
from genonaut.domain import heartbeats
from genonaut.worker.services import get_services

log = structlog.get_logger(__name__)


@signals.setup_logging.connect
def _log_as_we_do(**_: Any) -> None:
    settings = get_settings()
    configure_logging(settings.log_level, as_json=settings.log_json)


class Scheduler(RedBeatScheduler):
    """Report each loop: a beat whose loop hangs is seen and replaced."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._services = get_services()
        self._started_at = utcnow()
        self._beat_at = 0.0
        super().__init__(*args, **kwargs)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Fire what is due; give the seconds until the next look."""
        self._report()
        wait_s: float = super().tick(*args, **kwargs)
        return wait_s

    def close(self) -> None:
        """Give up the lock and take leave, so that nobody takes this beat for alive."""
        super().close()
        try:
            with self._services.database.transaction() as session:
                heartbeats.leave(session, heartbeat_name())
        except SQLAlchemyError as error:
            log.warning("heartbeat_not_removed", reason=str(error)[:200])

    def _report(self) -> None:
        settings = self._services.settings
        if time.monotonic() - self._beat_at < settings.heartbeat_interval_s:
            return
        self._beat_at = time.monotonic()
        try:
            with self._services.database.transaction() as session:
                heartbeats.beat(
                    session, heartbeat_name(), kind="beat", started_at=self._started_at, info={}
                )
        except SQLAlchemyError as error:
            log.warning("heartbeat_not_written", reason=str(error)[:200])


def heartbeat_name() -> str:
    """Name this beat among several."""
    return get_settings().process_name or f"beat-{os.getpid()}@{socket.gethostname()}"
