"""Configure Celery: ``genonaut.worker.queue_app:celery``.

Celery delivers; PostgreSQL decides. Nothing here may be needed to get a job right: messages may
be lost, doubled or late (see ``domain/delivery.py``).
"""

from typing import Any

import redis
from celery import Celery
from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import Transport as RedisTransport
from redis.backoff import NoBackoff
from redis.retry import Retry

from genonaut.api.config import Settings, get_settings
from genonaut.worker.queues import (
    DEFAULT,
    GENERATION,
    MAX_HARD_LIMIT_S,
    QUEUES,
    RUN_COMFY_JOB,
)

_MARGIN_S = 600


class _Channel(RedisChannel):
    """Say that a connection is gone in a way that Celery understands.

    A job may outlast the connection its message came over. When Celery then acknowledges the
    message, or gives it back, kombu finds its connection taken apart and fails with an
    AttributeError, which ends the worker; any connection error it would have logged.
    """

    _one_client: Any = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection.client is None:
            raise redis.ConnectionError("the message's connection was closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[no-untyped-call]
        return parameters

    def _create_client(self, asynchronous: bool = False) -> Any:
        """Make one client per pool: kombu makes one per command, half the cost of sending."""
        if asynchronous:
            return super()._create_client(asynchronous)  # type: ignore[no-untyped-call]
        pool = self.pool
        if self._one_client is None or self._one_client.connection_pool is not pool:
            self._one_client = self.Client(connection_pool=pool)
        return self._one_client


class _Transport(RedisTransport):
    Channel = _Channel


class _Connection(Connection):
    """Look for a lost broker every few seconds.

    kombu's own intervals grow to half a minute, longer than a job may wait for Redis's return.
    """

    def get_transport_cls(self) -> type[RedisTransport]:
        return _Transport

    def ensure_connection(self, *args: Any, **kwargs: Any) -> Connection:
        patient = {"interval_start": 1, "interval_step": 1, "interval_max": 3}
        connection: Connection = super().ensure_connection(*args, **{**patient, **kwargs})  # type: ignore[no-untyped-call]
        return connection


class _AMQP(AMQP):
    Connection = _Connection


def _queue(name: str) -> Queue:
    # An exchange of its own: queues that share one and its key would all get each message.
    return Queue(name, Exchange(name, type="direct"), routing_key=name)  # type: ignore[no-untyped-call]


def configuration(settings: Settings) -> dict[str, Any]:
    """Give Celery's configuration for ``settings``; the reasons are in docs/architecture.md."""
    prefix = f"{settings.redis_ns}:"
    # Redis would deliver a task a second time while it still runs if this were shorter.
    visibility_timeout_s = max(settings.task_time_limit_s, MAX_HARD_LIMIT_S) + _MARGIN_S
    transport = {
        "global_keyprefix": prefix,
        "visibility_timeout": visibility_timeout_s,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_connect_timeout": 2,
        "socket_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 5,
        "polling_interval": 5,
    }
    return {
        "broker_url": settings.celery_broker_url,
        "result_backend": settings.celery_result_backend,
        "broker_transport_options": transport,
        "result_backend_transport_options": {
            "global_keyprefix": prefix,
            "visibility_timeout": visibility_timeout_s,
        },
        "visibility_timeout": visibility_timeout_s,
        "redis_socket_timeout": 5,
        "redis_socket_connect_timeout": 2,
        "redis_retry_on_timeout": False,
        "broker_connection_timeout": 2,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_publish_retry": False,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_track_started": False,
        "task_send_sent_event": False,
        "worker_send_task_events": False,
        "task_time_limit": settings.task_time_limit_s,
        "task_soft_time_limit": settings.task_soft_time_limit_s,
        "worker_pool": "genonaut.worker.prefork:TaskPool",
        "worker_max_tasks_per_child": settings.worker_max_tasks_per_child,
        "worker_prefetch_multiplier": 1,
        "worker_soft_shutdown_timeout": settings.worker_shutdown_grace_s,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "result_expires": 3600,
        "control_queue_ttl": 300,
        "control_queue_expires": 60,
        "event_queue_expires": 60,
        "task_default_queue": DEFAULT,
        "task_queues": [_queue(name) for name in QUEUES],
        "task_routes": {RUN_COMFY_JOB: {"queue": GENERATION}},
        "task_create_missing_queues": False,
        "timezone": "UTC",
        "enable_utc": True,
        "imports": (
            "genonaut.worker.tasks",
            "genonaut.worker.registration",
            "genonaut.worker.runtime",
        ),
        "beat_scheduler": "genonaut.worker.beat:Scheduler",
        "beat_max_loop_interval": 5,
        "redbeat_redis_url": settings.celery_broker_url,
        "redbeat_redis_options": {
            "socket_timeout": 2,
            "socket_connect_timeout": 1,
            "health_check_interval": 5,
            "retry": Retry(NoBackoff(), 0),  # beat goes on without Redis, if it does not wait
        },
        "redbeat_key_prefix": f"{prefix}redbeat:",
        "redbeat_lock_key": f"{prefix}redbeat:lock",
        "redbeat_lock_timeout": 20,
    }


celery = Celery("genonaut", amqp=_AMQP)
celery.conf.update(configuration(get_settings()))
celery.set_default()
