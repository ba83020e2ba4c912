"""Each due time has one run, or is covered by one, whoever fires and however late."""

import threading
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import Field
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from genonaut.core.errors import ConflictError
from genonaut.db.models import Schedule, TaskRun
from genonaut.domain import runs, schedule_clock, schedules
from genonaut.domain.schedules import Missed, Terms
from genonaut.worker import defaults, firing
from genonaut.worker.firing import fire_due, jitter
from genonaut.worker.reckoning import due_after, reckon_after
from genonaut.worker.task import Overlap, TaskContext, TaskParams, TaskResult

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
TICK = Terms(task="toys.tick", cron="0 * * * *")


class Params(TaskParams):
    n: int = Field(default=1, description="How many.")
    key: str | None = Field(default=None, description="Read by the overlap key.")


class Result(TaskResult):
    n: int


@pytest.fixture(autouse=True)
def toys(declare):
    def count(_: TaskContext, params: Params) -> Result:
        """Count."""
        return Result(n=params.n)

    declare(count, "toys.tick", overlap=Overlap.ALLOW)
    declare(count, "toys.alone", overlap=Overlap.SKIP)
    declare(count, "toys.keyed", overlap_key=lambda params: params.key.upper())
    declare(count, "toys.nul", overlap_key=lambda params: f"{params.n}\0")


@pytest.fixture
def make(database):
    """Store a schedule, due at a given time."""

    def make_one(name="toys.hourly", terms=TICK, *, due_at=NOON):
        with database.transaction() as session:
            return schedules.create(session, name, terms, next_due_at=due_at)

    return make_one


@pytest.fixture
def rows(database):
    """Give the runs in order, without what nobody compares."""

    def read(schedule=None):
        query = select(TaskRun).order_by(TaskRun.id)
        if schedule:
            query = query.where(TaskRun.schedule == schedule)
        with database.transaction() as session:
            return list(session.scalars(query))

    return read


@pytest.fixture
def state(database):
    def read(name="toys.hourly"):
        with database.transaction() as session:
            return schedules.one(session, name)

    return read


def covered(run):
    return [datetime.fromisoformat(each) for each in run.covers or []]


def test_what_is_due_becomes_a_run_and_moves_on(database, make, rows, state):
    make(terms=replace(TICK, params={"n": 5}))
    assert fire_due(database, NOON - SECOND) == 0
    told = []
    database.sinks.append(told.extend)
    assert fire_due(database, NOON + SECOND) == 1
    [run] = rows()
    assert (run.schedule, run.due_at, run.covers) == ("toys.hourly", NOON, None)
    assert (run.trigger, run.actor, run.status) == ("schedule", "beat", "pending")
    assert run.params == {"n": 5, "key": None}
    assert (state().last_due_at, state().next_due_at) == (NOON, NOON + HOUR)
    assert [(event.id, event.row["status"]) for event in told] == [(run.id, "pending")]
    assert fire_due(database, NOON + SECOND) == 0


def test_f22_one_run_stands_for_every_hour_of_an_outage(database, make, rows, state):
    make()
    assert fire_due(database, NOON + 2 * HOUR + 60 * SECOND) == 1
    [run] = rows()
    assert (run.due_at, run.status) == (NOON + 2 * HOUR, "pending")
    assert covered(run) == [NOON, NOON + HOUR]
    assert state().next_due_at == NOON + 3 * HOUR


@pytest.mark.parametrize(("late", "status"), [(5.9, "pending"), (6.1, "skipped")])
def test_f22_a_nightly_that_is_too_late_is_recorded_as_skipped(database, make, rows, late, status):
    nightly = Terms(task="toys.tick", cron="0 2 * * *", missed=Missed.SKIP, late_limit_s=6 * 3600)
    at = datetime(2026, 3, 5, 2, tzinfo=UTC)
    make(terms=nightly, due_at=at)
    assert fire_due(database, at + late * HOUR) == 1
    [run] = rows()
    assert (run.due_at, run.status) == (at, status)
    if status == "skipped":
        assert run.reason == "21960 s late, over the limit of 21600 s"


def test_more_than_a_run_may_cover_makes_another(database, make, rows, monkeypatch):
    monkeypatch.setattr(firing, "MAX_COVERED", 4)
    make(terms=Terms(task="toys.tick", every_s=1))
    assert fire_due(database, NOON + 9 * SECOND) == 3
    accounted = [moment for run in rows() for moment in (*covered(run), run.due_at)]
    assert accounted == [NOON + n * SECOND for n in range(10)]


def test_reckoning_for_long_is_no_reason_for_postgres_to_end_it(
    committed_database, make, rows, monkeypatch
):
    due_times = firing.due_times

    def slow(*args, **options):
        time.sleep(0.12)
        return due_times(*args, **options)

    short = text("SET LOCAL idle_in_transaction_session_timeout = '300ms'")
    monkeypatch.setattr(schedule_clock, "_GIVE_UP_WHEN_FROZEN", short)
    monkeypatch.setattr(firing, "SHOW_LIFE_S", 0.05)
    monkeypatch.setattr(firing, "due_times", slow)
    for name in "abcd":
        make(f"toys.{name}")
    assert fire_due(committed_database, NOON) == 4


