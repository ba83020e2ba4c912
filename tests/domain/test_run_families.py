"""Runs that wait for those they started."""

import threading
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from genonaut.core.clock import utcnow
from genonaut.domain import run_attempts, run_families, run_history, runs
from genonaut.domain.run_attempts import Failure
from genonaut.domain.runs import RUNS
from tests.support.simulator import wait_until


@pytest.fixture
def family(make_run_claim, make_run, database):
    """A run that waits for two that it started, and claims on these."""
    parent = make_run_claim()
    with database.transaction() as session:
        run_attempts.report(session, parent, progress={"phase": "running", "total": 8})
    claims = [make_run_claim(make_run(parent_id=parent.row_id)) for _ in range(2)]
    with database.transaction() as session:
        run_attempts.wait_for_children(session, parent, progress={"phase": "running", "total": 8})
    return parent.run, *claims


def complete(database, held, **result):
    with database.transaction() as session:
        run_attempts.complete(session, held, result)


def test_a_waiting_run_holds_no_slot_and_no_attempt_and_goes_on_after_the_last(
    family, database, reload
):
    parent, one, two = family
    row = reload(parent)
    assert (row.status, row.attempt) == ("pending", 0)
    assert row.progress == {"phase": "waiting_for_children", "total": 8}
    complete(database, one, n=1)
    assert reload(parent).available_at == row.available_at > utcnow() + timedelta(seconds=30)
    complete(database, two, n=2)
    assert reload(parent).available_at <= utcnow()
    with database.transaction() as session:
        found = run_families.children(session, [one.row_id, two.row_id])
    assert [(child.status, child.result) for child in found] == [
        ("completed", {"n": 1}),
        ("completed", {"n": 2}),
    ]
    assert all(child.has_ended for child in found)


@pytest.mark.parametrize("has_child", [True, False])
def test_a_run_that_nothing_will_wake_looks_again_soon_and_not_at_once(
    make_run_claim, make_run, database, reload, has_child
):
    """Its children have ended already, or it waits for a run that another started."""
    parent = make_run_claim()
    if has_child:
        complete(database, make_run_claim(make_run(parent_id=parent.row_id)))
    with database.transaction() as session:
        run_attempts.wait_for_children(session, parent)
    row = reload(parent.run)
    assert row.available_at - row.updated_at == timedelta(seconds=run_attempts.LOOK_SOON_S)
    assert row.progress["phase"] == "waiting_for_children"


def test_two_that_end_at_the_same_moment_wake_the_parent(committed_database, family, reload):
    parent, *claims = family
    gate = threading.Barrier(2)

    def end(held):
        with committed_database.transaction() as session:
            RUNS.write(session, held.row_id, token=held.token, result=None)
            gate.wait(5)
            run_attempts.complete(session, held, {})

    threads = [threading.Thread(target=end, args=(held,)) for held in claims]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert reload(parent).available_at <= utcnow()


def test_only_a_run_that_waits_for_its_children_is_woken(
    make_run_claim, make_run, database, reload
):
    parent = make_run_claim()
    child = make_run_claim(make_run(parent_id=parent.row_id))
    with database.transaction() as session:
        run_attempts.pause(session, parent, for_s=90, reason="the disk is short")
    complete(database, child)
    row = reload(parent.run)
    assert row.available_at > utcnow() + timedelta(seconds=60)
    assert (row.status, row.attempt) == ("pending", 0)
    assert row.progress == {"phase": "paused", "reason": "the disk is short"}


def test_children_show_how_far_they_are_together(family, database, reload):
    parent, one, two = family
    for held, done in ((one, 3), (two, 1), (one, 4), (one, 2)):
        with database.transaction() as session:
            run_attempts.report(session, held, progress={"done": done, "total": 4})
            run_families.show_sum(session, parent.id)
    shown = reload(parent).progress
    assert shown["phase"] == "waiting_for_children"
    assert (shown["total"], shown["done"], shown["percent"]) == (8, 5, 62)


