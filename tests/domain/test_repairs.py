"""What is shown as stale is what is then done, batch by batch, and all of it is on record."""

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import select, text

from genonaut.db.models import Repair
from genonaut.domain import reaping, repairs
from tests.support.reaping import LIMITS, sweep


@pytest.fixture
def reap(database):
    return partial(sweep, database, reaping.WORKER_LOST)


def test_a_batch_goes_on_behind_what_it_had_to_leave(database, make_claim):
    claims = [make_claim(lease_s=-60) for _ in range(5)]
    after, batches = 0, []
    while after is not None:
        with database.transaction() as session:
            swept = repairs.sweep(session, reaping.WORKER_LOST, LIMITS, after=after, limit=2)
            batches.append([lost.id for lost in swept.done])
            after = swept.last_id
    ids = [held.job_id for held in claims]
    assert batches == [ids[:2], ids[2:4], ids[4:]]


def test_a_look_says_what_the_sweep_then_does(database, make_job, make_claim):
    lost, last = make_claim(lease_s=-60), make_claim(make_job(max_attempts=1), lease_s=-60)
    with database.transaction() as session:
        seen = repairs.look(session, reaping.WORKER_LOST, LIMITS, limit=10)
        assert repairs.count(session, reaping.WORKER_LOST, LIMITS) == 2
    assert [(one.id, one.becomes) for one in seen] == [
        (lost.job_id, "pending"),
        (last.job_id, "failed"),
    ]
    assert all(55 < one.stale_s < 90 for one in seen)
    assert seen[0].why == "worker worker-1 lost, attempt 1 of 4"
    with database.transaction() as session:
        swept = repairs.sweep(session, reaping.WORKER_LOST, LIMITS)
    assert [(one.id, one.becomes, one.why) for one in swept.done] == [
        (one.id, one.becomes, one.why) for one in seen
    ]


def test_each_act_is_on_record_and_counted_from_where_the_last_count_ended(
    database, make_claim, reap
):
    first = make_claim(lease_s=-60)
    reap()
    with database.transaction() as session:
        ledger = repairs.since(session, 0)
        (act,) = repairs.told_of(session, "job", first.job_id)
    assert ledger.counts == {"job.worker_lost": 1}
    assert (act.became, act.worker) == ("pending", "worker-1")
    assert act.why == "worker worker-1 lost, attempt 1 of 4"
    make_claim(lease_s=-60)
    reap()
    with database.transaction() as session:
        repairs.record_count(session, "message_lost", "run", 7, became="published", why="x")
        repairs.record_count(session, "message_lost", "job", 0, became="published", why="x")
        later = repairs.since(session, ledger.through)
        assert later.counts == {"job.worker_lost": 1, "run.message_lost": 7}
        assert repairs.since(session, later.through) == repairs.Ledger(later.through, {})


def test_a_deadlock_over_one_row_keeps_no_other_from_help(database, make_claim, reload):
    held, other = make_claim(lease_s=-60), make_claim(lease_s=-60)

    def act(session, row, *rest):
        if row.id == held.job_id:
            session.execute(text("DO $$ BEGIN RAISE deadlock_detected; END $$"))
        return reaping.WORKER_LOST.act(session, row, *rest)

    rule = replace(reaping.WORKER_LOST, act=act, give_back=None)
    assert sweep(database, rule) == {"pending": [other.job_id]}
    assert reload(held).status == "running"


def test_records_are_kept_for_a_month(database, make_claim, reap):
    make_claim(lease_s=-60)
    reap()
    with database.transaction() as session:
        repairs.forget_old(session)
        assert repairs.recent(session, limit=5)
        session.execute(text("UPDATE repairs SET at = at - interval '31 days'"))
        repairs.forget_old(session)
        assert session.scalars(select(Repair)).all() == []
