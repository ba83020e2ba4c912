"""What is stuck moves on: lost workers, cancels nobody closed, messages that went astray."""

from dataclasses import replace
from functools import partial

import pytest
from sqlalchemy import select, text

from genonaut.core.errors import LeaseLostError
from genonaut.db.models import GenerationJob, JobAttempt, UserNotification
from genonaut.domain import attempts, generation, reaping, repairs
from tests.support.reaping import LIMITS, sweep


@pytest.fixture
def reap(database):
    return partial(sweep, database, reaping.WORKER_LOST)


@pytest.fixture
def sql(database):
    def run(statement):
        with database.transaction() as session:
            session.execute(text(statement))

    return run


def test_a_live_lease_and_one_in_its_grace_are_left_alone(reap, make_claim, reload):
    live, just_over = make_claim(), make_claim(lease_s=-3)
    assert not reap()
    assert {reload(live).status, reload(just_over).status} == {"running"}


def test_a_lost_attempt_is_shown_and_the_job_is_due_again(database, reap, make_claim, reload):
    held = make_claim(lease_s=-60)
    assert reap() == {"pending": [held.job_id]}
    job = reload(held)
    assert (job.status, job.attempt, job.dispatched_at) == ("pending", 1, None)
    assert job.progress == {"phase": "queued", "reason": "worker worker-1 lost, attempt 1 of 4"}
    with database.transaction() as session:
        assert session.scalars(select(JobAttempt.outcome)).all() == ["worker_lost"]
    assert not reap()


@pytest.mark.parametrize("posted", [False, True])
def test_a_poisoned_job_ends_after_its_attempts(
    database, reap, make_job, make_claim, reload, left_at_comfyui, posted
):
    job, claims = make_job(max_attempts=3), 0
    while reload(job).status == "pending":
        held = make_claim(job, lease_s=-60)
        claims += 1
        if posted and claims == 1:
            with database.transaction() as session:
                attempts.begin_prompt(session, held, backend="b", prompt_id="p")
        last = reap()
    assert claims == (4 if posted else 3)  # one more may only collect what was posted
    ended = reload(job)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "worker_lost", 3)
    assert last == {"failed": [job.id]}
    assert left_at_comfyui() == ([("b", "p")] if posted else [])
    with database.transaction() as session:
        assert session.scalars(select(UserNotification.kind)).all() == ["job_failed"]


def test_a_lost_job_with_a_cancel_is_cancelled_and_its_prompt_reported(
    database, reap, make_claim, reload, left_at_comfyui
):
    held = make_claim()
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="b", prompt_id="p")
        attempts.renew(session, held, lease_s=-60)
        generation.request_cancel(session, held.job.user_id, held.job_id)
    assert reap() == {"cancelled": [held.job_id]}
    assert left_at_comfyui() == [("b", "p")]
    assert reload(held).status == "cancelled"


def test_a_sweep_is_bounded_and_takes_the_oldest_first(reap, make_claim):
    claims = [make_claim(lease_s=-60) for _ in range(3)]
    assert reap(limit=2) == {"pending": [held.job_id for held in claims[:2]]}


def test_a_row_another_process_works_on_is_skipped(committed_database, reap, make_claim):
    busy, free = make_claim(lease_s=-60), make_claim(lease_s=-60)
    with committed_database.transaction() as session:
        session.execute(
            select(GenerationJob.id).where(GenerationJob.id == busy.job_id).with_for_update()
        )
        assert reap() == {"pending": [free.job_id]}


def test_a_cancel_left_behind_by_its_holder_is_closed(
    database, make_claim, reload, left_at_comfyui
):
    held = make_claim()
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="b", prompt_id="p")
        generation.request_cancel(session, held.job.user_id, held.job_id)
        attempts.release(session, held, reason="deploy")
    assert sweep(database, reaping.CANCEL_LEFT) == {"cancelled": [held.job_id]}
    assert left_at_comfyui() == [("b", "p")]
    assert reload(held).status == "cancelled"


def test_cancelling_a_job_that_waits_with_a_prompt_removes_the_prompt(
    database, make_claim, reload, left_at_comfyui
):
    held = make_claim()
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="b", prompt_id="p")
        attempts.release(session, held, reason="deploy")
    with database.transaction() as session:
        generation.request_cancel(session, held.job.user_id, held.job_id)
        assert attempts.claim(session, held.job_id, worker="w", lease_s=30) is None
    sweep(database, reaping.CANCEL_LEFT)
    assert left_at_comfyui() == [("b", "p")]
    assert reload(held).status == "cancelled"


