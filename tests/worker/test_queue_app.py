"""Celery's configuration, and what it leaves in Redis: everything under the namespace."""

import pytest
from kombu import Consumer

from genonaut.worker.queue_app import configuration
from genonaut.worker.queues import QUEUES, RUN_COMFY_JOB, WORKERS


def test_the_settings_that_reliability_depends_on(settings):
    conf = configuration(settings)
    expected = {
        "task_acks_late": True,
        "task_reject_on_worker_lost": False,
        "task_publish_retry": False,
        "task_ignore_result": True,
        "worker_prefetch_multiplier": 1,
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "task_soft_time_limit": 1500,
        "task_time_limit": 1800,
        "worker_max_tasks_per_child": 100,
        "beat_max_loop_interval": 5,
        "redbeat_lock_timeout": 20,
        "timezone": "UTC",
    }
    assert {name: conf[name] for name in expected} == expected
    assert conf["worker_soft_shutdown_timeout"] > 0
    assert conf["redbeat_lock_timeout"] > 3 * conf["beat_max_loop_interval"]
    assert conf["redbeat_redis_url"] == settings.celery_broker_url
    assert conf["redbeat_key_prefix"] == "genonaut_test:redbeat:"
    assert conf["redbeat_redis_options"]
    assert conf["broker_transport_options"]["unacked_restore_throttle"] == 1
    assert conf["broker_transport_options"]["socket_keepalive"]
    assert conf["broker_transport_options"]["health_check_interval"]


@pytest.mark.parametrize("limit_s", [1800, 7200])
def test_no_running_task_is_delivered_again(make_settings, limit_s):
    conf = configuration(make_settings(task_time_limit_s=limit_s))
    for place in (conf, conf["broker_transport_options"], conf["result_backend_transport_options"]):
        assert place["visibility_timeout"] > limit_s


def test_every_queue_has_one_worker_and_an_exchange_of_its_own(settings):
    consumed = [queue for queues in WORKERS.values() for queue in queues]
    assert sorted(consumed) == sorted(QUEUES)
    queues = configuration(settings)["task_queues"]
    assert {queue.exchange.name for queue in queues} == set(QUEUES)
    assert configuration(settings)["task_routes"] == {RUN_COMFY_JOB: {"queue": "generation"}}


def test_broker_and_results_may_live_in_other_databases(make_settings, valkey):
    settings = make_settings(
        celery_broker_url_test=valkey.url(5), celery_result_backend_test=valkey.url(6)
    )
    conf = configuration(settings)
    assert conf["broker_url"] == valkey.url(5) == conf["redbeat_redis_url"]
    assert conf["result_backend"] == valkey.url(6)


# Celery's Redis backend calls it; the warning is new in redis-py.
@pytest.mark.filterwarnings("ignore:Call to deprecated setex")
def test_every_key_and_channel_is_under_the_namespace(celery_app, redis_client):
    with celery_app.connection_for_read() as connection:
        queues = [celery_app.amqp.queues[name] for name in QUEUES]
        got = []
        with Consumer(connection, queues, on_message=got.append, accept=["json"]):
            for name in QUEUES:
                celery_app.send_task("some.task", queue=name, connection=connection)
            while len(got) < len(QUEUES):
                connection.drain_events(timeout=5)
            celery_app.send_task("waits", queue="default", connection=connection)
            celery_app.backend.store_result("one", {"a": 1}, "SUCCESS")
            keys = set(redis_client.keys())
            for message in got:
                message.ack()
    with celery_app.connection_for_read() as connection:
        node = celery_app.control.mailbox.Node("here", channel=connection.channel())
        node.handlers["ping"] = lambda state, **_: {"ok": "pong"}
        with node.Consumer(channel=node.channel):
            celery_app.control.broadcast("ping", connection=connection)
            connection.drain_events(timeout=5)
            listening = redis_client.pubsub_numpat() + len(redis_client.pubsub_channels())
            channels = set(redis_client.pubsub_channels())
            keys |= set(redis_client.keys())
    assert listening
    assert {key for key in keys if not key.startswith(b"genonaut_test:")} == set()
    assert {name for name in channels if not name.startswith(b"genonaut_test:")} == set()
    kinds = {key.split(b":")[1].split(b".")[0] for key in keys}
    assert {b"default", b"unacked", b"unacked_index", b"_kombu"} <= kinds
