"""The reconciler: a backlog is never sent twice, what was lost is sent once, one pass at a time."""

import json
import socket
import time
from collections import Counter
from itertools import count
from uuid import uuid4

import pytest
from sqlalchemy import event, func, select, text

from genonaut.db.models import Base, GenerationJob
from genonaut.domain import abandoned, attempts, generation, reaping
from genonaut.domain.delivery import missing
from genonaut.local import processes
from genonaut.worker.contact import fresh
from genonaut.worker.dispatch import OUTBOXES, Broker
from genonaut.worker.queue_app import GENERATION
from genonaut.worker.reconciler import Reconciler
from genonaut.worker.repair import LOCK_ID, Repairs, contact_of

pytestmark = pytest.mark.usefixtures("celery_app")


@pytest.fixture
def reconciler(committed_database, make_settings):
    made = Reconciler(committed_database, make_settings(postgres_grace_s=0))
    yield made
    made.close()


@pytest.fixture
def due(database):
    """Make every pending row due for long enough that it is nobody's to publish but ours."""

    def make() -> None:
        with database.transaction() as session:
            session.execute(
                text("UPDATE generation_jobs SET available_at = now() - interval '1 minute'")
            )

    return make


@pytest.fixture
def queued(redis_client, settings):
    return lambda: redis_client.llen(f"{settings.redis_ns}:{GENERATION}")


def test_a_pass_publishes_what_nobody_did_and_the_next_nothing(reconciler, make_job, due, queued):
    for _ in range(3):
        make_job()
    due()
    reconciler.run_once()
    assert queued() == 3
    reconciler.run_once()
    assert queued() == 3


def test_after_a_flush_every_pending_row_is_sent_again_once(
    reconciler, make_job, due, queued, redis_client
):
    for _ in range(7):
        make_job()
    due()
    reconciler.run_once()
    redis_client.flushdb()
    reconciler.run_once()
    reconciler.run_once()
    assert queued() == 7


def test_a_flush_between_two_batches_does_not_make_a_pass_endless(
    committed_database, reconciler, make_job, due, queued, redis_client, monkeypatch
):
    monkeypatch.setattr("genonaut.worker.repair.BATCH", 2)
    for _ in range(6):
        make_job()
    due()
    batches = count(1)

    def flush_after_the_first(connection, cursor, statement, *_) -> None:
        if "dispatch_epoch=" in statement and next(batches) == 1:
            redis_client.flushdb()
        assert "dispatch_epoch=" not in statement or next(batches) < 40, "endless"

    event.listen(committed_database.engine, "after_cursor_execute", flush_after_the_first)
    reconciler.run_once()
    assert queued() == 6


def test_without_redis_a_pass_still_reaps(reconciler, make_claim, reload, valkey):
    held = make_claim(lease_s=-60)
    valkey.stop()
    try:
        reconciler.run_once()
    finally:
        valkey.start()
    assert reload(held).status == "pending"


def test_a_pass_closes_cancels_and_takes_back_what_is_lost(
    committed_database, reconciler, make_claim, reload
):
    lost, stopped = make_claim(lease_s=-60), make_claim()
    with committed_database.transaction() as session:
        generation.request_cancel(session, stopped.job.user_id, stopped.job_id)
        attempts.release(session, stopped, reason="deploy")
    reconciler.run_once()
    assert (reload(lost).status, reload(stopped).status) == ("pending", "cancelled")


def test_nothing_is_reaped_while_postgres_settles(committed_database, settings, make_claim, reload):
    held = make_claim(lease_s=-60)
    patient = Reconciler(committed_database, settings.model_copy(update={"postgres_grace_s": 1e9}))
    patient.run_once()
    patient.close()
    assert reload(held).status == "running"


def test_while_another_worker_makes_a_pass_this_one_does_nothing(
    committed_database, reconciler, make_job, due, queued
):
    make_job()
    due()
    with committed_database.transaction() as other:
        other.execute(select(func.pg_advisory_xact_lock(LOCK_ID)))
        reconciler.run_once()
        assert queued() == 0
    reconciler.run_once()
    assert queued() == 1


