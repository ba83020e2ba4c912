"""Prometheus scrapes it: from this machine, or with an auditor's token."""

import math
import re
from itertools import product

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import func
from starlette.requests import HTTPConnection

import genonaut
from genonaut.api import auth
from genonaut.db.models import Heartbeat
from genonaut.domain.users import Role

PATH = "/metrics"
FORWARDED = {"X-Forwarded-For": "127.0.0.1"}


def values(answer):
    """Read the page: the value of each series."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_program_on_this_machine_needs_no_login(anyone):
    answer = anyone.get(PATH)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    found = values(answer)
    assert found["genonaut_up",] == 1
    assert found["genonaut_build_info", genonaut.__version__] == 1
    assert anyone.head(PATH).content == b""


def test_another_needs_the_login_of_an_auditor(anyone, make_account, visit):
    assert anyone.get(PATH, headers=FORWARDED).status_code == 401
    bad = {**FORWARDED, "Authorization": "Bearer gn_no"}
    assert anyone.get(PATH, headers=bad).status_code == 401
    for role, status in ((Role.USER, 403), (Role.AUDITOR, 200), (Role.ADMIN, 200)):
        client = make_account(f"a-{role}", role).client
        assert client.get(PATH, headers=FORWARDED).status_code == status
    assert visit("olga", Role.AUDITOR).get(PATH, headers=FORWARDED).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {"Forwarded": "for=127.0.0.1"},
        {"X-Forwarded-For": ""},
        {"X-Forwarded-Proto": "https"},
        {"x-real-ip": "127.0.0.1"},
        {"Via": "1.1 proxy"},
        {"Host": "pictures.example"},
        {"Host": "127.0.0.1.example"},
        {"Host": "[::1"},
    ],
)
def test_what_a_proxy_passed_on_is_not_of_this_machine(anyone, header):
    assert anyone.get(PATH, headers=header).status_code == 401


@pytest.mark.parametrize(
    ("peer", "host", "is_local"),
    [
        ("127.0.0.1", "127.0.0.1:8001", True),
        ("127.0.0.1", "LocalHost", True),
        ("127.8.0.1", "127.8.0.1:8001", True),
        ("::1", "[::1]:8001", True),
        ("192.0.2.7", "127.0.0.1:8001", False),
        ("2001:db8::7", "localhost", False),
        ("testclient", "localhost", False),
        ("127.0.0.1", "", False),
        (None, "localhost", False),  # a Unix socket
    ],
)
def test_a_peer_is_local_by_its_address_and_what_it_asks_for(peer, host, is_local):
    client = None if peer is None else (peer, 5000)
    scope = {"type": "http", "client": client, "headers": [(b"host", host.encode())]}
    assert auth.is_local(HTTPConnection(scope)) is is_local


def test_it_tells_of_work_and_workers(
    anyone, database, make_job, make_claim, make_run, make_address, make_delivery
):
    make_job(available_at=func.now() - func.make_interval(0, 0, 0, 0, 0, 10))
    make_claim()
    make_run(queue='of "old"\n')
    make_delivery(make_address())
    with database.transaction() as session:
        for name, ago_s in (("w1", 5), ("w2", 500)):
            seen = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, ago_s)
            info = {"queues": ["generation"]}
            session.add(
                Heartbeat(name=name, kind="worker", started_at=seen, seen_at=seen, info=info)
            )
    found = values(anyone.get(PATH))
    assert found["genonaut_queue_depth", "generation"] == 1
    assert found["genonaut_queue_running", "generation"] == 1
    assert found["genonaut_queue_unpublished", "generation"] == 1
    assert found["genonaut_queue_oldest_waiting_seconds", "generation"] == pytest.approx(600, abs=9)
    assert found["genonaut_queue_oldest_waiting_seconds", "default"] == 0
    assert found["genonaut_queue_depth", 'of "old"\n'] == 1
    assert found["genonaut_queue_workers", "generation"] == 1
    assert found["genonaut_heartbeat_age_seconds", "worker"] == pytest.approx(5, abs=4)
    assert found["genonaut_heartbeat_age_seconds", "beat"] == math.inf
    assert found["genonaut_jobs", "pending"] == found["genonaut_jobs", "running"] == 1
    assert found["genonaut_runs", "pending"] == 1
    assert found["genonaut_deliveries", "email", "pending"] == 1
    assert found["genonaut_delivery_oldest_waiting_seconds", "email"] >= 0
    assert found["genonaut_deliveries", "webhook", "running"] == 0
    assert found["genonaut_schedules_late",] == found["genonaut_schedule_lateness_seconds",] == 0
    for name, state in product(("runs", "deliveries"), ("completed", "failed", "skipped")):
        assert found[f"genonaut_recent_{name}", state] == 0
    assert found["genonaut_recent_job_attempts", "worker_lost"] == 0


def test_names_and_labels_follow_the_conventions(anyone, make_job):
    make_job(prompt="nobody else's business")
    text = anyone.get(PATH).text
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) > 15
    labels = set()
    for family in families:
        assert re.fullmatch(r"genonaut(_[a-z]+)+", family.name)
        assert not family.name.endswith(("_total", "_s", "_count", "_sum"))
        assert family.type == "gauge"
        assert family.documentation
        assert family.samples
        labels |= {label for sample in family.samples for label in sample.labels}
    assert labels == {"version", "queue", "status", "channel", "role", "outcome"}
    assert "business" not in text
    assert text.endswith("\n")


def test_the_description_says_that_a_login_is_not_always_wanted(anyone):
    told = anyone.get("/openapi.json").json()["paths"][PATH]["get"]
    assert told["security"][0] == {}
    assert {"200", "401", "403", "503"} <= told["responses"].keys()
    assert "text/plain" in told["responses"]["200"]["content"]


def test_a_scrape_is_five_statements(anyone, queries, make_job):
    anyone.get(PATH)
    assert queries(lambda: anyone.get(PATH)) == 5
    make_job()
    assert queries(lambda: anyone.get(PATH)) == 5
