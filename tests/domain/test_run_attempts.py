"""Whoever holds a run writes it; whoever has lost it writes nothing."""

import pytest
from sqlalchemy import select

from genonaut.core.errors import ConflictError, LeaseLostError
from genonaut.db.models import RunFailure
from genonaut.domain import run_attempts, run_history, runs
from genonaut.domain.run_attempts import Failure
from genonaut.domain.runs import Overlap


def test_only_one_claims_and_the_attempt_is_counted(database, make_run, make_run_claim):
    run = make_run()
    held = make_run_claim(run)
    assert (held.run.status, held.run.attempt, held.run.worker) == ("running", 1, "worker-1")
    with database.transaction() as session:
        assert run_attempts.claim(session, run.id, worker="other", lease_s=30) is None


def test_a_run_that_is_held_back_cannot_be_claimed(database, make_run):
    make_run(overlap=Overlap.WAIT)
    second = make_run(overlap=Overlap.WAIT)
    with database.transaction() as session:
        assert run_attempts.claim(session, second.id, worker="w", lease_s=30) is None


@pytest.mark.parametrize(
    "write",
    [
        lambda s, h: run_attempts.report(s, h, progress={}),
        lambda s, h: run_attempts.checkpoint(s, h, {"at": 1}),
        lambda s, h: run_attempts.fail_items(s, h, [Failure("a", "b")]),
        lambda s, h: run_attempts.complete(s, h, {}),
        lambda s, h: run_attempts.fail(s, h, code="x", message="y"),
        lambda s, h: run_attempts.try_again(s, h, code="x", message="y", first_s=1),
        run_attempts.release,
        run_attempts.cancelled,
        lambda s, h: run_attempts.renew(s, h, lease_s=30),
    ],
)
def test_a_lost_claim_writes_nothing(database, make_run_claim, reload, write):
    old = make_run_claim()
    with database.transaction() as session:
        run_attempts.release(session, old)
    new = make_run_claim(old.run)
    before = reload(new.run).version
    with pytest.raises(LeaseLostError), database.transaction() as session:
        write(session, old)
    after = reload(new.run)
    assert (after.status, after.version, after.lease_token) == ("running", before, new.token)
    with database.transaction() as session:
        assert session.scalars(select(RunFailure)).all() == []


def test_the_checkpoint_outlives_every_ending_but_a_completed_run_needs_none(
    database, make_run_claim, reload
):
    held = make_run_claim()
    with database.transaction() as session:
        run_attempts.checkpoint(session, held, {"at": 40})
        run_attempts.fail(session, held, code="timed_out", message="late")
    run = reload(held.run)
    assert (run.status, run.error_code, run.checkpoint) == ("failed", "timed_out", {"at": 40})


def test_failed_items_are_listed_once_each_with_their_newest_error(
    database, make_run_claim, reload
):
    held = make_run_claim()
    with database.transaction() as session:
        run_attempts.fail_items(session, held, [Failure("a", "one"), Failure("b", "x" * 5000)])
        run_attempts.fail_items(session, held, [Failure("a", "two\0")])
        run_attempts.fail_items(session, held, [])
    assert reload(held.run).failed_items == 2
    with database.transaction() as session:
        rows = run_history.failures(session, held.run.id)
        assert [(row.ref, row.error[:5]) for row in rows] == [("a", "two\ufffd"), ("b", "xxxxx")]
        assert [
            row.ref for row in run_history.failures(session, held.run.id, after=rows[0].id)
        ] == ["b"]


def test_a_release_does_not_count_and_a_retry_does(database, make_run_claim, reload):
    held = make_run_claim()
    with database.transaction() as session:
        run_attempts.release(session, held)
    assert (reload(held.run).status, reload(held.run).attempt) == ("pending", 0)
    held = make_run_claim(held.run)
    with database.transaction() as session:
        again = run_attempts.try_again(session, held, code="busy", message="later", first_s=9)
    run = reload(held.run)
    assert again
    assert (run.status, run.attempt) == ("pending", 1)
    assert run.progress == {"phase": "waiting_to_retry", "reason": "later"}
    assert run.available_at > run.updated_at


def test_attempts_are_used_up(database, make_run, make_run_claim, reload):
    held = make_run_claim(make_run(max_attempts=1))
    with database.transaction() as session:
        assert not run_attempts.try_again(session, held, code="busy", message="no", first_s=9)
    assert (reload(held.run).status, reload(held.run).error_code) == ("failed", "busy")


def test_a_cancel_that_comes_first_wins_over_every_end(database, make_run_claim, reload):
    held = make_run_claim()
    with database.transaction() as session:
        assert runs.request_cancel(session, held.run.id).status == "running"
    with pytest.raises(ConflictError), database.transaction() as session:
        run_attempts.complete(session, held, {"n": 1})
    with database.transaction() as session:
        run_attempts.fail(session, held, code="x", message="y")
    run = reload(held.run)
    assert (run.status, run.error_code, run.result) == ("cancelled", None, None)


@pytest.mark.parametrize("how", ["complete", "fail", "cancelled"])
def test_the_end_of_one_lets_the_next_begin(database, make_run, make_run_claim, reload, how):
    first = make_run_claim(make_run(overlap=Overlap.WAIT))
    second = make_run(overlap=Overlap.WAIT)
    ends = {
        "complete": lambda s: run_attempts.complete(s, first, {}),
        "fail": lambda s: run_attempts.fail(s, first, code="x", message="y"),
        "cancelled": lambda s: run_attempts.cancelled(s, first),
    }
    with database.transaction() as session:
        ends[how](session)
    assert (reload(second).held_back, reload(second).status) == (False, "pending")


def test_a_worker_acts_for_the_claim_it_has_held_long_enough(database, make_run_claim):
    held = make_run_claim()
    with database.transaction() as session:
        assert run_attempts.held_by(session, held.run.id, worker="worker-1", for_s=60) is None
        assert run_attempts.held_by(session, held.run.id, worker="other", for_s=-1) is None
        mine = run_attempts.held_by(session, held.run.id, worker="worker-1", for_s=-1)
    assert mine is not None
    assert mine.token == held.token
