"""What waits, who works, and what does not move."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import func, text

from genonaut.core.clock import utcnow
from genonaut.domain import health, heartbeats, runs, schedule_clock, schedules
from genonaut.domain.runs import Overlap
from genonaut.domain.schedules import Terms

AGO = func.now() - text("interval '10 minutes'")
NAMES = ("generation", "maintenance", "default")


@pytest.fixture
def queues(database):
    def read():
        with database.transaction() as session:
            states = health.queues(session, NAMES, job_queue="generation")
        return {state.queue: state for state in states}

    return read


def test_an_empty_house_names_every_queue(queues):
    assert list(queues()) == list(NAMES)
    assert queues()["default"].public() == {
        "queue": "default",
        "pending": 0,
        "due": 0,
        "running": 0,
        "unpublished": 0,
        "oldest_due_s": None,
        "claimed_s": None,
    }


def test_jobs_and_runs_are_counted_where_they_wait(
    queues, make_job, make_claim, make_run, make_run_claim
):
    make_job(available_at=AGO)
    make_claim()
    make_run(queue="maintenance")
    make_run_claim(make_run(queue="maintenance"))
    seen = queues()
    assert (seen["generation"].due, seen["generation"].running) == (1, 1)
    assert seen["generation"].unpublished == 1
    assert seen["generation"].oldest_due_s == pytest.approx(600, abs=5)
    assert (seen["maintenance"].due, seen["maintenance"].unpublished) == (1, 0)
    assert seen["maintenance"].claimed_s is not None


def test_a_queue_that_nobody_serves_any_more_is_shown_while_something_waits(queues, make_run):
    make_run(queue="elsewhere")
    assert queues()["elsewhere"].due == 1


def test_what_nobody_may_take_yet_is_pending_but_not_due(queues, database, make_job, make_run):
    make_job(available_at=func.now() + text("interval '1 hour'"))
    make_run(overlap=Overlap.WAIT)
    make_run(overlap=Overlap.WAIT)
    seen = queues()
    assert (seen["generation"].pending, seen["generation"].due) == (1, 0)
    assert (seen["default"].pending, seen["default"].due) == (2, 1)


def test_what_has_ended_does_not_count(queues, database, make_run):
    run = make_run()
    with database.transaction() as session:
        runs.request_cancel(session, run.id)
    assert queues()["default"].pending == 0


def test_a_queue_in_which_nothing_moves_is_stalled(queues, make_job, make_claim):
    make_job(available_at=AGO)
    assert queues()["generation"].is_stalled(60)
    assert not queues()["generation"].is_stalled(3600)
    assert not queues()["default"].is_stalled(60)
    make_claim()  # somebody works: this is a backlog
    assert not queues()["generation"].is_stalled(60)


LIMITS = health.Limits(oldest_due_s=600, stalled_s=60, free_mb=100)
WELL = health.ProcessState("w@a", "worker", 1, 9, {"queues": ["default"]})
NOT_LATE = health.Lateness()
BEAT = health.ProcessState("beat@a", "beat", 1, 9, {})


def state(**values):
    nothing = {"pending": 0, "due": 0, "running": 0, "unpublished": 0}
    ages = {"oldest_due_s": None, "claimed_s": None}
    return health.QueueState("default", **{**nothing, **ages, **values})


def red(queue=None, alive=(WELL, BEAT), late=NOT_LATE):
    checks = health.judge([queue or state()], list(alive), late=late, limits=LIMITS)
    return [check.name for check in checks if not check.ok]


def test_a_disk_is_well_while_it_has_room_and_answers():
    found = [health.disk(100, LIMITS), health.disk(99, LIMITS), health.broken_disk("no answer")]
    assert [(check.name, check.ok) for check in found] == [
        ("disk", True),
        ("disk", False),
        ("disk", False),
    ]
    assert (found[1].value, found[1].limit, found[2].detail) == (99, 100, "no answer")


def test_all_is_well_when_nothing_waits_and_everyone_reports():
    assert red() == []


@pytest.mark.parametrize(
    ("found", "wrong"),
    [
        ({"alive": ()}, ["beat", "workers.default"]),
        ({"alive": (WELL, replace(BEAT, seen_s=46))}, ["beat"]),
        ({"alive": (replace(WELL, seen_s=61), BEAT)}, ["workers.default"]),
        ({"queue": state(pending=1, due=1, oldest_due_s=61)}, ["queue.default"]),
        ({"queue": state(pending=1, due=1, running=1, oldest_due_s=61)}, []),
        ({"queue": state(pending=1, due=1, running=1, oldest_due_s=601)}, ["queue.default"]),
        ({"queue": state(unpublished=3)}, ["messages"]),
        ({"late": health.Lateness(50)}, []),
        ({"late": health.Lateness(61, 2, "nightly")}, ["schedules"]),
    ],
)
def test_what_is_wrong_is_named(found, wrong):
    assert red(**found) == wrong


def test_processes_say_when_they_were_seen(database):
    with database.transaction() as session:
        info = {"queues": ["default"], "pid": 7, "concurrency": 2}
        heartbeats.beat(session, "w@a", kind="worker", started_at=utcnow(), info=info)
        heartbeats.beat(session, "beat@a", kind="beat", started_at=utcnow(), info={})
        session.execute(
            text("UPDATE heartbeats SET seen_at = now() - interval '2 min' WHERE kind = 'beat'")
        )
        worker, beat = health.processes(session)
    assert worker.public()["queues"] == ["default"]
    assert (worker.is_alive, beat.is_alive) == (True, False)
    assert beat.public()["seen_s"] == pytest.approx(120, abs=5)


def test_what_may_fire_and_does_not_is_late(session):
    def make(name, ago_s):
        due_at = schedule_clock.look(session).now - timedelta(seconds=ago_s)
        return schedules.create(session, name, Terms(task="x", every_s=60), next_due_at=due_at)

    def late(row):
        return health.late_s(row, schedule_clock.look(session))

    assert health.lateness(session) == health.Lateness()
    to_come, soon = make("to.come", -60), make("soon", 50)
    assert late(to_come) == 0
    assert late(soon) == pytest.approx(50, abs=2)
    found = health.lateness(session)
    assert (found.count, found.first) == (0, None)
    assert found.late_s == pytest.approx(50, abs=2)

    make("a", 90)
    oldest, paused = make("b", 100), make("paused", 200)
    now = schedule_clock.look(session).now
    schedules.pause(session, "paused", actor="olga", now=now)
    found = health.lateness(session)
    assert (found.count, found.first) == (2, "b")
    assert found.late_s == pytest.approx(100, abs=2)
    assert late(paused) == 0
    assert late(oldest) == pytest.approx(100, abs=2)

    schedules.pause_all(session, actor="olga", now=now)
    assert health.lateness(session) == health.Lateness()
    assert late(oldest) == 0
