"""What waits, who works, whether all is well: for auditors, over HTTP."""

import pytest
from sqlalchemy import text

from genonaut.core.clock import utcnow
from genonaut.domain import heartbeats
from genonaut.domain.users import Role
from genonaut.worker.queues import QUEUES, WORKERS

ADMIN = "/api/v1/admin"


@pytest.fixture
def eve(make_account):
    return make_account("eve", Role.AUDITOR)


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


@pytest.mark.parametrize("path", ["queues", "workers", "health"])
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
