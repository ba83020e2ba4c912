"""Run inside every Celery worker: logs, forks, heartbeats, the reconciler, draining."""

import os
import threading
import time
import warnings
from typing import Any

import structlog
from celery import bootsteps, signals
from celery.exceptions import SecurityWarning
from sqlalchemy.exc import SQLAlchemyError

from genonaut.api.config import get_settings
from genonaut.core.clock import utcnow
from genonaut.core.log import configure_logging
from genonaut.domain import heartbeats
from genonaut.worker import drain
from genonaut.worker.contact import SHARED
from genonaut.worker.eviction import EvictingError, refuse_eviction
from genonaut.worker.forks import gate
from genonaut.worker.queue_app import celery
from genonaut.worker.reconciler import Reconciler
from genonaut.worker.services import Services, get_services

log = structlog.get_logger(__name__)

# Celery warns against root because of pickle; we accept nothing but JSON.
warnings.filterwarnings("ignore", category=SecurityWarning)

gate.install()


@signals.setup_logging.connect
def _log_as_we_do(**_: Any) -> None:
    settings = get_settings()
    configure_logging(settings.log_level, as_json=settings.log_json)


@signals.celeryd_after_setup.connect
@signals.beat_init.connect
def _refuse_eviction(**_: Any) -> None:
    try:
        refuse_eviction(get_settings())
    except EvictingError as error:
        log.critical("will_not_start", reason=str(error))
        raise SystemExit(1) from error  # any other exception Celery would log, and go on


@signals.worker_process_init.connect
def _start_pool_process(**_: Any) -> None:
    get_services().after_fork()


@signals.worker_shutting_down.connect
def _start_draining(**_: Any) -> None:
    drain.begin(get_settings().worker_shutdown_grace_s)


class Housekeeping(bootsteps.StartStopStep):
    """Report that the worker lives, and reconcile, from a thread of its main process."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, worker: Any) -> None:
        """Start the thread."""
        self._stopping.clear()
        self._thread = threading.Thread(
            target=self._run, args=(worker,), name="housekeeping", daemon=True
        )
        self._thread.start()

    def stop(self, worker: Any) -> None:
        """End the thread and take the worker off the list of the living."""
        drain.begin(get_settings().worker_shutdown_grace_s)  # ``control shutdown`` sends no signal
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            try:
                with get_services().database.transaction() as session:
                    heartbeats.leave(session, worker.hostname)
            except SQLAlchemyError as error:
                log.warning("heartbeat_not_removed", reason=str(error)[:200])

    terminate = stop

    def _run(self, worker: Any) -> None:
        services = get_services()
        settings = services.settings
        reconciler = Reconciler(services.database, settings, memory=SHARED)
        started_at = utcnow()
        info = {
            "pid": os.getpid(),
            "queues": sorted(worker.app.amqp.queues.consume_from),
            "concurrency": worker.concurrency,
        }
        beaten_at = float("-inf")
        while True:
            with gate.closed():
                try:
                    if time.monotonic() - beaten_at >= settings.heartbeat_interval_s:
                        _beat(services, worker.hostname, started_at, info)
                        beaten_at = time.monotonic()
                    reconciler.run_once()
                except SQLAlchemyError as error:
                    log.warning("database_away", reason=str(error)[:200])
                    reconciler.missed()
                except Exception:
                    # The last line of defence must not die of a bug in one rule.
                    log.exception("reconcile_failed")
            if self._stopping.wait(settings.reconcile_interval_s):
                reconciler.close()
                return


def _beat(services: Services, name: str, started_at: Any, info: dict[str, Any]) -> None:
    with services.database.transaction() as session:
        heartbeats.beat(session, name, kind="worker", started_at=started_at, info=info)


celery.steps["worker"].add(Housekeeping)
