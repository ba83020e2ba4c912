"""Runs over HTTP: listing, reading, cancelling, repeating, and the record of it."""

import pytest
from sqlalchemy import text

from genonaut.domain import run_attempts, runs
from genonaut.domain.run_attempts import Failure
from genonaut.domain.runs import NewRun, Overlap, Trigger
from genonaut.domain.users import Role

RUNS = "/api/v1/admin/runs"
STATS = "/api/v1/admin/tasks/content.refresh_stats/runs"


@pytest.fixture
def olga(make_account):
    return make_account("olga", Role.OPERATOR)


@pytest.fixture
def eve(make_account):
    return make_account("eve", Role.AUDITOR)


@pytest.fixture
def make_run(database):
    """Store a pending run."""

    def make(task: str = "content.refresh_stats", **values) -> int:
        values = {"overlap": Overlap.ALLOW, "trigger": Trigger.API, **values}
        with database.transaction() as session:
            asked = NewRun(task=task, queue="maintenance", **values)
            return runs.trigger(session, asked).run.id

    return make


@pytest.fixture
def claim(database):
    def take(run_id: int) -> run_attempts.RunClaim:
        with database.transaction() as session:
            held = run_attempts.claim(session, run_id, worker="w", lease_s=30)
        assert held is not None
        return held

    return take


def ids(answer) -> list[int]:
    return [item["id"] for item in answer.json()["items"]]


def test_pages_follow_each_other_and_filters_narrow(eve, make_run, claim, database):
    made = [make_run() for _ in range(5)]
    other = make_run("other.task")
    held = claim(made[0])
    seen: list[int] = []
    url = f"{RUNS}?limit=4"
    while url:
        answer = eve.client.get(url)
        seen += ids(answer)
        url = answer.links.get("next", {}).get("url")
    assert seen == [other, *made[::-1]]
    assert ids(eve.client.get(RUNS, params={"task": "other.task"})) == [other]
    assert ids(eve.client.get(RUNS, params={"status": ["running", "failed"]})) == [held.row_id]
    assert ids(eve.client.get(RUNS, params={"schedule": "nightly"})) == []
    with database.transaction() as session:
        session.execute(text("UPDATE task_runs SET schedule = 'nightly', due_at = now()"
                             f" WHERE id = {other}"))  # fmt: skip
    assert ids(eve.client.get(RUNS, params={"schedule": "nightly"})) == [other]