class Hour:
    """An hour in front of a real queue; every look finds every published row overdue."""

    def __init__(self, database, broker, client, key) -> None:
        self.database, self.broker, self.client, self.key = database, broker, client, key
        self.sent: Counter[int] = Counter()

    def reconcile(self) -> None:
        epoch = self.broker.epoch()
        with self.database.transaction() as session:
            due = OUTBOXES["job"].unpublished(session, epoch, settle_s=0, limit=10_000)
        self.send(due)
        with self.database.transaction() as session:
            waiting = OUTBOXES["job"].overdue(session, epoch, after_s=-1, limit=10_000)
        held = self.broker.held_task_ids(GENERATION, delivered_within_s=60)
        self.send(missing(waiting, held))

    def send(self, messages) -> None:
        # What ``publish`` does, in one round trip for all; test_dispatch sends with Celery.
        if not messages:
            return
        epoch = self.broker.epoch()
        raw = [json.dumps({"headers": {"id": message.task_id}}) for message in messages]
        self.client.lpush(self.key, *raw)
        with self.database.transaction() as session:
            OUTBOXES["job"].mark_published(session, messages, epoch)
        self.sent.update(message.row_id for message in messages)

    def work(self) -> None:
        """Take one message, as the slow worker does, and finish its job."""
        raw = self.client.rpop(self.key)
        task_id = json.loads(raw)["headers"]["id"]
        with self.database.transaction() as session:
            session.execute(
                text(
                    "UPDATE generation_jobs SET status = 'cancelled', completed_at = now()"
                    " WHERE celery_task_id = :id"
                ),
                {"id": task_id},
            )


def test_an_hour_of_backlog_sends_each_message_once(
    database, settings, make_user, redis_client, celery_app
):
    user = make_user()
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO generation_jobs (user_id, prompt, celery_task_id)"
                " SELECT :user, 'a fox', 'task-' || n FROM generate_series(1, 5000) AS n"
            ),
            {"user": user.id},
        )
        session.execute(text("ANALYZE generation_jobs"))
    key = f"{settings.redis_ns}:{GENERATION}"
    with Broker(settings) as broker:
        hour = Hour(database, broker, redis_client, key)
        for _ in range(12):
            hour.reconcile()
            hour.work()
        assert set(hour.sent.values()) == {1}
        assert len(hour.sent) == 5000

        # One message is lost: taken by a worker that died before it could claim.
        raw = redis_client.rpop(key)
        hour.sent.clear()
        for _ in range(3):
            hour.reconcile()
        assert list(hour.sent.values()) == [1]
        with database.transaction() as session:
            lost = session.get_one(GenerationJob, next(iter(hour.sent)))
        assert lost.celery_task_id.encode() in raw

        # Redis forgets everything: each row that still waits is sent once more, and only once.
        hour.sent.clear()
        redis_client.flushdb()
        for _ in range(3):
            hour.reconcile()
        assert set(hour.sent.values()) == {1}
        assert len(hour.sent) == 4988


@pytest.mark.parametrize("lost", [1, 5])
def test_messages_that_were_lost_are_found_by_a_pass(
    committed_database, reconciler, make_job, due, queued, redis_client, settings, monkeypatch, lost
):
    monkeypatch.setattr("genonaut.worker.repair.BATCH", 2)
    for _ in range(lost):
        make_job()
    due()
    reconciler.run_once()
    redis_client.delete(f"{settings.redis_ns}:{GENERATION}")
    reconciler.run_once()
    assert queued() == 0  # it may still be on its way
    with committed_database.transaction() as session:
        session.execute(
            text("UPDATE generation_jobs SET dispatched_at = now() - interval '2 minutes'")
        )
    reconciler.run_once()
    assert processes.wait_until(lambda: queued() == lost, 5)
    reconciler.run_once()
    assert queued() == lost


def test_nothing_is_taken_from_holders_when_the_databases_clock_has_jumped(
    committed_database, make_settings, make_claim, reload
):
    """As after the sleep of a laptop: every lease looks lost at once."""
    held = make_claim(lease_s=-60)
    memory = fresh()
    settings = make_settings(lease_renew_s=1, postgres_grace_s=1)  # PostgreSQL is older
    now = time.monotonic()
    contact_of(settings, memory).note(now, reaping_clock(committed_database) - 600)
    reconciler = Reconciler(committed_database, settings, memory=memory)
    reconciler.run_once()
    assert reload(held).status == "running"

    def is_taken() -> bool:
        reconciler.run_once()
        return reload(held).status == "pending"

    assert processes.wait_until(is_taken, 10)
    reconciler.close()


def reaping_clock(database):
    with database.transaction() as session:
        return reaping.clock(session)


def test_prompts_are_taken_up_again_only_when_those_before_are_done(
    committed_database, make_settings, database
):
    """A server that hangs is not asked the same again and again, before all others."""
    hanging = socket.create_server(("127.0.0.1", 0), backlog=64)
    url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
    reconciler = Reconciler(committed_database, make_settings(postgres_grace_s=0))
    with committed_database.transaction() as session:
        for _ in range(3):
            abandoned.abandon(session, url, str(uuid4()))
    reconciler.run_once()
    first = list(reconciler._removing)
    with committed_database.transaction() as session:
        session.execute(text("UPDATE abandoned_prompts SET next_try_at = now()"))
    reconciler.run_once()
    assert reconciler._removing == first
    assert len(first) == 3
    reconciler.close()
    hanging.close()