def test_a_row_the_database_refuses_does_not_stop_the_others(
    committed_database, reap, make_claim, reload
):
    told = []
    refused, other = make_claim(lease_s=-60), make_claim(lease_s=-60)
    with committed_database.transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
                "CREATE TRIGGER refuse BEFORE UPDATE OF status ON generation_jobs FOR EACH ROW"
                f" WHEN (OLD.id = {refused.job_id}) EXECUTE FUNCTION refuse()"
            )
        )
    committed_database.sinks.append(told.extend)
    try:
        assert reap() == {"pending": [other.job_id]}
    finally:
        with committed_database.transaction() as session:
            session.execute(text("DROP FUNCTION refuse CASCADE"))
    assert reload(refused).status == "running"
    assert {event.id for event in told} == {other.job_id}


def test_a_mistake_of_ours_about_one_row_does_not_stop_the_others(database, make_claim, reload):
    waiting = [make_claim(), make_claim()]
    with database.transaction() as session:
        for held in waiting:
            generation.request_cancel(session, held.job.user_id, held.job_id)
            attempts.release(session, held, reason="deploy")

    def act(session, job, *rest):
        if job.id == waiting[0].job_id:
            raise ValueError("nobody thought of this")
        return reaping.CANCEL_LEFT.act(session, job, *rest)

    sweep(database, replace(reaping.CANCEL_LEFT, act=act))
    assert [reload(held).status for held in waiting] == ["pending", "cancelled"]


# --- a worker that lives, renews its lease and does not end --------------------------------------

OVERDUE = {"job_limit_s": -61, "stuck_grace_s": 60}


def test_a_slow_job_is_left_alone_up_to_its_limit_and_the_grace(database, make_claim, reload):
    held = make_claim()
    assert not sweep(database, reaping.OVERTIME)
    assert not sweep(database, reaping.OVERTIME, job_limit_s=-30, stuck_grace_s=60)
    assert reload(held).status == "running"


def test_a_job_past_its_limit_is_taken_from_its_holder_and_its_prompt_stopped(
    database, make_claim, reload, left_at_comfyui
):
    held = make_claim()
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="b", prompt_id="p")
    assert sweep(database, reaping.OVERTIME, **OVERDUE) == {"pending": [held.job_id]}
    job = reload(held)
    assert (job.status, job.attempt, job.comfyui_prompt_id) == ("pending", 1, None)
    assert left_at_comfyui() == [("b", "p")]
    with database.transaction() as session:
        assert session.scalars(select(JobAttempt.outcome)).all() == ["timed_out"]
    with pytest.raises(LeaseLostError), database.transaction() as session:
        attempts.report(session, held, {"phase": "drawing"})


def test_the_last_attempt_past_its_limit_fails_the_job_once(database, make_job, make_claim, reload):
    held = make_claim(make_job(max_attempts=1))
    assert sweep(database, reaping.OVERTIME, **OVERDUE) == {"failed": [held.job_id]}
    assert not sweep(database, reaping.OVERTIME, **OVERDUE)
    assert (reload(held).status, reload(held).error_code) == ("failed", "timed_out")
    with database.transaction() as session:
        assert session.scalars(select(UserNotification.kind)).all() == ["job_failed"]


def test_who_hangs_over_the_prompt_of_another_has_used_up_the_attempt_as_was_shown(
    database, make_job, make_claim, reload
):
    job = make_job(max_attempts=2)
    first = make_claim(job, lease_s=-60)
    with database.transaction() as session:
        attempts.begin_prompt(session, first, backend="b", prompt_id="p")
    sweep(database, reaping.WORKER_LOST)
    make_claim(job)
    limits = replace(LIMITS, **OVERDUE)
    with database.transaction() as session:
        (shown,) = repairs.look(session, reaping.OVERTIME, limits, limit=9)
    assert sweep(database, reaping.OVERTIME, **OVERDUE) == {shown.becomes: [job.id]}
    assert reload(job).status == "failed"


def test_a_job_past_its_limit_whose_cancel_was_requested_is_cancelled(
    database, make_claim, reload, left_at_comfyui
):
    held = make_claim()
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="b", prompt_id="p")
        generation.request_cancel(session, held.job.user_id, held.job_id)
    assert sweep(database, reaping.OVERTIME, **OVERDUE) == {"cancelled": [held.job_id]}
    assert left_at_comfyui() == [("b", "p")]
    with database.transaction() as session:
        assert session.scalars(select(UserNotification.kind)).all() == ["job_cancelled"]
        (attempt,) = session.scalars(select(JobAttempt))
    assert (attempt.outcome, attempt.error_message) == (
        "timed_out",
        "worker worker-1 did not end it at its limit of -61 seconds",
    )


def test_a_server_that_just_started_is_settling(session):
    assert reaping.postgres_is_settling(session, grace_s=10**6)
    assert not reaping.postgres_is_settling(session, grace_s=0)
