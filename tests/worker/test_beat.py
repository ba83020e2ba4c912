"""Beat fires from the rows, one of several leads, and RedBeat's entries follow the rows."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from redbeat.schedulers import RedBeatSchedulerEntry, get_redis
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from genonaut.db.models import Heartbeat, TaskRun
from genonaut.domain import schedule_clock, schedules
from genonaut.domain.schedule_clock import Step
from genonaut.domain.schedules import Terms
from genonaut.worker import beat, leadership, run, task
from genonaut.worker.leadership import Leadership
from genonaut.worker.projection import Projection, Repaired
from genonaut.worker.services import Services
from genonaut.worker.task import Overlap, TaskContext, TaskParams, TaskResult
from tests.reliability.program import until

SOON = datetime(2099, 1, 1, 12, tzinfo=UTC)
HOURLY = Terms(task="toys.tick", cron="0 * * * *")


class Result(TaskResult):
    n: int


@pytest.fixture(autouse=True)
def toys(declare):
    def tick(_: TaskContext, __: TaskParams) -> Result:
        """Tick."""
        return Result(n=1)

    declare(tick, "toys.tick", overlap=Overlap.ALLOW)


@pytest.fixture
def app(celery_app):
    """The Celery app without what RedBeat remembers of another test's Redis."""

    def forget():
        for name in ("redbeat_conf", "redbeat_redis"):
            celery_app.__dict__.pop(name, None)

    forget()
    yield celery_app
    if hasattr(celery_app, "redbeat_redis"):
        celery_app.redbeat_redis.close()
    forget()


@pytest.fixture
def make(database):
    def make_one(name, terms=HOURLY, *, due_at=SOON):
        with database.transaction() as session:
            return schedules.create(session, name, terms, next_due_at=due_at)

    return make_one


@pytest.fixture
def edit(database):
    def run(name, **values):
        with database.transaction() as session:
            return schedules.write(session, name, (), **values)

    return run


# --- the projection ------------------------------------------------------------------------


@pytest.fixture
def shown(app, database):
    return Projection(app, database)


@pytest.fixture
def entries(app):
    """Read the entries as RedBeat does: name, score and what is in it."""

    def read():
        conf = app.redbeat_conf
        found = get_redis(app).zrange(conf.schedule_key, 0, -1, withscores=True)
        return {
            entry.name: (score, entry)
            for key, score in found
            for entry in [RedBeatSchedulerEntry.from_key(key, app=app)]
        }

    return read


def test_each_row_has_an_entry_under_the_prefix(shown, make, entries, redis_client, settings):
    make("a")
    make("b", Terms(task="toys.tick", every_s=5), due_at=SOON + timedelta(hours=1))
    assert shown.repair() == Repaired(written=2)
    assert shown.repair() == Repaired()
    found = entries()
    assert {name: score for name, (score, _) in found.items()} == {
        "a": SOON.timestamp(),
        "b": SOON.timestamp() + 3600,
    }
    entry = found["a"][1]
    assert (entry.task, entry.enabled, entry.last_run_at) == ("toys.tick", True, None)
    assert entry.schedule.hour == set(range(24))
    assert entry.args == [0], "a message for it would name no run"
    keys = [key.decode() for key in redis_client.scan_iter()]
    assert keys
    assert all(key.startswith(f"{settings.redis_ns}:redbeat:") for key in keys)


def test_a_message_that_another_redbeat_sends_for_an_entry_is_dropped(
    shown, make, entries, task_services
):
    make("a")
    shown.repair()
    entry = entries()["a"][1]
    assert not run.run(task_services, task.find(entry.task), *entry.args, worker="worker-1")


@pytest.mark.parametrize("loss", ["hash", "score", "everything", "meddled", "moved"])
def test_what_is_lost_or_meddled_with_is_mended(shown, make, entries, redis_client, app, loss):
    for name in "abc":
        make(name)
    shown.repair()
    key, index = entries()["b"][1].key, app.redbeat_conf.schedule_key
    if loss == "hash":
        redis_client.delete(key)
    elif loss == "score":
        redis_client.zrem(index, key)
    elif loss == "everything":
        redis_client.flushdb()
    elif loss == "meddled":
        definition = json.loads(redis_client.hget(key, "definition"))
        redis_client.hset(key, "definition", json.dumps({**definition, "enabled": False}))
    else:
        redis_client.zadd(index, {key: 1})
    repaired = shown.repair()
    assert repaired.written + repaired.moved == (3 if loss == "everything" else 1)
    found = entries()
    assert {name: score for name, (score, _) in found.items()} == dict.fromkeys(
        "abc", SOON.timestamp()
    )
    assert all(entry.enabled for _, entry in found.values())
    assert shown.repair() == Repaired()


