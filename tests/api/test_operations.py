"""What waits, who works, whether all is well: for auditors, over HTTP."""

import errno
import shutil

import pytest
from sqlalchemy import func, text

from genonaut.core.clock import utcnow
from genonaut.domain import heartbeats, reaping
from genonaut.domain.users import Role
from genonaut.worker.queues import QUEUES, WORKERS
from tests.support.reaping import sweep

ADMIN = "/api/v1/admin"


@pytest.fixture
def eve(make_account):
    return make_account("eve", Role.AUDITOR)


@pytest.fixture
def settled(monkeypatch):
    """PostgreSQL has been there for long."""
    monkeypatch.setattr("genonaut.domain.reaping.postgres_is_settling", lambda *_, **__: False)


@pytest.fixture
def everyone_reports(database):
    with database.transaction() as session:
        for name, queues in WORKERS.items():
            info = {"queues": list(queues), "pid": 1, "concurrency": 2}
            heartbeats.beat(session, f"{name}@a", kind="worker", started_at=utcnow(), info=info)
        heartbeats.beat(session, "beat@a", kind="beat", started_at=utcnow(), info={})


def checks(account):
    answer = account.client.get(f"{ADMIN}/health")
    assert answer.status_code == 200
    return answer.json()["status"], {c["name"]: c for c in answer.json()["checks"]}


@pytest.mark.parametrize("path", ["queues", "workers", "health", "stale"])
def test_they_are_for_auditors(make_account, path):
    assert make_account("ada", Role.USER).client.get(f"{ADMIN}/{path}").status_code == 403


def test_queues_and_workers_are_listed(eve, everyone_reports, make_job):
    make_job()
    queues = eve.client.get(f"{ADMIN}/queues").json()["items"]
    assert [queue["queue"] for queue in queues] == list(QUEUES)
    assert queues[0]["due"] == 1
    workers = eve.client.get(f"{ADMIN}/workers").json()["items"]
    assert {worker["name"] for worker in workers} == {f"{n}@a" for n in WORKERS} | {"beat@a"}
    assert all(worker["alive"] for worker in workers)


def test_health_is_red_until_everyone_reports(eve):
    status, found = checks(eve)
    assert status == "red"
    assert not found["beat"]["ok"]
    assert not found["workers.generation"]["ok"]
    assert found["queue.generation"]["ok"]


def test_a_disk_that_fails_is_red_and_hides_nothing_else(
    eve, anyone, everyone_reports, monkeypatch
):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error", "/secret/place")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    status, found = checks(eve)
    assert status == "red"
    assert [name for name, check in found.items() if not check["ok"]] == ["disk"]
    assert found["disk"]["detail"] == "The picture store failed: Input/output error."
    stranger = anyone.get(f"{ADMIN}/health", headers={"Authorization": "Bearer wrong"})
    assert stranger.status_code == 401


def test_health_is_red_when_work_waits_and_nobody_does_it_though_workers_report(
    eve, everyone_reports, make_job, database
):
    assert checks(eve)[0] == "ok"
    job = make_job(celery_task_id="x", dispatched_at=utcnow())
    assert checks(eve)[0] == "ok"
    with database.transaction() as session:
        session.execute(
            text("UPDATE generation_jobs SET available_at = now() - interval '90 s' WHERE id = :i"),
            {"i": job.id},
        )
    status, found = checks(eve)
    assert (status, found["queue.generation"]["ok"]) == ("red", False)
    assert "nobody works" in found["queue.generation"]["detail"]
    assert found["workers.generation"]["ok"]


@pytest.mark.usefixtures("settled")
def test_what_is_stuck_is_shown_with_its_reason_and_what_becomes_of_it(
    eve, make_claim, make_run, database
):
    empty = eve.client.get(f"{ADMIN}/stale").json()
    assert empty == {"counts": {}, "items": [], "recent": []}
    held, run = make_claim(lease_s=-60), make_run(task="toys.gone")
    with database.transaction() as session:
        session.execute(
            text(
                "UPDATE task_runs SET available_at = now() - interval '2 min',"
                " updated_at = now() - interval '2 min', dispatched_at = NULL"
            )
        )
    report = eve.client.get(f"{ADMIN}/stale").json()
    assert report["counts"] == {
        "job.worker_lost": 1,
        "run.unknown_task": 1,
        "run.unpublished": 1,
    }
    lost, gone, waits = report["items"]
    assert (lost["id"], lost["becomes"], lost["worker"]) == (held.job_id, "pending", "worker-1")
    assert lost["why"] == "worker worker-1 lost, attempt 1 of 4"
    assert lost["what"] == "a lighthouse at dawn"
    assert (gone["id"], gone["becomes"]) == (run.id, "failed")
    assert (waits["id"], waits["becomes"]) == (run.id, "published")
    assert 120 <= waits["stale_s"] < 180, "from when it was due until the answer"


def test_what_redis_forgot_is_shown_too_when_no_worker_lives(eve, make_job):
    job = make_job(dispatched_at=func.now(), dispatch_epoch="another")
    report = eve.client.get(f"{ADMIN}/stale").json()
    assert report["counts"] == {"job.message_lost": 1}
    (lost,) = report["items"]
    assert (lost["id"], lost["becomes"]) == (job.id, "published")


def test_nothing_is_shown_as_lost_while_holders_could_not_renew(eve, make_claim, monkeypatch):
    monkeypatch.setattr("genonaut.domain.reaping.postgres_is_settling", lambda *_, **__: True)
    make_claim(lease_s=-60)
    assert eve.client.get(f"{ADMIN}/stale").json()["items"] == []


def test_what_was_mended_last_is_shown(eve, make_claim, database):
    held = make_claim(lease_s=-60)
    sweep(database, reaping.WORKER_LOST)
    report = eve.client.get(f"{ADMIN}/stale", params={"limit": 1}).json()
    (act,) = report["recent"]
    assert (act["rule"], act["kind"], act["id"]) == ("worker_lost", "job", held.job_id)
    assert (act["became"], act["count"]) == ("pending", 1)
    assert eve.client.get(f"{ADMIN}/stale", params={"limit": 501}).status_code == 422
