"""Neither worker nor beat starts on a Redis that drops keys; one that is away may return."""

import pytest
import structlog
from celery import signals
from structlog.testing import capture_logs

from genonaut.worker import runtime
from genonaut.worker.eviction import EvictingError, policies, refuse_eviction
from tests.support.servers import free_port, running_valkey


@pytest.fixture
def evicting(redis_client):
    """Have Redis evict until the test ends."""
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    yield
    redis_client.config_set("maxmemory-policy", "noeviction")


def test_a_redis_that_keeps_what_it_has_is_fine(settings):
    assert policies(settings) == ["noeviction"]
    refuse_eviction(settings)


@pytest.mark.usefixtures("evicting")
def test_broker_and_redis_are_both_looked_at_if_they_answer(settings, make_settings):
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    with pytest.raises(EvictingError, match=r"allkeys-lru.*set it to noeviction"):
        refuse_eviction(settings)
    with running_valkey() as server, pytest.raises(EvictingError):
        refuse_eviction(make_settings(celery_broker_url_test=server.url()))
    with pytest.raises(EvictingError):
        refuse_eviction(make_settings(celery_broker_url_test=nobody))
    refuse_eviction(make_settings(redis_url_test=nobody))


@pytest.mark.usefixtures("evicting")
@pytest.mark.parametrize("starting", [signals.celeryd_after_setup, signals.beat_init])
def test_who_starts_ends_with_one_line(settings, monkeypatch, starting):
    monkeypatch.setattr(runtime, "get_settings", lambda: settings)
    monkeypatch.setattr(runtime, "log", structlog.get_logger())  # one that nobody has bound yet
    with capture_logs() as lines, pytest.raises(SystemExit) as ended:
        starting.send(sender=None)
    assert ended.value.code == 1
    [line] = lines
    assert line["event"] == "will_not_start"
    assert "allkeys-lru" in line["reason"]
