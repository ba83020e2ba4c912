"""Runs that are stuck move on."""

import pytest
from sqlalchemy import update

from genonaut.db.models import TaskRun
from genonaut.domain import run_attempts, run_reaping, runs
from genonaut.domain.runs import Overlap


@pytest.fixture
def reap(database):
    def run():
        with database.transaction() as session:
            return run_reaping.reap_expired(session, grace_s=5)

    return run


def test_a_live_lease_is_left_alone(reap, make_run_claim):
    make_run_claim()
    make_run_claim(lease_s=-3)
    assert not reap()


def test_a_lost_run_goes_on_from_its_checkpoint(database, reap, make_run_claim, reload):
    held = make_run_claim(lease_s=-60)
    with database.transaction() as session:
        run_attempts.checkpoint(session, held, {"at": 40})
    assert reap().requeued == (held.run.id,)
    run = reload(held.run)
    assert (run.status, run.checkpoint, run.dispatched_at) == ("pending", {"at": 40}, None)
    assert run.progress["reason"] == "worker worker-1 lost, attempt 1 of 4"


def test_a_run_that_kills_its_workers_ends(reap, make_run, make_run_claim, reload):
    held = make_run_claim(make_run(max_attempts=1), lease_s=-60)
    assert reap().failed == (held.run.id,)
    assert (reload(held.run).status, reload(held.run).error_code) == ("failed", "worker_lost")


def test_a_lost_run_that_was_cancelled_is_cancelled_and_the_next_begins(
    database, reap, make_run, make_run_claim, reload
):
    held = make_run_claim(make_run(overlap=Overlap.WAIT), lease_s=-60)
    waiting = make_run(overlap=Overlap.WAIT)
    with database.transaction() as session:
        runs.request_cancel(session, held.run.id)
    assert reap().cancelled == (held.run.id,)
    assert not reload(waiting).held_back


def test_a_cancel_of_a_run_that_was_given_back_is_closed(database, make_run_claim, reload):
    held = make_run_claim()
    with database.transaction() as session:
        runs.request_cancel(session, held.run.id)
        run_attempts.release(session, held)
        assert run_reaping.close_cancels(session).cancelled == (held.run.id,)
    assert reload(held.run).status == "cancelled"


def test_what_waits_begins_when_its_predecessor_ended_unnoticed(database, make_run, reload):
    first, second = make_run(overlap=Overlap.WAIT), make_run(overlap=Overlap.WAIT)
    with database.transaction() as session:
        assert run_reaping.begin_what_waits(session) == []
        runs.RUNS.move(session, first.id, runs.Status.FAILED, error_code="x")
        assert run_reaping.begin_what_waits(session) == [second.id]
    assert not reload(second).held_back


def test_runs_of_tasks_that_are_gone_end_after_a_while(database, make_run, reload):
    gone, known = make_run(task="toys.gone"), make_run(task="toys.known")
    with database.transaction() as session:
        assert run_reaping.fail_unknown(session, {"toys.known"}, after_s=60) == []
        session.execute(update(TaskRun).values(updated_at="2020-01-01T00:00:00Z"))
        assert run_reaping.fail_unknown(session, {"toys.known"}, after_s=60) == [gone.id]
    assert (reload(gone).status, reload(gone).error_code) == ("failed", "unknown_task")
    assert reload(known).status == "pending"