def test_entries_follow_firings_edits_pauses_and_removals(shown, make, edit, entries, database):
    make("a")
    make("b")
    make("c")
    shown.repair()
    now = datetime.now(UTC)
    with database.transaction() as session:
        later = SOON + timedelta(hours=1)
        schedule_clock.advance(session, [Step("a", SOON, SOON, later)])
        schedules.pause(session, "b", actor="ada", now=now)
        schedules.remove(session, "c")
    assert shown.repair() == Repaired(written=1, moved=1, removed=1)
    found = entries()
    assert set(found) == {"a", "b"}
    assert (found["a"][0], found["a"][1].last_run_at) == (later.timestamp(), SOON)
    assert (found["b"][0], found["b"][1].enabled) == (-1, False)
    edit("a", next_due_at=None, disabled_reason="why")
    edit("b", every_s=7, cron=None)
    assert shown.repair() == Repaired(written=1, removed=1)
    assert entries()["b"][1].schedule.run_every == timedelta(seconds=7)
    assert shown.repair() == Repaired()


def test_strangers_are_removed(shown, make, entries, redis_client, app):
    make("a")
    shown.repair()
    RedBeatSchedulerEntry("stranger", "x.y", entries()["a"][1].schedule, app=app).save()
    redis_client.zadd(app.redbeat_conf.schedule_key, {"elsewhere": 5})
    assert shown.repair() == Repaired(removed=2)
    assert set(entries()) == {"a"}


# --- who leads -----------------------------------------------------------------------------


@pytest.fixture
def two(app, monkeypatch):
    monkeypatch.setattr(leadership, "LOOK_S", 0)
    monkeypatch.setattr(leadership, "AWAY_S", 0)
    return Leadership(app), Leadership(app)


def test_one_of_two_leads_until_it_gives_up(two, app, redis_client):
    first, second = two
    assert (first.look(), second.look()) == (True, False)
    assert (first.has_lock, second.has_lock) == (True, False)
    lock = app.redbeat_conf.lock_key
    assert 15_000 < redis_client.pttl(lock) <= 20_000
    redis_client.pexpire(lock, 5000)
    assert first.look()
    assert redis_client.pttl(lock) > 15_000
    second.give_up()
    first.give_up()
    assert not redis_client.exists(lock)
    assert (second.look(), first.look()) == (True, False)
    second.give_up()


def test_who_steps_aside_leaves_the_lead_to_another(two):
    first, second = two
    assert first.look()
    first.step_aside()
    assert not first.look()
    assert (second.look(), first.look()) == (True, False)
    second.give_up()


def test_a_lost_lock_is_taken_again_or_left_to_whoever_has_it(two, app, redis_client):
    first, second = two
    first.look()
    redis_client.delete(app.redbeat_conf.lock_key)
    assert first.look()
    redis_client.delete(app.redbeat_conf.lock_key)
    assert second.look()
    assert not first.look()
    first.give_up()
    assert second.look(), "what it does not hold it does not free"


def test_without_redis_a_beat_works_and_afterwards_one_leads(two, valkey):
    first, second = two
    assert (first.look(), second.look()) == (True, False)
    valkey.kill9()
    try:
        assert (first.look(), second.look()) == (True, True)
        assert (first.has_lock, second.has_lock) == (False, False)
    finally:
        valkey.start()
    assert first.look() is not second.look()


# --- the loop ------------------------------------------------------------------------------


@pytest.fixture
def scheduler(app, committed_database, settings, monkeypatch):
    made = Services.connect(settings)
    made.database.close()
    services = Services(settings, committed_database, made.events, made.storage)
    monkeypatch.setattr(beat, "get_services", lambda: services)
    ours = beat.Scheduler(app=app, max_interval=5)
    yield ours
    ours.close()
    ours.close()  # as Celery does, once on SIGTERM and once at the end
    made.events.close()


def read_runs(database):
    with database.transaction() as session:
        return list(session.scalars(select(TaskRun).order_by(TaskRun.id)))


def test_what_is_due_is_stored_and_then_sent_once(
    scheduler, make, committed_database, redis_client, settings
):
    assert 0 < scheduler.tick() <= beat.IDLE_S
    passed = datetime.now(UTC) - timedelta(seconds=1)
    make("toys.often", Terms(task="toys.tick", every_s=3600), due_at=passed)
    assert scheduler.tick() == 0
    assert 0 < scheduler.tick() <= beat.IDLE_S
    [run] = read_runs(committed_database)
    assert run.due_at == passed
    queue = f"{settings.redis_ns}:default"
    until(lambda: redis_client.llen(queue), "the message is sent", 5)
    time.sleep(0.2)
    [message] = redis_client.lrange(queue, 0, -1)
    assert json.loads(message)["headers"]["id"] == run.celery_task_id


