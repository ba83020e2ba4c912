"""Messages: sent after the commit, seen in the broker, never in the way of a request."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
import redis
from kombu import Consumer
from sqlalchemy import select, update

from genonaut.db.models import GenerationJob
from genonaut.domain.delivery import Message
from genonaut.domain.generation import describe
from genonaut.local import processes
from genonaut.worker import dispatch
from genonaut.worker.dispatch import OUTBOXES, Broker, BrokerUnavailableError, Dispatcher, publish
from genonaut.worker.queue_app import GENERATION

pytestmark = pytest.mark.usefixtures("celery_app")


@pytest.fixture
def broker(settings):
    with Broker(settings) as opened:
        yield opened


@pytest.fixture
def unpublished(database):
    def read(epoch=""):
        with database.transaction() as session:
            return OUTBOXES["job"].unpublished(session, epoch, settle_s=0, limit=100_000)

    return read


@pytest.fixture
def dispatcher(committed_database, settings):
    made = Dispatcher(committed_database, settings)
    committed_database.sinks.append(made.on_events)
    made.start()
    yield made
    made.stop()


def queue_length(client: redis.Redis, settings) -> int:
    return client.llen(f"{settings.redis_ns}:{GENERATION}")


def until(condition) -> None:
    assert processes.wait_until(condition, 15)


def test_the_epoch_is_made_once_and_anew_after_a_flush(broker, redis_client, settings):
    first = broker.epoch()
    assert broker.epoch() == first
    assert redis_client.keys() == [f"{settings.redis_ns}:epoch".encode()]
    redis_client.flushdb()
    assert broker.epoch() != first


def test_what_was_published_is_recorded_with_its_epoch(
    database, broker, make_job, reload, unpublished, redis_client, settings
):
    jobs = [make_job() for _ in range(3)]
    assert publish(database.transaction, broker, unpublished()) == 3
    assert queue_length(redis_client, settings) == 3
    assert {reload(job).dispatch_epoch for job in jobs} == {broker.epoch()}
    assert unpublished(broker.epoch()) == []


def test_the_broker_holds_what_waits_and_what_is_being_delivered(
    database, broker, make_job, unpublished, celery_app
):
    jobs = [make_job() for _ in range(5)]
    publish(database.transaction, broker, unpublished())
    got = []
    with celery_app.connection_for_read() as connection:
        queue = celery_app.amqp.queues[GENERATION]
        with Consumer(
            connection,
            [queue],
            on_message=got.append,
            prefetch_count=2,
            accept=["json"],
        ):
            while len(got) < 2:
                connection.drain_events(timeout=5)
            held = broker.held_task_ids(GENERATION, delivered_within_s=60)
            assert held == {job.celery_task_id for job in jobs}
            # Given to a worker long ago, and still pending: it died with that worker.
            late = broker.held_task_ids(GENERATION, delivered_within_s=-60)
            assert late == held - {message.headers["id"] for message in got}
            got[0].ack()
            left = broker.held_task_ids(GENERATION, delivered_within_s=60)
            assert left == held - {got[0].headers["id"]}
            for message in got[1:]:
                message.ack()


def test_rubbish_in_the_queue_is_no_message(broker, redis_client, settings):
    redis_client.lpush(f"{settings.redis_ns}:{GENERATION}", b"not json", b"[]", b"{}", b"7")
    assert broker.held_task_ids(GENERATION, delivered_within_s=60) == set()


def test_a_long_queue_is_read_to_its_end(broker, redis_client, settings):
    body = [json.dumps({"headers": {"id": str(n)}}) for n in range(1234)]
    redis_client.lpush(f"{settings.redis_ns}:{GENERATION}", *body)
    assert len(broker.held_task_ids(GENERATION, delivered_within_s=60)) == 1234


def test_the_time_that_redis_takes_is_told_of_whatever_came_of_it(settings):
    told = []
    with Broker(settings, waited=told.append) as broker:
        broker.epoch()
        with pytest.raises(BrokerUnavailableError), broker.call():
            raise OSError("cut")
    with Broker(settings, timeout_s=0.1, waited=told.append) as broker, broker.call():
        time.sleep(0.3)  # as a process that is held up
    assert len(told) == 3
    assert all(0 < seconds < 2 for seconds in told)
    assert told[2] == 0.2


def test_a_frozen_or_absent_redis_is_given_up_on_soon(
    database, settings, make_job, unpublished, valkey, make_settings
):
    make_job()
    (message,) = unpublished()
    with Broker(settings, timeout_s=0.5) as broker:
        broker.send([message])
        valkey.pause()
        try:
            for call in (
                broker.epoch,
                lambda: broker.send([message]),
                lambda: broker.held_task_ids(GENERATION, delivered_within_s=60),
            ):
                started = time.monotonic()
                with pytest.raises(BrokerUnavailableError):
                    call()
                assert time.monotonic() - started < 3
        finally:
            valkey.cont()
        until(broker.epoch)


def test_a_commit_is_published_by_its_process(dispatcher, make_job, reload, redis_client, settings):
    job = make_job()
    until(lambda: reload(job).dispatched_at is not None)
    assert queue_length(redis_client, settings) == 1


def test_a_request_never_waits_for_redis(dispatcher, committed_database, make_job, reload, valkey):
    job = make_job()
    until(lambda: reload(job).dispatched_at is not None)
    events = [describe(reload(job))] * 500
    valkey.pause()
    try:
        started = time.monotonic()
        dispatcher.on_events(events)
        assert time.monotonic() - started < 0.5
        before = time.monotonic()
        dispatcher.on_events(events[:1])
        assert time.monotonic() - before < 0.05
    finally:
        valkey.cont()


def test_after_an_outage_the_thread_publishes_again(
    dispatcher, make_job, reload, valkey, redis_client
):
    valkey.stop()
    lost = make_job()
    until(dispatcher._waiting.empty)  # it was taken up, and failed
    valkey.start()
    found = []

    def published() -> bool:
        found.append(make_job())
        return any(reload(job).dispatched_at is not None for job in found)

    until(published)
    assert reload(lost).status == "pending"


def test_stopping_publishes_what_waits(committed_database, settings, make_job, reload):
    dispatcher = Dispatcher(committed_database, settings)
    jobs = [make_job() for _ in range(450)]
    dispatcher.on_events([describe(job) for job in jobs])
    dispatcher.start()
    dispatcher.stop()
    with committed_database.transaction() as session:
        never = session.scalars(
            select(GenerationJob.id).where(GenerationJob.dispatched_at.is_(None))
        ).all()
    assert never == []


def test_only_due_pending_jobs_are_taken(committed_database, settings, make_job):
    dispatcher = Dispatcher(committed_database, settings)
    later = datetime.now(UTC) + timedelta(hours=1)
    for columns in (
        {"available_at": later},
        {"status": "cancelled"},
        {"cancel_requested_at": later},
    ):
        dispatcher.on_events([describe(make_job(**columns))])
    assert dispatcher._waiting.empty()
    dispatcher.on_events([describe(make_job())])
    assert dispatcher._waiting.qsize() == 1


def test_more_than_it_can_hold_is_left_to_the_reconciler(committed_database, settings, make_job):
    dispatcher = Dispatcher(committed_database, settings)
    dispatcher.on_events([describe(make_job())] * 10_050)
    assert dispatcher._waiting.qsize() == 10_000


def test_what_a_broker_took_before_it_went_away_is_recorded(
    database, broker, make_job, unpublished, reload, monkeypatch
):
    monkeypatch.setattr(dispatch, "_BATCH", 1)

    class TakesOne:
        """A broker that goes away after the first batch."""

        sent = 0
        epoch = staticmethod(broker.epoch)

        def send(self, messages) -> None:
            self.sent += 1
            if self.sent > 1:
                raise BrokerUnavailableError("gone")
            broker.send(messages)

    first, second = make_job(), make_job()
    with pytest.raises(BrokerUnavailableError):
        publish(database.transaction, TakesOne(), unpublished())
    assert reload(first).dispatched_at is not None
    assert reload(second).dispatched_at is None


def test_publishing_changes_no_version(database, broker, make_job, unpublished, reload):
    job = make_job()
    publish(database.transaction, broker, unpublished())
    assert reload(job).version == job.version
    with database.transaction() as session:
        session.execute(update(GenerationJob).values(dispatch_epoch="other"))
    assert [m.version for m in unpublished(broker.epoch())] == [job.version]


def test_many_are_sent_at_once_in_order_to_the_queue_of_each(broker, redis_client, settings):
    messages = [
        Message("run", n, "toys.count", ("default", "maintenance")[n % 2], f"id{n}", 1)
        for n in range(500)
    ]
    broker.send(messages)
    for offset, queue in enumerate(("default", "maintenance")):
        raw = redis_client.lrange(f"{settings.redis_ns}:{queue}", 0, -1)
        ids = [json.loads(item)["headers"]["id"] for item in reversed(raw)]
        assert ids == [f"id{n}" for n in range(offset, 500, 2)]
    broker.send([])


def test_what_was_meant_for_a_queue_that_is_gone_stops_nothing(broker, redis_client, settings):
    broker.send(
        [Message("run", n, "toys.count", ("gone", "default")[n], f"id{n}", 1) for n in (0, 1)]
    )
    assert redis_client.llen(f"{settings.redis_ns}:default") == 2
    assert broker.held_task_ids("default", delivered_within_s=60) == {"id0", "id1"}