def test_children_show_how_fast_they_are_together(committed_database, family, reload):
    parent, one, _ = family
    with committed_database.transaction() as session:
        run_attempts.report(session, one, progress={"done": 3, "total": 4})
        run_families.show_sum(session, parent.id)
    assert " a second, " in reload(parent).progress["message"]


def test_a_cancel_reaches_those_the_run_started(family, make_run, database, reload):
    parent, one, two = family
    waiting = make_run(parent_id=parent.id)
    complete(database, two)
    with database.transaction() as session:
        assert runs.request_cancel(session, parent.id).status == "cancelled"
    assert reload(waiting).status == "cancelled"
    assert reload(one.run).cancel_requested_at is not None
    assert reload(two.run).status == "completed"


def test_what_a_run_starts_after_its_cancel_was_asked_for_is_cancelled_with_it(
    make_run_claim, make_run, database, reload
):
    parent = make_run_claim()
    with database.transaction() as session:
        runs.request_cancel(session, parent.row_id)
    child = make_run(parent_id=parent.row_id)
    with database.transaction() as session:
        run_attempts.wait_for_children(session, parent)
        runs.close_cancelled(session, runs.one(session, parent.row_id))
    assert (reload(parent.run).status, reload(child).status) == ("cancelled", "cancelled")


def test_a_child_that_is_cancelled_wakes_its_parent_too(family, database, reload):
    parent, one, two = family
    complete(database, one)
    with database.transaction() as session:
        runs.request_cancel(session, two.row_id)
        run_attempts.cancelled(session, two)
    assert reload(parent).available_at <= utcnow()


def test_cancelling_a_family_does_not_deadlock_with_its_ends(committed_database, family, reload):
    parent, one, _ = family
    ready = threading.Event()

    def end():
        with committed_database.transaction() as session:
            RUNS.write(session, one.row_id, token=one.token, result=None)
            ready.set()
            run_attempts.complete(session, one, {})

    thread = threading.Thread(target=end)
    thread.start()
    ready.wait(5)
    with committed_database.transaction() as session:
        runs.request_cancel(session, parent.id)
    thread.join(10)
    assert (reload(parent).status, reload(one.run).status) == ("cancelled", "completed")


def test_a_parent_that_is_cancelled_while_it_runs_does_not_deadlock_with_its_children(
    committed_database, make_run_claim, make_run, reload
):
    parent = make_run_claim()
    one = make_run_claim(make_run(parent_id=parent.row_id))
    with committed_database.transaction() as session:
        runs.request_cancel(session, parent.row_id)
    ready = threading.Event()
    failures = []

    def end():
        try:
            with committed_database.transaction() as session:
                RUNS.write(session, one.row_id, token=one.token, result=None)
                ready.set()
                until_somebody_waits(committed_database)
                run_attempts.cancelled(session, one)
        except OperationalError as error:
            failures.append(error)

    thread = threading.Thread(target=end)
    thread.start()
    ready.wait(5)
    with committed_database.transaction() as session:
        run_attempts.cancelled(session, parent)
    thread.join(10)
    assert failures == []
    assert (reload(parent.run).status, reload(one.run).status) == ("cancelled", "cancelled")


def until_somebody_waits(database):
    def waits():
        with database.transaction() as session:
            return session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))

    wait_until(waits)


def test_what_children_could_not_do_is_listed_once_with_their_parent(
    make_run_claim, make_run, database, reload
):
    parent = make_run_claim()
    children = [make_run_claim(make_run(parent_id=parent.row_id)) for _ in range(2)]
    for n, held in enumerate(children):
        with database.transaction() as session:
            run_attempts.fail_items(session, held, [Failure(f"{n}.png", "broken")])
    for _ in range(2):
        with database.transaction() as session:
            run_attempts.take_failures(session, parent, [held.row_id for held in children])
    with database.transaction() as session:
        assert [f.ref for f in run_history.failures(session, parent.row_id)] == ["0.png", "1.png"]
    assert reload(parent.run).failed_items == 2
