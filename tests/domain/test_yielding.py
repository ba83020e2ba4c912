"""Work that can wait lets jobs go first, where jobs are worked on."""

from datetime import timedelta

import pytest

from genonaut.core.clock import utcnow
from genonaut.db.models import Heartbeat
from genonaut.domain.yielding import generation_waits


@pytest.fixture
def waits(session):
    def ask(host="here"):
        return generation_waits(session, queue="generation", host=host)

    return ask


@pytest.fixture
def worker(session):
    def add(name, *, age_s=0, queues=("generation",)):
        seen = utcnow() - timedelta(seconds=age_s)
        info = {"queues": list(queues)}
        session.add(Heartbeat(name=name, kind="worker", started_at=seen, seen_at=seen, info=info))
        session.flush()

    return add


def test_jobs_wait_only_where_a_worker_for_them_lives(waits, worker, make_job):
    worker("generation@here")
    worker("maintenance@there", queues=("maintenance",))
    assert not waits()
    make_job()
    assert waits()
    assert not waits("there")


def test_a_worker_that_is_gone_makes_nobody_wait(waits, worker, make_job):
    make_job()
    worker("generation@here", age_s=600)
    assert not waits()


def test_a_job_that_is_worked_on_does_not_wait(waits, worker, make_claim):
    worker("generation@here")
    make_claim()
    assert not waits()
