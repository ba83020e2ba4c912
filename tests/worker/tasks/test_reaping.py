"""``jobs.reap_stale`` does what every worker does, and counts what all of them did."""

import time

import pytest
from sqlalchemy import func, select, text

from genonaut.db.models import GenerationJob, TaskRun
from genonaut.domain import generation, repairs, timelines
from genonaut.worker.contact import fresh
from genonaut.worker.reconciler import Reconciler
from genonaut.worker.repair import LOCK_ID, contact_of
from genonaut.worker.tasks import reaping
from genonaut.worker.tasks.reaping import reap_stale

pytestmark = pytest.mark.usefixtures("celery_app", "settled")


@pytest.fixture
def settled(monkeypatch):
    """PostgreSQL has been there for long."""
    monkeypatch.setattr("genonaut.domain.reaping.postgres_is_settling", lambda *_, **__: False)


def test_a_dry_run_lists_what_a_run_then_does(
    run_task, make_claim, make_run_claim, make_job, reload
):
    lost, slow, run = make_claim(lease_s=-60), make_claim(), make_run_claim(lease_s=-60)
    make_job(celery_task_id="x", available_at=func.now() - text("interval '1 minute'"))
    seen, _ = run_task(reap_stale, dry_run=True)
    assert seen.counts == {"job.unpublished": 1, "job.worker_lost": 1, "run.worker_lost": 1}
    found = {(item.kind, item.id): item for item in seen.found}
    item = found["job", lost.job_id]
    assert (item.rule, item.becomes, item.worker) == ("worker_lost", "pending", "worker-1")
    assert item.why == "worker worker-1 lost, attempt 1 of 4"
    assert found["run", run.run.id].what == "toys.count"
    assert reload(lost).status == "running"

    done, _ = run_task(reap_stale)
    assert done.counts == seen.counts
    assert (done.by_this_run, done.published) == (2, 1)  # the others are due from now on
    assert [reload(row).status for row in (lost, slow)] == ["pending", "running"]


def test_a_run_counts_what_the_workers_did_by_themselves_since_the_one_before(
    run_task, make_claim, committed_database, make_settings
):
    first, _ = run_task(reap_stale)
    make_claim(lease_s=-60)
    reconciler = Reconciler(committed_database, make_settings(postgres_grace_s=0))
    reconciler.run_once()
    reconciler.close()
    counted, _ = run_task(reap_stale)
    assert (counted.counts, counted.by_this_run) == ({"job.worker_lost": 1}, 0)
    assert counted.through > first.through
    assert run_task(reap_stale)[0].counts == {}


def test_what_redis_forgot_is_counted(run_task, make_job, redis_client):
    make_job(celery_task_id="x", dispatched_at=func.now(), dispatch_epoch="another")
    seen, _ = run_task(reap_stale, dry_run=True)
    assert [(item.rule, item.becomes) for item in seen.found] == [("message_lost", "published")]
    done, _ = run_task(reap_stale)
    assert done.counts == seen.counts == {"job.message_lost": 1}
    assert redis_client.llen("genonaut_test:generation") == 1


def test_what_redis_forgot_long_ago_is_counted_once(run_task, make_job):
    long_ago = func.now() - text("interval '1 hour'")
    make_job(celery_task_id="x", dispatched_at=long_ago, dispatch_epoch="another")
    seen, _ = run_task(reap_stale, dry_run=True)
    assert (len(seen.found), seen.counts) == (1, {"job.message_lost": 1})


def test_a_message_that_went_astray_is_told_of_on_the_timeline(
    run_task, make_job, database, redis_client, settings
):
    run_task(reap_stale)
    job = make_job(
        celery_task_id="x",
        dispatched_at=func.now() - text("interval '1 hour'"),
        dispatch_epoch=redis_client.get(f"{settings.redis_ns}:epoch").decode(),
    )
    done, _ = run_task(reap_stale)
    assert done.counts == {"job.message_lost": 1}
    with database.transaction() as session:
        story = timelines.tell(session, session.get(GenerationJob, job.id))
    assert [entry["event"] for entry in story] == ["created", "message_lost"]


def test_a_dry_run_of_very_much_lists_what_a_result_holds(run_task, make_job, make_claim):
    for _ in range(240):
        make_claim(make_job(prompt="\U0001f5bc" * 60), lease_s=-60)
    make_job(celery_task_id="x", available_at=func.now() - text("interval '1 minute'"))
    seen, _ = run_task(reap_stale, dry_run=True, limit=500)
    assert seen.counts == {"job.worker_lost": 240, "job.unpublished": 1}
    assert 150 < len(seen.found) < 240
    assert seen.found[-1].rule == "unpublished", "the last rule is not crowded out by the first"


def test_after_an_outage_nothing_is_taken_from_who_could_not_renew(
    run_task, make_claim, reload, settings, monkeypatch
):
    """The worker's main process has noted that PostgreSQL was away; this one makes a pass first."""
    memory = fresh()
    monkeypatch.setattr(reaping, "SHARED", memory)
    contact = contact_of(settings, memory)
    held = make_claim(lease_s=-60)
    contact.had(time.monotonic() - 60)
    assert run_task(reap_stale, dry_run=True)[0].counts == {}
    assert run_task(reap_stale)[0].counts == {}
    assert reload(held).status == "running"
    contact.had(time.monotonic())
    assert run_task(reap_stale)[0].counts == {"job.worker_lost": 1}


def test_two_passes_are_not_made_at_once(committed_database, start_run, task_services, monkeypatch):
    monkeypatch.setattr(reaping, "PATIENCE_S", 0.3)
    with committed_database.transaction() as other:
        other.execute(select(func.pg_advisory_xact_lock(LOCK_ID)))
        row: TaskRun = start_run(reap_stale)
    assert (row.status, row.progress["phase"]) == ("pending", "waiting_to_retry")
    assert "another pass" in row.progress["reason"]


def test_it_lists_no_more_of_a_rule_than_was_asked_for(run_task, make_claim):
    for _ in range(3):
        make_claim(lease_s=-60)
    seen, _ = run_task(reap_stale, dry_run=True, limit=2)
    assert (len(seen.found), seen.counts) == (2, {"job.worker_lost": 3})


def test_old_records_go_with_it(run_task, database, make_claim, make_job):
    make_claim(lease_s=-60)
    run_task(reap_stale)
    with database.transaction() as session:
        assert repairs.recent(session, limit=10)
        session.execute(text("UPDATE repairs SET at = at - interval '31 days'"))
    run_task(reap_stale)
    with database.transaction() as session:
        assert repairs.recent(session, limit=10) == []


def test_a_cancel_nobody_obeys_is_closed(run_task, database, make_claim, reload):
    held = make_claim(lease_s=-60)
    with database.transaction() as session:
        generation.request_cancel(session, held.job.user_id, held.job_id)
    done, _ = run_task(reap_stale)
    assert reload(held).status == "cancelled"
    assert done.counts == {"job.worker_lost": 1}