def test_nothing_is_taken_from_holders_after_an_outage(
    committed_database, make_settings, make_claim, reload
):
    held, left = make_claim(lease_s=-60), make_claim()
    with committed_database.transaction() as session:
        generation.request_cancel(session, left.job.user_id, left.job_id)
        attempts.release(session, left, reason="deploy")
    settings = make_settings(postgres_grace_s=0)
    contact = contact_of(settings, None)
    with Broker(settings) as broker, committed_database.transaction() as lock:
        repairs = Repairs(committed_database.transaction, settings, broker, contact)
        contact.had(time.monotonic() - 60)
        assert [one.id for one in repairs.make(lock).reaped] == [left.job_id]
        contact.had(time.monotonic())
        assert [one.id for one in repairs.make(lock).reaped] == [held.job_id]
    assert reload(held).status == "pending"


@pytest.fixture
def brisk(make_settings):
    """Make the rules of production with short times; PostgreSQL runs for longer than its grace."""
    return lambda **changed: make_settings(
        lease_s=1, lease_renew_s=0.5, reconcile_interval_s=0.5, postgres_grace_s=1, **changed
    )


@pytest.fixture
def silent_at(committed_database):
    """Have PostgreSQL freeze for longer than is no outage, in the first statement that says it."""
    heard = []

    def arm(words: str) -> None:
        def freeze(connection, cursor, statement, *_) -> None:
            if words in statement and not heard:
                heard.append(words)
                cursor.execute("SELECT pg_sleep(0.7)")

        event.listen(committed_database.engine, "before_cursor_execute", freeze)

    yield arm
    assert heard


IN_A_PASS = ["job.worker_lost", "pg_postmaster_start_time"]


@pytest.mark.parametrize("words", IN_A_PASS)
def test_a_pass_in_which_postgres_was_away_takes_nothing_from_holders(
    committed_database, brisk, make_claim, reload, silent_at, words
):
    held = make_claim(lease_s=-60)
    silent_at(words)
    reconciler = Reconciler(committed_database, brisk())
    reconciler.run_once()
    assert reload(held).status == "running"
    reconciler.close()


@pytest.mark.parametrize("words", [*IN_A_PASS, "dispatch_epoch="])
def test_nor_does_the_next_pass(
    committed_database, brisk, make_job, make_claim, due, reload, silent_at, words
):
    make_job()
    due()
    lost = make_claim(lease_s=-60)
    silent_at(words)
    reconciler = Reconciler(committed_database, brisk())
    reconciler.run_once()
    held = make_claim(lease_s=-60)
    reconciler.run_once()
    assert reload(held).status == "running"

    def are_taken() -> bool:
        reconciler.run_once()
        return all(reload(one).status == "pending" for one in (held, lost))

    assert processes.wait_until(are_taken, 10)
    reconciler.close()


def test_a_worker_whose_first_question_waits_for_the_end_of_an_outage_knows_of_it(
    committed_database, brisk, make_claim, reload, silent_at
):
    held = make_claim(lease_s=-60)
    silent_at("pg_try_advisory_xact_lock")
    reconciler = Reconciler(committed_database, brisk())
    reconciler.run_once()
    assert reload(held).status == "running"
    reconciler.close()


def test_that_redis_does_not_answer_is_no_outage_of_postgres(
    committed_database, brisk, make_claim, reload
):
    held = make_claim(lease_s=-60)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as hanging:
        url = f"redis://127.0.0.1:{hanging.getsockname()[1]}/0"
        reconciler = Reconciler(committed_database, brisk(celery_broker_url=url))
        reconciler.run_once()
        assert reload(held).status == "pending"
        again = make_claim(lease_s=-60)
        reconciler.run_once()
        assert reload(again).status == "pending"
        reconciler.close()


def test_whoever_wants_a_table_for_himself_need_not_wait_for_a_pass(
    committed_database, make_settings, make_job, due
):
    """As a migration does; the pass would wait for it in turn, until one of them gives up."""
    make_job()
    due()
    settings = make_settings(postgres_grace_s=0)
    with Broker(settings) as broker, committed_database.transaction() as lock:
        contact = contact_of(settings, None)
        repairs = Repairs(committed_database.transaction, settings, broker, contact)
        assert repairs.make(lock).sent == 1
        with committed_database.transaction() as migration:
            for table in Base.metadata.sorted_tables:
                migration.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT"))
