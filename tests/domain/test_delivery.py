"""Rows are sent when they are due, and again when their message is lost."""

from dataclasses import replace

import pytest
from sqlalchemy import func, text

from genonaut.db.models import GenerationJob
from genonaut.domain import attempts
from genonaut.domain.delivery import Outbox, fixed, missing

AGO = "- interval '1 hour'"
JOBS = Outbox("job", GenerationJob, fixed("draw"), fixed("easel"))


@pytest.fixture
def sql(database):
    def run(statement):
        with database.transaction() as session:
            session.execute(text(statement))

    return run


def unpublished(database, epoch="e1", settle_s=1):
    with database.transaction() as session:
        return JOBS.unpublished(session, epoch, settle_s=settle_s, limit=100)


def overdue(database):
    with database.transaction() as session:
        return JOBS.overdue(session, "e1", after_s=60, limit=100)


def mark(database, messages, epoch="e1"):
    with database.transaction() as session:
        JOBS.mark_published(session, messages, epoch)


def test_a_new_row_is_left_to_its_maker_for_a_moment(database, make_job, sql):
    job = make_job()
    assert unpublished(database) == []
    sql(f"UPDATE generation_jobs SET available_at = now() {AGO}")
    (message,) = unpublished(database)
    assert (message.row_id, message.task_id) == (job.id, job.celery_task_id)
    assert (message.kind, message.task, message.queue) == ("job", "draw", "easel")


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "cancelled"},
        {"cancel_requested_at": func.now()},
        {"available_at": func.now() + text("interval '1 minute'")},
    ],
)
def test_what_may_not_be_claimed_is_not_published(database, make_job, columns):
    make_job(**{"available_at": func.now() - text("interval '1 hour'"), **columns})
    assert unpublished(database, settle_s=0) == []


def test_a_published_row_is_sent_again_only_under_another_epoch(database, make_job):
    make_job()
    messages = unpublished(database, settle_s=0)
    mark(database, messages)
    assert unpublished(database, "e1", settle_s=0) == []
    lost = unpublished(database, "e2", settle_s=0)
    assert lost == [replace(message, was_sent=True) for message in messages]
    assert unpublished(database, None, settle_s=0) == []


def test_a_row_given_back_meanwhile_is_not_taken_for_published(database, make_job, make_claim, sql):
    job = make_job()
    messages = unpublished(database, settle_s=0)
    held = make_claim(job)
    with database.transaction() as session:
        attempts.release(session, held, reason="deploy")
    mark(database, messages)
    assert [m.row_id for m in unpublished(database, settle_s=0)] == [job.id]


def test_a_message_that_nobody_holds_is_missing_after_a_while(database, make_job, sql):
    jobs = [make_job() for _ in range(3)]
    mark(database, unpublished(database, settle_s=0))
    assert overdue(database) == []
    sql(f"UPDATE generation_jobs SET dispatched_at = now() {AGO}")
    waiting = overdue(database)
    assert [m.row_id for m in waiting] == [job.id for job in jobs]
    assert missing(waiting, {jobs[0].celery_task_id, jobs[2].celery_task_id}) == [waiting[1]]


def test_a_row_of_before_the_task_ids_gets_one_to_be_sent_under(database, make_job):
    job = make_job(celery_task_id=None)
    assert [m.task_id for m in unpublished(database, settle_s=0)] == [f"job-{job.id}"]
