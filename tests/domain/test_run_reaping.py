"""Runs that are stuck move on."""

from functools import partial

import pytest
from sqlalchemy import update

from genonaut.core.errors import LeaseLostError
from genonaut.db.models import TaskRun
from genonaut.domain import run_attempts, run_reaping, runs
from genonaut.domain.runs import Overlap
from tests.support.reaping import sweep


@pytest.fixture
def reap(database):
    return partial(sweep, database, run_reaping.WORKER_LOST)


def test_a_live_lease_is_left_alone(reap, make_run_claim):
    make_run_claim()
    make_run_claim(lease_s=-3)
    assert not reap()


def test_a_lost_run_goes_on_from_its_checkpoint(database, reap, make_run_claim, reload):
    held = make_run_claim(lease_s=-60)
    with database.transaction() as session:
        run_attempts.checkpoint(session, held, {"at": 40})
    assert reap() == {"pending": [held.run.id]}
    run = reload(held.run)
    assert (run.status, run.checkpoint, run.dispatched_at) == ("pending", {"at": 40}, None)
    assert run.progress["reason"] == "worker worker-1 lost, attempt 1 of 4"


def test_a_run_that_kills_its_workers_ends(reap, make_run, make_run_claim, reload):
    held = make_run_claim(make_run(max_attempts=1), lease_s=-60)
    assert reap() == {"failed": [held.run.id]}
    assert (reload(held.run).status, reload(held.run).error_code) == ("failed", "worker_lost")


def test_a_lost_run_that_was_cancelled_is_cancelled_and_the_next_begins(
    database, reap, make_run, make_run_claim, reload
):
    held = make_run_claim(make_run(overlap=Overlap.WAIT), lease_s=-60)
    waiting = make_run(overlap=Overlap.WAIT)
    with database.transaction() as session:
        runs.request_cancel(session, held.run.id)
    assert reap() == {"cancelled": [held.run.id]}
    assert not reload(waiting).held_back


def test_a_cancel_of_a_run_that_was_given_back_is_closed(database, make_run_claim, reload):
    held = make_run_claim()
    with database.transaction() as session:
        runs.request_cancel(session, held.run.id)
        run_attempts.release(session, held)
    assert sweep(database, run_reaping.CANCEL_LEFT) == {"cancelled": [held.run.id]}
    assert reload(held.run).status == "cancelled"


def test_what_waits_begins_when_its_predecessor_ended_unnoticed(database, make_run, reload):
    first, second = make_run(overlap=Overlap.WAIT), make_run(overlap=Overlap.WAIT)
    assert not sweep(database, run_reaping.HELD_BACK)
    with database.transaction() as session:
        runs.RUNS.move(session, first.id, runs.Status.FAILED, error_code="x")
    assert sweep(database, run_reaping.HELD_BACK) == {"pending": [second.id]}
    assert not reload(second).held_back


def test_runs_of_tasks_that_are_gone_end_after_a_while(database, make_run, reload):
    gone, known = make_run(task="toys.gone"), make_run(task="toys.known")
    later = make_run(task="toys.gone")
    make_run(task="toys.new", overlap=Overlap.WAIT)
    waiting = make_run(task="toys.new", overlap=Overlap.WAIT)
    assert not sweep(database, run_reaping.UNKNOWN_TASK)
    with database.transaction() as session:
        old = update(TaskRun).values(updated_at="2020-01-01T00:00:00Z")
        session.execute(old)
        session.execute(
            old.where(TaskRun.id.in_((gone.id, known.id))).values(available_at="2020-01-01")
        )
        session.execute(old.where(TaskRun.id == waiting.id).values(available_at="2020-01-01"))
    assert sweep(database, run_reaping.UNKNOWN_TASK) == {"failed": [gone.id]}
    assert (reload(gone).status, reload(gone).error_code) == ("failed", "unknown_task")
    assert {reload(row).status for row in (known, later, waiting)} == {"pending"}


def test_a_run_is_given_the_time_of_its_own_task_and_the_grace(database, make_run_claim, reload):
    held = make_run_claim()
    assert not sweep(database, run_reaping.OVERTIME, run_limits_s={"toys.count": -50})
    others = {"toys.known": -100.0, "toys.count": 60.0}
    assert not sweep(database, run_reaping.OVERTIME, run_limits_s=others)
    assert reload(held.run).status == "running"


def test_a_run_past_its_limit_is_taken_from_its_holder_and_the_next_begins(
    database, make_run, make_run_claim, reload
):
    held = make_run_claim(make_run(overlap=Overlap.WAIT))
    waiting = make_run(overlap=Overlap.WAIT)
    with database.transaction() as session:
        run_attempts.checkpoint(session, held, {"at": 40})
    overdue = {"run_limits_s": {"toys.count": -61.0}}
    assert sweep(database, run_reaping.OVERTIME, **overdue) == {"failed": [held.run.id]}
    ended = reload(held.run)
    assert (ended.error_code, ended.checkpoint) == ("timed_out", {"at": 40})
    assert not reload(waiting).held_back
    with pytest.raises(LeaseLostError), database.transaction() as session:
        run_attempts.report(session, held)


def test_a_run_past_its_limit_whose_cancel_was_requested_is_cancelled(
    database, make_run_claim, reload
):
    held = make_run_claim()
    with database.transaction() as session:
        runs.request_cancel(session, held.run.id)
    gone = {"run_limits_s": {}, "stuck_grace_s": -1}  # of a task that is not known any more
    assert sweep(database, run_reaping.OVERTIME, **gone) == {"cancelled": [held.run.id]}
    assert reload(held.run).status == "cancelled"