def test_two_who_fire_at_once_make_one_run_per_due_time(committed_database, make, rows):
    database = committed_database
    names = [f"s{n}" for n in range(20)]
    for name in names:
        make(name, Terms(task="toys.tick", every_s=1))
    problems = []

    def fire():
        try:
            for second in range(10):
                barrier.wait(20)
                fire_due(database, NOON + second * SECOND)
        except Exception as error:
            problems.append(error)
            barrier.abort()
            raise

    barrier = threading.Barrier(3)
    threads = [threading.Thread(target=fire) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    fire_due(database, NOON + 9 * SECOND)  # what one held while another looked
    moments = Counter(
        (run.schedule, moment) for run in rows() for moment in (run.due_at, *covered(run))
    )
    assert moments == Counter((name, NOON + n * SECOND) for name in names for n in range(10))


def test_a_due_time_that_has_its_run_gets_no_other(database, make, rows, state):
    make()
    fire_due(database, NOON)
    with database.transaction() as session:  # as after a restore of the table alone
        schedules.write(session, "toys.hourly", (), next_due_at=NOON)
    fire_due(database, NOON)
    assert len(rows()) == 1
    with database.transaction() as session:
        schedules.write(session, "toys.hourly", (), next_due_at=NOON, missed="skip")
    fire_due(database, NOON + HOUR - SECOND)
    assert [(run.due_at, run.status) for run in rows()] == [(NOON, "pending")]
    assert state().next_due_at == NOON + HOUR


def test_a_clock_that_steps_back_fires_nothing_twice_and_forward_covers(database, make, rows):
    make()
    fire_due(database, NOON)
    assert fire_due(database, NOON - HOUR) == 0
    assert fire_due(database, NOON) == 0
    assert fire_due(database, NOON + 3 * HOUR) == 1
    assert fire_due(database, NOON + HOUR) == 0
    first, second = rows()
    assert (first.due_at, second.due_at) == (NOON, NOON + 3 * HOUR)
    assert covered(second) == [NOON + HOUR, NOON + 2 * HOUR]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29), 23),  # noqa: DTZ001
        ("Europe/Berlin", datetime(2026, 10, 25), 25),  # noqa: DTZ001
        ("America/New_York", datetime(2026, 3, 8), 23),  # noqa: DTZ001
        ("America/New_York", datetime(2026, 11, 1), 25),  # noqa: DTZ001
    ],
)
def test_f26_the_days_on_which_clocks_change(database, make, rows, zone, day, hours):
    from zoneinfo import ZoneInfo

    begin = day.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    end = (day + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    for name, cron in (
        ("hourly", "0 * * * *"),
        ("daily", "30 2 * * *"),
        ("quarter", "*/15 * * * *"),
    ):
        terms = Terms(task="toys.tick", cron=cron, timezone=zone)
        make(name, terms, due_at=due_after(terms, begin - SECOND))
    now = begin
    while now < end:
        fire_due(database, now)
        now += timedelta(minutes=5)
    assert [len(rows(n)) for n in ("hourly", "daily", "quarter")] == [hours, 1, 4 * hours]
    assert all(run.covers is None for run in rows())


def test_f28_another_time_zone_makes_each_due_once_after_now(database, make, rows):
    names = [f"s{n:04}" for n in range(1000)]
    terms = Terms(task="toys.tick", cron="0 9 * * *")
    moved = replace(terms, timezone="Asia/Tokyo")
    with database.transaction() as session:
        for name in names:
            schedules.create(session, name, terms, next_due_at=due_after(terms, NOON))
        for name in names:
            next_due_at = due_after(moved, NOON)
            schedules.change(session, name, moved, version=1, next_due_at=next_due_at)
        due = set(session.scalars(select(Schedule.next_due_at)))
    assert due == {datetime(2026, 3, 5, 0, tzinfo=UTC)}
    assert fire_due(database, NOON) == 0
    assert rows() == []


def test_what_fell_into_a_pause_is_not_made_up(database, make, rows):
    make()
    with database.transaction() as session:
        until = NOON + 5 * HOUR
        schedules.pause(session, "toys.hourly", actor="ada", now=NOON - HOUR, until=until)
    assert fire_due(database, NOON + 3 * HOUR) == 0
    assert firing.end_pauses(database, NOON + 5 * HOUR - SECOND) == 0
    assert firing.end_pauses(database, NOON + 5 * HOUR + SECOND) == 1
    assert fire_due(database, NOON + 5 * HOUR + SECOND) == 0
    assert fire_due(database, NOON + 6 * HOUR) == 1
    [run] = rows()
    assert (run.due_at, run.covers) == (NOON + 6 * HOUR, None)


def test_nothing_fires_while_all_are_paused(database, make, rows):
    make()
    with database.transaction() as session:
        schedules.pause_all(session, actor="ada", now=NOON)
    assert fire_due(database, NOON + HOUR) == 0
    with database.transaction() as session:
        schedules.resume_all(session, reckon_after(NOON + HOUR), now=NOON + HOUR)
    assert fire_due(database, NOON + HOUR) == 0
    assert fire_due(database, NOON + 2 * HOUR) == 1
    assert rows()[0].covers is None


@pytest.mark.parametrize(
    ("terms", "reason"),
    [
        (Terms(task="toys.gone", every_s=5), "there is no task 'toys.gone'"),
        (
            Terms(task="toys.tick", every_s=5, params={"m": 1}),
            "params.m: Extra inputs are not permitted",
        ),
        (
            Terms(task="toys.tick", cron="0 0 * * *", timezone="Mars/Base"),
            "there is no time zone 'Mars/Base'",
        ),
        (Terms(task="toys.tick", cron="x"), "a cron has five fields"),
        (Terms(task="toys.nul", every_s=5), "A string literal cannot contain NUL"),
        (Terms(task="toys.keyed", every_s=5), "'NoneType' object has no attribute 'upper'"),
    ],
)
def test_one_that_cannot_be_run_is_disabled_and_keeps_no_other(
    database, make, rows, state, terms, reason
):
    make("bad", terms)
    make("good")
    assert fire_due(database, NOON) == 1
    assert [run.schedule for run in rows()] == ["good"]
    bad = state("bad")
    assert bad.disabled_reason.startswith(reason)
    assert (bad.next_due_at, bad.last_due_at, bad.version) == (None, None, 2)
    assert fire_due(database, NOON) == 0


@pytest.mark.parametrize("error", [ConflictError("too fast"), SQLAlchemyError("refused")])
def test_one_that_the_database_refuses_stays_due_and_keeps_no_other(
    database, make, rows, state, monkeypatch, error
):
    trigger = runs.trigger

    def refuse(session, request):
        if request.schedule == "bad":
            raise error
        return trigger(session, request)

    monkeypatch.setattr(runs, "trigger", refuse)
    monkeypatch.setattr(firing, "BATCH", 1)
    make("bad", due_at=NOON - HOUR)
    make("good")
    assert fire_due(database, NOON) == 1
    assert (state("bad").next_due_at, state("bad").disabled_reason) == (NOON - HOUR, None)
    monkeypatch.undo()
    assert fire_due(database, NOON) == 1
    assert [run.schedule for run in rows()] == ["good", "bad"]


def test_f27_a_due_time_during_the_run_before_is_recorded_as_skipped(database, make, rows):
    make(terms=replace(TICK, task="toys.alone"))
    fire_due(database, NOON)
    fire_due(database, NOON + HOUR)
    first, second = rows()
    assert (first.status, second.status) == ("pending", "skipped")
    assert second.reason == f"run {first.id} was still pending"


def test_f27_a_schedules_own_policy_comes_before_the_tasks(database, make, rows):
    make("wait", replace(TICK, task="toys.alone", overlap=Overlap.WAIT))
    for n in range(3):
        fire_due(database, NOON + n * HOUR)
    assert [(run.status, run.held_back) for run in rows()] == [
        ("pending", False),
        ("pending", True),
        ("skipped", False),
    ]


def test_jitter_delays_the_start_not_the_due_time(database, make, rows):
    make(terms=replace(TICK, jitter_s=600))
    fire_due(database, NOON)
    [run] = rows()
    assert run.due_at == NOON
    assert run.available_at == NOON + jitter("toys.hourly", NOON, 600)
    delays = [jitter("toys.hourly", NOON + n * HOUR, 600) for n in range(1000)]
    assert timedelta() <= min(delays) < 30 * SECOND
    assert timedelta(seconds=570) < max(delays) < timedelta(seconds=600)
    assert jitter("toys.hourly", NOON, 0) == timedelta()
    assert jitter("toys.daily", NOON, 600) != jitter("toys.hourly", NOON, 600)


def test_a_late_run_is_not_delayed_further(database, make, rows):
    make(terms=replace(TICK, jitter_s=10))
    with database.transaction() as session:
        now = session.scalar(select(func.now()))
    fire_due(database, NOON + 30 * SECOND)
    assert rows()[0].available_at == now or rows()[0].available_at > now


def test_a_pass_ends_when_its_time_is_up(database, make, rows):
    make()
    assert fire_due(database, NOON, for_s=0) == 0
    assert rows() == []


def test_synchronise_brings_the_code_and_starts_nothing(database, rows, state):
    changes = firing.synchronise(database)
    assert changes.added == list(defaults.declared())
    assert firing.synchronise(database).added == []
    hourly = state("content.refresh_stats.hourly")
    with database.transaction() as session:
        now = session.scalar(text("SELECT now()"))
    assert now < hourly.next_due_at <= now + HOUR
    assert rows() == []


def test_covers_are_stored_in_order(database, make, rows):
    make(terms=Terms(task="toys.tick", every_s=1))
    fire_due(database, NOON + 5000 * SECOND)
    [run] = rows()
    assert covered(run) == [NOON + n * SECOND for n in range(5000)]
