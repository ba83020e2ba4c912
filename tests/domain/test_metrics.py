"""Monitoring reads little, however much there was."""

from datetime import timedelta

import pytest
from sqlalchemy import func, text, update

from genonaut.db.models import JobAttempt, NotificationDelivery, TaskRun
from genonaut.domain import attempts, metrics, run_attempts, schedule_clock, schedules
from genonaut.domain.deliveries import DELIVERIES
from genonaut.domain.lifecycle import Status
from genonaut.domain.schedules import Terms
from tests.support.plans import explain

QUEUES = ("generation", "default")
LONG_AGO = func.now() - 2 * metrics.LATELY


def read(session):
    return metrics.read(session, QUEUES, job_queue="generation", channels=("email",))


def test_of_an_empty_house_the_queues_are_named(session):
    found = read(session)
    assert [state.queue for state in found.queues] == list(QUEUES)
    assert (found.processes, found.late.count) == ([], 0)
    assert found.jobs == found.runs == {"pending": 0, "running": 0}
    assert found.deliveries == found.ended_attempts == found.ended_runs == {}
    assert found.ended_deliveries == {}


def test_it_counts_what_is_unfinished_and_what_ended_lately(
    database, make_job, make_claim, make_run, make_run_claim, make_address, make_delivery
):
    mail = make_address()
    make_job()
    failed, lost, _ = (make_claim() for _ in range(3))
    done, before = (make_run_claim() for _ in range(2))
    sent, earlier, _ = (make_delivery(mail) for _ in range(3))
    with database.transaction() as session:
        for held in (failed, lost):
            attempts.fail(session, held, code="x", message="no")
        old = update(JobAttempt).where(JobAttempt.job_id == lost.job_id)
        session.execute(old.values(ended_at=LONG_AGO))
        for held in (done, before):
            run_attempts.complete(session, held, {})
        old = update(TaskRun).where(TaskRun.id == before.run.id)
        session.execute(old.values(completed_at=LONG_AGO))
        for row in (sent, earlier):
            DELIVERIES.move(session, row.id, Status.CANCELLED)
        old = update(NotificationDelivery).where(NotificationDelivery.id == earlier.id)
        session.execute(old.values(completed_at=LONG_AGO))
        found = read(session)
    assert found.jobs == {"pending": 1, "running": 1}
    assert found.runs == {"pending": 0, "running": 0}
    assert found.deliveries["email"]["pending"] == 1
    assert found.ended_attempts == {"failed": 1}
    assert found.ended_runs == {"completed": 1}
    assert found.ended_deliveries == {"cancelled": 1}


def test_the_outcomes_are_those_an_attempt_may_have(session):
    allowed = session.scalar(
        text(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE conname = 'ck_job_attempts_outcome'"
        )
    )
    assert sorted(allowed.split("'")[1::2]) == sorted(metrics.OUTCOMES)


@pytest.fixture
def many_that_are_over(session, make_user):
    values = {"user": make_user().id}
    since = "now() - n * interval '1 minute', now() - n * interval '1 minute'"
    for statement in (
        "INSERT INTO generation_jobs (user_id, prompt, status, created_at, completed_at)"
        f" SELECT :user, 'a fox', 'cancelled', {since} FROM generate_series(1, 5000) AS n",
        "INSERT INTO job_attempts (job_id, number, worker, lease_token, outcome, started_at,"
        " ended_at) SELECT id, 1, 'w', gen_random_uuid(), 'failed', created_at, completed_at"
        " FROM generation_jobs",
        "INSERT INTO task_runs (task, queue, trigger, status, celery_task_id, created_at,"
        f" completed_at) SELECT 'toys.count', 'default', 'api', 'completed', '', {since}"
        " FROM generate_series(1, 5000) AS n",
        "INSERT INTO notification_deliveries (user_id, channel, subject, message_id, lane, host,"
        " status, celery_task_id, created_at, completed_at)"
        f" SELECT :user, 'email', n::text, '', 'email', 'email', 'completed', '', {since}"
        " FROM generate_series(1, 5000) AS n",
    ):
        session.execute(text(statement), values if ":user" in statement else {})
    session.execute(text("ANALYZE"))


@pytest.mark.usefixtures("many_that_are_over")
def test_what_is_over_is_not_read(session):
    plans = explain(session, read)
    assert len(plans) == 5
    for plan in plans:
        for table in ("generation_jobs", "job_attempts", "task_runs", "notification_deliveries"):
            assert f"Seq Scan on {table}" not in plan, plan


def test_a_schedule_that_is_late_costs_two_statements_more(session):
    due_at = schedule_clock.look(session).now - timedelta(seconds=90)
    schedules.create(session, "a", Terms(task="x", every_s=60), next_due_at=due_at)
    session.flush()
    assert len(explain(session, read)) == 7
    assert read(session).late.count == 1