@pytest.mark.parametrize("query", ["cursor=x", "limit=0", "status=odd", "task=%00", "schedule=%00"])
def test_a_wrong_query_names_its_parameter(eve, query):
    answer = eve.client.get(f"{RUNS}?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


def test_a_run_is_read_with_its_log_and_what_it_could_not_do(eve, make_run, claim, database):
    run_id = make_run()
    held = claim(run_id)
    with database.transaction() as session:
        failures = [Failure(f"image:{n}", "unreadable") for n in range(130)]
        run_attempts.fail_items(session, held, failures)
        line = {"at": "2026-01-05T10:00:00+00:00", "level": "info", "event": "counted", "n": 3}
        run_attempts.report(session, held, log_tail=[line], progress={"done": 1})
    run = eve.client.get(f"{RUNS}/{run_id}").json()
    assert (run["status"], run["failed_items"], run["log_tail"]) == ("running", 130, [line])
    assert [item["ref"] for item in run["failed"]] == [f"image:{n}" for n in range(100)]
    refs: list[str] = []
    url = f"{RUNS}/{run_id}/failures?limit=60"
    while url:
        answer = eve.client.get(url)
        refs += [item["ref"] for item in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url")
    assert refs == [f"image:{n}" for n in range(130)]
    listed = eve.client.get(RUNS).json()["items"]
    assert "log_tail" not in listed[0]


def test_a_run_that_is_not_there_is_not_found(olga):
    for method, path in (
        ("GET", ""), ("GET", "/failures"), ("POST", "/cancel"), ("POST", "/retry"),
    ):  # fmt: skip
        answer = olga.client.request(method, f"{RUNS}/{10**12}{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_waiting_run_is_cancelled_at_once_and_a_running_one_is_told_to_stop(
    olga, make_run, claim, database
):
    waiting, running = make_run(), make_run()
    answer = olga.client.post(f"{RUNS}/{waiting}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert olga.client.post(f"{RUNS}/{waiting}/cancel").status_code == 200
    held = claim(running)
    for _ in range(2):
        answer = olga.client.post(f"{RUNS}/{running}/cancel")
        assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
    with database.transaction() as session:
        run_attempts.cancelled(session, held)
    assert olga.client.post(f"{RUNS}/{running}/cancel").status_code == 200
    done = make_run()
    with database.transaction() as session:
        run_attempts.complete(session, claim(done), {})
    answer = olga.client.post(f"{RUNS}/{done}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "already_completed")
    listed = olga.client.get("/api/v1/admin/audit").json()["items"]
    assert [(e["actor"], e["action"], e["target"]) for e in listed] == [
        ("olga", "run.cancel", f"run:{run_id}")
        for run_id in (running, running, running, waiting, waiting)
    ]


def test_a_failed_run_is_repeated_from_where_it_stopped(olga, make_run, claim, database):
    old = make_run(params={"days": 3}, reason="why")
    refused = olga.client.post(f"{RUNS}/{old}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    held = claim(old)
    with database.transaction() as session:
        run_attempts.checkpoint(session, held, {"at": 7})
        run_attempts.fail(session, held, code="internal_error", message="no")
    answer = olga.client.post(f"{RUNS}/{old}/retry", headers={"Idempotency-Key": "r"})
    run = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{RUNS}/{run['id']}")
    assert (run["retry_of"], run["params"], run["has_checkpoint"]) == (old, {"days": 3}, True)
    assert (run["actor"], run["trigger"], run["reason"]) == ("olga", "api", "why")
    again = olga.client.post(f"{RUNS}/{old}/retry", headers={"Idempotency-Key": "r"})
    assert (again.status_code, again.json()) == (202, run)
    joined = olga.client.post(f"{RUNS}/{old}/retry")
    assert (joined.status_code, joined.json()["id"]) == (200, run["id"])
    entry = olga.client.get("/api/v1/admin/audit?limit=100").json()["items"][-1]
    assert (entry["action"], entry["target"]) == ("run.retry", f"run:{run['id']}")
    assert entry["details"] == {
        "task": "content.refresh_stats", "reason": "why", "is_new": True, "retry_of": old,
    }  # fmt: skip


def test_what_can_no_longer_be_run_is_not_repeated(olga, make_run):
    gone, wrong = make_run("gone.task"), make_run(params={"days": -1})
    for run_id in (gone, wrong):
        olga.client.post(f"{RUNS}/{run_id}/cancel")
    answer = olga.client.post(f"{RUNS}/{gone}/retry")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_task")
    answer = olga.client.post(f"{RUNS}/{wrong}/retry")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/params/days")


def test_a_retry_beside_a_live_run_of_other_parameters_is_told_of_it(olga):
    old = olga.client.post(STATS, json={"params": {"days": 1}}).json()["id"]
    olga.client.post(f"{RUNS}/{old}/cancel")
    live = olga.client.post(STATS, json={}).json()["id"]
    answer = olga.client.post(f"{RUNS}/{old}/retry")
    assert (answer.status_code, answer.json()["run_id"]) == (409, live)


def test_what_a_run_could_not_do_is_tried_alone(olga, eve, make_run, claim, database):
    whole, some = make_run("thumbnails.backfill"), make_run("thumbnails.backfill")
    with database.transaction() as session:
        run_attempts.complete(session, claim(whole), {})
    held = claim(some)
    with database.transaction() as session:
        run_attempts.fail_items(session, held, [Failure("content/1/images/0", "odd")])
        run_attempts.complete(session, held, {})
    assert eve.client.post(f"{RUNS}/{some}/retry-failed").status_code == 403
    answer = olga.client.post(f"{RUNS}/{some}/retry-failed")
    assert answer.status_code == 202
    made = answer.json()
    assert (made["params"]["only"], made["params"]["failed_in"]) == ("failed", some)
    assert made["task"] == "thumbnails.backfill"
    assert answer.headers["location"] == f"{RUNS}/{made['id']}"
    refused = olga.client.post(f"{RUNS}/{whole}/retry-failed")
    assert (refused.status_code, refused.json()["code"]) == (409, "nothing_failed")
    refused = olga.client.post(f"{RUNS}/{make_run()}/retry-failed")
    assert (refused.status_code, refused.json()["code"]) == (409, "not_alone")
    entry, *none = eve.client.get(f"/api/v1/admin/audit?target=run:{made['id']}").json()["items"]
    assert (entry["action"], entry["details"]["failed_in"]) == ("run.retry_failed", some)
    assert not none


def test_the_kin_of_a_run_is_listed(eve, make_run):
    old = make_run()
    part, again = make_run(parent_id=old), make_run(retry_of=old)
    assert ids(eve.client.get(f"{RUNS}?parent_id={old}")) == [part]
    assert ids(eve.client.get(f"{RUNS}?retry_of={old}")) == [again]
    assert eve.client.get(f"{RUNS}?retry_of={'9' * 30}").status_code == 422


def test_the_audit_log_is_read_page_by_page(olga, eve, make_run):
    for _ in range(3):
        olga.client.post(f"{RUNS}/{make_run()}/cancel")
    seen: list[int] = []
    url = "/api/v1/admin/audit?limit=2"
    while url:
        answer = eve.client.get(url)
        seen += ids(answer)
        url = answer.links.get("next", {}).get("url")
    assert len(seen) == 3
    assert seen == sorted(seen, reverse=True)
