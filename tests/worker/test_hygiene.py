"""What Celery leaves in Redis goes, and nothing that is somebody's."""

from dataclasses import replace

import pytest

from genonaut.worker import hygiene
from genonaut.worker.dispatch import BrokerUnavailableError
from genonaut.worker.hygiene import REPLIES, RESULTS

REPLY = "547aebdc-4e0c-3687-af83-f3627984ba99.reply.celery.pidbox"


@pytest.fixture
def at_once(monkeypatch):
    """Everything was left alone for long enough."""
    for name, litter in (("REPLIES", REPLIES), ("RESULTS", RESULTS)):
        monkeypatch.setattr(hygiene, name, replace(litter, idle_s=0))


@pytest.fixture
def put(redis_client, settings):
    def make(name, *, ttl_s=None, ns=settings.redis_ns):
        key = f"{ns}:{name}"
        redis_client.lpush(key, "x")
        if ttl_s is not None:
            redis_client.expire(key, ttl_s)
        return key.encode()

    return make


@pytest.mark.usefixtures("at_once")
def test_what_is_left_behind_goes_and_nothing_else(settings, redis_client, put):
    for name in (REPLY, f"{REPLY}\x06\x163", "celery-task-meta-1"):
        put(name)
    kept = {
        put("generation"),
        put("unacked"),
        put("redbeat:schedule"),
        put("_kombu.binding.reply.celery.pidbox"),
        put("celery-task-meta-2", ttl_s=60),
        put(f"1{REPLY[1:8]}-0000-0000-0000-000000000000.reply.celery.pidbox", ttl_s=60),
        put(REPLY, ns="other_environment"),
        put("celery-task-meta-1", ns="other_environment"),
    }
    counted = {REPLIES.rule: 2, RESULTS.rule: 1}
    assert hygiene.sweep(settings, dry_run=True) == counted
    assert hygiene.sweep(settings) == counted
    assert set(redis_client.keys()) == kept
    assert hygiene.sweep(settings) == {REPLIES.rule: 0, RESULTS.rule: 0}


def test_what_was_just_used_is_somebodys(settings, redis_client, put):
    ours = {put(REPLY), put("celery-task-meta-1")}
    assert hygiene.sweep(settings) == {REPLIES.rule: 0, RESULTS.rule: 0}
    assert set(redis_client.keys()) == ours


@pytest.mark.usefixtures("at_once")
def test_results_are_looked_for_where_they_are_kept(make_settings, valkey, put, redis_client):
    elsewhere = make_settings(celery_result_backend_test=valkey.url(14))
    key = put("celery-task-meta-1")
    assert hygiene.sweep(elsewhere) == {REPLIES.rule: 0, RESULTS.rule: 0}
    assert redis_client.exists(key)


def test_many_keys_are_gone_through_page_by_page(settings, redis_client, monkeypatch, at_once):
    monkeypatch.setattr(hygiene, "_PAGE", 10)
    pipe = redis_client.pipeline()
    for number in range(500):
        pipe.set(f"{settings.redis_ns}:celery-task-meta-{number}", "x")
        pipe.set(f"{settings.redis_ns}:mine:{number}", "x")
    pipe.execute()
    assert hygiene.sweep(settings)[RESULTS.rule] == 500
    assert len(redis_client.keys()) == 500


def test_without_redis_it_says_so(settings, valkey):
    valkey.stop()
    try:
        with pytest.raises(BrokerUnavailableError):
            hygiene.sweep(settings)
    finally:
        valkey.start()