def test_redbeats_own_entries_send_nothing(scheduler, make, app, redis_client, settings):
    make("a", due_at=SOON)
    scheduler.tick()
    until(lambda: redis_client.zcard(app.redbeat_conf.schedule_key), "it is shown", 5)
    for key in redis_client.zrange(app.redbeat_conf.schedule_key, 0, -1):
        redis_client.zadd(app.redbeat_conf.schedule_key, {key: 1})  # overdue, to RedBeat
    for _ in range(3):
        scheduler.tick()
    assert not redis_client.exists(f"{settings.redis_ns}:default")
    assert "celery.backend_cleanup" not in str(list(redis_client.scan_iter()))


def test_its_heartbeat_says_what_it_does(scheduler, make, committed_database):
    make("a", due_at=datetime.now(UTC) - timedelta(seconds=30))
    scheduler.tick()
    with committed_database.transaction() as session:
        [row] = session.scalars(select(Heartbeat))
    assert (row.kind, row.info["role"]) == ("beat", "active")
    assert 29 < row.info["late_s"] < 60
    assert row.info["schedules"] > 1
    assert datetime.fromisoformat(row.info["tick_at"]) <= datetime.now(UTC)


def test_a_standby_fires_nothing_until_it_leads(scheduler, app, make, committed_database):
    other = Leadership(app)
    assert other.look()
    make("a", due_at=datetime.now(UTC) - timedelta(seconds=1))
    assert scheduler.tick() == leadership.LOOK_S
    assert read_runs(committed_database) == []
    with committed_database.transaction() as session:
        assert session.scalar(select(Heartbeat.info["role"].as_string())) == "standby"
    other.give_up()
    scheduler._leadership._look_at = 0.0
    scheduler.tick()
    assert len(read_runs(committed_database)) == 1


def test_it_outlives_an_absence_of_postgres(scheduler, make, committed_database, monkeypatch):
    def away(*_, **__):
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    make("a", due_at=datetime.now(UTC) - timedelta(seconds=1))
    scheduler.tick()
    with monkeypatch.context() as patched:
        patched.setattr(schedule_clock, "look", away)
        assert scheduler.tick() == beat.IDLE_S
        assert scheduler.tick() == beat.IDLE_S
    make("b", due_at=datetime.now(UTC) - timedelta(seconds=1))
    assert scheduler.tick() == 0
    assert len(read_runs(committed_database)) == 2


def test_whoever_stays_without_postgres_leaves_the_lead_to_another(scheduler, app, monkeypatch):
    def away(*_, **__):
        raise OperationalError("SELECT 1", {}, Exception("connection refused"))

    other = Leadership(app)
    scheduler.tick()
    assert not other.look()
    with monkeypatch.context() as patched:
        patched.setattr(schedule_clock, "look", away)
        patched.setattr(beat, "AWAY_S", 0.05)

        def is_left_to_the_other():
            scheduler.tick()
            other._look_at = 0.0
            return other.look()

        until(is_left_to_the_other, "another leads", 5)
    assert scheduler.tick() == leadership.LOOK_S
    other.give_up()
    scheduler._leadership._look_at = 0.0
    assert scheduler.tick() <= beat.IDLE_S
    assert scheduler._leadership.leads


def test_a_pause_that_is_over_ends_in_the_loop(scheduler, make, committed_database):
    scheduler.tick()  # it leads from now on
    make("a", due_at=datetime.now(UTC) - timedelta(hours=1))
    now = datetime.now(UTC)
    with committed_database.transaction() as session:
        end = now + timedelta(seconds=0.3)
        schedules.pause(session, "a", actor="ada", now=now, until=end)
    until(lambda: scheduler.tick() == 0, "the pause is over", 5)
    with committed_database.transaction() as session:
        row = schedules.one(session, "a")
    assert row.paused_at is None
    assert row.next_due_at > now
    assert read_runs(committed_database) == []


def test_a_pause_that_somebody_holds_keeps_no_other_from_being_fired(
    scheduler, make, committed_database
):
    scheduler.tick()  # it brings the code's, for which it waits
    now = datetime.now(UTC)
    make("a")
    make("b", due_at=now - timedelta(seconds=1))
    with committed_database.transaction() as session:
        schedules.pause(session, "a", actor="ada", now=now, until=now + timedelta(milliseconds=1))
    with committed_database.transaction() as held:
        schedules.one(held, "a", hold=True)
        scheduler.tick()
        assert [run.schedule for run in read_runs(committed_database)] == ["b"]


def test_a_fault_in_the_view_does_not_end_it(scheduler, make, app, redis_client, monkeypatch):
    repair, calls = Projection.repair, []

    def fail_once(self):
        calls.append(1)
        if len(calls) == 1:
            raise ValueError("what nobody thought of")
        return repair(self)

    monkeypatch.setattr(Projection, "repair", fail_once)
    monkeypatch.setattr(beat, "REPAIR_S", 0.05)
    make("a")
    scheduler.tick()
    until(lambda: redis_client.zcard(app.redbeat_conf.schedule_key), "it is shown", 5)
