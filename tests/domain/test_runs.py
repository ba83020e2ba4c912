"""Runs are taken in once, do not overlap unless they may, and can be stopped and repeated."""

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.db.models import TaskRun
from genonaut.domain import runs
from genonaut.domain.runs import AlreadyRunningError, NewRun, Overlap, Trigger

DUE = datetime(2026, 3, 1, 2, 30, tzinfo=UTC)


@pytest.fixture
def ask(database):
    def run(**fields):
        request = NewRun(**{"task": "toys.count", "queue": "default", "trigger": "api", **fields})
        with database.transaction() as session:
            return runs.trigger(session, request)

    return run


def count(database, **where):
    with database.transaction() as session:
        return session.scalar(select(func.count()).select_from(TaskRun).filter_by(**where))


def test_a_run_begins_pending_and_is_told_once(database, ask):
    told = []
    database.sinks.append(told.extend)
    taken = ask(params={"n": 1}, actor="ada", reason="because")
    assert taken.is_new
    assert (taken.run.status, taken.run.params, taken.run.actor) == ("pending", {"n": 1}, "ada")
    [event] = told
    assert event.topics == (f"run:{taken.run.id}", "admin")
    assert event.row == runs.public(taken.run)
    assert not event.final


def test_a_second_click_gives_the_run_of_the_first(ask, database):
    first, second = ask(params={"n": 1}), ask(params={"n": 1})
    assert (second.run.id, second.is_new) == (first.run.id, False)
    assert count(database) == 1


def test_something_else_is_refused_while_one_runs_and_names_it(ask, database):
    first = ask(params={"n": 1})
    with pytest.raises(AlreadyRunningError) as refused:
        ask(params={"n": 2})
    assert refused.value.run_id == first.run.id
    assert f"run {first.run.id} " in str(refused.value)
    with pytest.raises(AlreadyRunningError):
        ask(params={"n": 1}, dry_run=True)
    assert count(database) == 1


def test_another_key_or_task_is_no_overlap(ask, database):
    ask(overlap_key="a")
    ask(overlap_key="b")
    ask(task="toys.sum", overlap_key="a")
    assert count(database) == 3


def test_allow_stores_every_run(ask, database):
    assert all(ask(overlap=Overlap.ALLOW).is_new for _ in range(3))
    assert count(database, overlap_key=None) == 3


def test_one_more_run_waits_and_stands_for_all_that_follow(ask, database):
    def again():
        return ask(overlap=Overlap.WAIT)

    first, second, third = again(), again(), again()
    assert [first.run.held_back, second.run.held_back] == [False, True]
    assert (third.run.id, third.is_new) == (second.run.id, False)
    with pytest.raises(AlreadyRunningError):
        ask(overlap=Overlap.WAIT, params={"n": 9})


def test_what_was_held_back_begins_when_the_first_is_gone(ask, database, reload):
    first, second = ask(overlap=Overlap.WAIT), ask(overlap=Overlap.WAIT)
    with database.transaction() as session:
        assert runs.begin_held_back(session, second.run.id) is None
        runs.request_cancel(session, first.run.id)
    assert not reload(second.run).held_back
    assert reload(first.run).status == "cancelled"


def test_a_due_time_has_one_run_whoever_asks_again(ask, database):
    due = {"schedule": "nightly", "due_at": DUE, "trigger": Trigger.SCHEDULE}
    first = ask(**due, overlap=Overlap.ALLOW, covers=(DUE,))
    second = ask(**due, overlap=Overlap.ALLOW)
    assert (second.run.id, second.is_new) == (first.run.id, False)
    assert first.run.covers == [DUE.isoformat()]


@pytest.mark.parametrize("overlap", [Overlap.SKIP, Overlap.WAIT])
def test_a_due_time_that_meets_a_run_is_recorded_as_skipped(ask, database, overlap):
    live = ask(params={"n": 1}, overlap=overlap)
    if overlap is Overlap.WAIT:
        ask(params={"n": 1}, overlap=overlap)
    taken = ask(overlap=overlap, schedule="nightly", due_at=DUE, trigger=Trigger.SCHEDULE)
    assert (taken.run.status, taken.is_new) == ("skipped", True)
    assert taken.run.reason.startswith("run ")
    assert taken.run.completed_at is not None
    assert count(database, status="pending") == (2 if overlap is Overlap.WAIT else 1)
    assert live.run.id != taken.run.id


def test_cancelling_is_at_once_while_pending_and_harmless_twice(ask, database):
    run = ask().run
    with database.transaction() as session:
        assert runs.request_cancel(session, run.id).status == "cancelled"
        assert runs.request_cancel(session, run.id).status == "cancelled"
        with pytest.raises(NotFoundError):
            runs.request_cancel(session, run.id + 1)


def test_a_failed_run_is_repeated_from_its_checkpoint(ask, database):
    old = ask(params={"n": 3}).run
    with database.transaction() as session:
        runs.RUNS.note(session, old.id, (), checkpoint={"at": 7})
        runs.RUNS.move(session, old.id, runs.Status.FAILED, error_code="oops")
    request = NewRun(task="toys.count", queue="default", trigger=Trigger.API, params={"n": 3})
    with database.transaction() as session:
        taken = runs.again(session, old.id, request)
    assert taken.is_new
    assert (taken.run.retry_of, taken.run.checkpoint) == (old.id, {"at": 7})
    with database.transaction() as session, pytest.raises(ConflictError, match="only a failed"):
        runs.again(session, taken.run.id, request)


def test_lists_are_newest_first_and_filtered(ask, database):
    ids = [ask(task=f"toys.t{i}", overlap_key=str(i)).run.id for i in range(4)]
    with database.transaction() as session:
        runs.request_cancel(session, ids[0])
        listed = runs.list_runs(session, before=ids[3], limit=2)
        assert [run.id for run in listed] == [ids[2], ids[1]]
        assert [run.id for run in runs.list_runs(session, statuses=["cancelled"])] == [ids[0]]
        assert [run.id for run in runs.list_runs(session, tasks=["toys.t1"])] == [ids[1]]
        others = runs.list_runs(session, except_task="toys.t1")
        assert [run.id for run in others] == [ids[3], ids[2], ids[0]]


@pytest.mark.parametrize("overlap", list(Overlap))
def test_twenty_at_once_leave_what_the_policy_allows(committed_database, overlap):
    together = threading.Barrier(20)
    got, refused = [], []

    def ask() -> None:
        together.wait()
        request = NewRun("toys.count", "default", Trigger.API, overlap=overlap)
        try:
            with committed_database.transaction() as session:
                got.append(runs.trigger(session, request))
        except ConflictError as error:
            refused.append(error)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    expected = {Overlap.SKIP: 1, Overlap.WAIT: 2, Overlap.ALLOW: 20}[overlap]
    assert sum(taken.is_new for taken in got) == expected
    assert count(committed_database) == expected
    assert len(got) == 20
