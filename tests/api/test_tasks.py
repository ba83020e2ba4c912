"""Tasks over HTTP: the catalogue, and asking for runs."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import func, select, text

from genonaut.db.models import AuditEntry, TaskRun
from genonaut.domain import run_attempts
from genonaut.domain.users import Role
from genonaut.worker import task
from genonaut.worker.task import TaskContext, TaskParams, TaskResult

TASKS = "/api/v1/admin/tasks"
STATS = f"{TASKS}/content.refresh_stats"
RUNS = "/api/v1/admin/runs"


@pytest.fixture
def olga(make_account):
    return make_account("olga", Role.OPERATOR)


@pytest.fixture
def eve(make_account):
    return make_account("eve", Role.AUDITOR)


def audited(database) -> list[tuple]:
    with database.transaction() as session:
        rows = session.scalars(select(AuditEntry).order_by(AuditEntry.id))
        return [(row.actor, row.action, row.target, row.details) for row in rows]


def count_runs(database) -> int:
    with database.transaction() as session:
        return session.scalars(select(func.count()).select_from(TaskRun)).one()


@contextmanager
def audit_refused(database) -> Iterator[None]:
    with database.transaction() as session:
        session.execute(
            text(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
                "CREATE TRIGGER refuse BEFORE INSERT ON audit_log FOR EACH ROW"
                " EXECUTE FUNCTION refuse()"
            )
        )
    try:
        yield
    finally:
        with database.transaction() as session:
            session.execute(text("DROP FUNCTION refuse CASCADE"))


class NoParams(TaskParams):
    """Nothing to choose."""


class Nothing(TaskResult):
    """Nothing to tell."""


@pytest.fixture
def declared():
    """Declare tasks of a test's own."""
    names: list[str] = []

    def declare(name: str, **options):
        def work(ctx: TaskContext, params: NoParams) -> Nothing:
            """Do nothing."""
            return Nothing()

        names.append(name)
        return task.task(name, title="For a test", **options)(work)

    yield declare
    for name in names:
        task.forget(name)


def test_the_catalogue_lists_every_task_with_the_schema_of_its_parameters(eve):
    items = {item["name"]: item for item in eve.client.get(TASKS).json()["items"]}
    assert list(items) == sorted(items)
    shown = items["content.refresh_stats"]
    assert shown["params_schema"]["properties"]["days"]["description"]
    assert eve.client.get(STATS).json() == shown


def test_an_unknown_task_is_said_to_be_unknown(olga):
    for answer in (
        olga.client.get(f"{TASKS}/no.such"),
        olga.client.post(f"{TASKS}/x/runs", json={}),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_task")


def test_users_see_nothing_and_auditors_act_on_nothing(ada, eve, database):
    for path in (TASKS, STATS, RUNS, f"{RUNS}/1", f"{RUNS}/1/failures", "/api/v1/admin/audit"):
        answer = ada.client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), path
    for who in (ada, eve):
        for path in (f"{STATS}/runs", f"{TASKS}/no.such/runs"):
            assert who.client.post(path, json={}).status_code == 403
        for act in ("cancel", "retry"):
            assert who.client.post(f"{RUNS}/1/{act}").status_code == 403
    assert (count_runs(database), audited(database)) == (0, [])


def test_a_run_is_stored_audited_answered_with_its_place_and_handed_to_the_queue(
    api, olga, eve, database
):
    api.dispatched.events.clear()
    body = {"params": {"days": 7}, "reason": "after the import"}
    answer = olga.client.post(f"{STATS}/runs", json=body)
    run = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{RUNS}/{run['id']}")
    assert (run["status"], run["params"], run["dry_run"]) == ("pending", {"days": 7}, False)
    assert (run["trigger"], run["actor"], run["reason"]) == ("api", "olga", "after the import")
    assert [(event.kind, event.id) for event in api.dispatched.events] == [("run", run["id"])]
    read = eve.client.get(answer.headers["location"])
    assert read.json() == {**run, "log_tail": [], "failed": []}
    told = {"task": "content.refresh_stats", "reason": "after the import", "is_new": True}
    assert audited(database) == [("olga", "run.trigger", f"run:{run['id']}", told)]


def test_the_way_a_run_was_asked_for_is_kept(olga, anyone, declared):
    declared("test.allowed", overlap="allow")
    path = f"{TASKS}/test.allowed/runs"
    agent = {"User-Agent": "genonaut-cli/1.0"}
    assert olga.client.post(path, json={}, headers=agent).json()["trigger"] == "cli"
    csrf = anyone.post("/api/v1/session", json={"token": olga.token}).json()["csrf_token"]
    assert anyone.post(path, json={}).status_code == 403
    by_page = anyone.post(path, json={}, headers={"X-CSRF-Token": csrf, **agent})
    assert by_page.json()["trigger"] == "manual"


@pytest.mark.parametrize(
    ("pointer", "body"),
    [
        ("#/params/nope", {"params": {"nope": 1}}),
        ("#/params/days", {"params": {"days": "many"}}),
        ("#/params/days", {"params": {"days": 0}}),
        ("#/params/days", {"params": {"days": 1.5}}),
        ("#/params", {"params": []}),
        ("#/params", {"params": {"days": float("nan")}}),
        ("#/params", {"params": {"days": "a\0b"}}),
        ("#/params", {"params": {"\udfff": 1}}),
        ("#/params", {"params": {"days": [[[]] * 2] * 2, "x": {"y": "\ud800"}}}),
        ("#/dry_run", {"dry_run": "yes"}),
        ("#/reason", {"reason": "x" * 2001}),
        ("#/reason", {"reason": "a\0b"}),
        ("#/odd", {"odd": 1}),
    ],
)
def test_a_wrong_field_is_named(olga, database, pointer, body):
    answer = olga.client.post(
        f"{STATS}/runs", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert answer.json()["detail"].startswith(pointer.removeprefix("#/").replace("/", "."))
    assert (count_runs(database), audited(database)) == (0, [])


def test_what_is_too_large_or_too_deep_is_refused_in_few_words(olga, database):
    deep: dict = {}
    for _ in range(40):
        deep = {"a": deep}
    for params in ({"days": "x" * 2**20}, {"x" * 2**20: 1}, deep):
        answer = olga.client.post(f"{STATS}/runs", json={"params": params})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith("#/params")
        assert len(answer.text) < 4000
    answer = olga.client.post(f"{STATS}/runs", json={"params": {"days": "x" * 3 * 2**20}})
    assert answer.status_code == 413
    assert count_runs(database) == 0


def test_a_second_request_gets_the_live_run_and_another_one_is_told_of_it(olga, database):
    first = olga.client.post(f"{STATS}/runs", json={"params": {"days": 1}})
    second = olga.client.post(f"{STATS}/runs", json={"params": {"days": 1}})
    assert (second.status_code, second.json()) == (200, first.json())
    assert second.headers["location"] == first.headers["location"]
    other = olga.client.post(f"{STATS}/runs", json={})
    assert (other.status_code, other.json()["code"]) == (409, "already_running")
    assert other.json()["run_id"] == first.json()["id"]
    assert str(first.json()["id"]) in other.json()["detail"]
    assert count_runs(database) == 1
    assert [details["is_new"] for *_, details in audited(database)] == [True, False]


def test_one_that_waits_stands_for_further_requests(olga, database, declared):
    declared("test.waiting", overlap="wait")
    path = f"{TASKS}/test.waiting/runs"
    answers = [olga.client.post(path, json={}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 200]
    first, second, third = (answer.json() for answer in answers)
    assert (first["held_back"], second["held_back"]) == (False, True)
    assert second["id"] == third["id"] != first["id"]


def test_a_dry_run_is_asked_for_where_there_is_one(olga, declared):
    declared("test.dry", dry_run=True)
    answer = olga.client.post(f"{TASKS}/test.dry/runs", json={"dry_run": True})
    assert (answer.status_code, answer.json()["dry_run"]) == (202, True)
    answer = olga.client.post(f"{STATS}/runs", json={"dry_run": True})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/dry_run")
    assert "content.refresh_stats has no dry run" in answer.json()["detail"]


def test_a_repeated_request_is_answered_as_the_first_time(olga, database, declared):
    declared("test.allowed", overlap="allow")
    path = f"{TASKS}/test.allowed/runs"
    key = {"Idempotency-Key": "k"}
    first = olga.client.post(path, json={}, headers=key)
    with database.transaction() as session:
        held = run_attempts.claim(session, first.json()["id"], worker="w", lease_s=30)
        run_attempts.complete(session, held, {})
    again = olga.client.post(path, json={}, headers=key)
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    reused = olga.client.post(path, json={"reason": "other"}, headers=key)
    assert (reused.status_code, reused.json()["code"]) == (422, "idempotency_key_reused")
    assert (count_runs(database), len(audited(database))) == (1, 1)


def test_nothing_is_done_that_cannot_be_audited(api, olga, database):
    run = olga.client.post(f"{STATS}/runs", json={}).json()
    ended = olga.client.post(f"{RUNS}/{run['id']}/cancel").json()
    waiting = olga.client.post(f"{STATS}/runs", json={"params": {"days": 3}}).json()
    before = audited(database)
    with audit_refused(database):
        api.dispatched.events.clear()
        refused: list[httpx.Response] = [
            olga.client.post(f"{STATS}/runs", json={"params": {"days": 3}}),
            olga.client.post(f"{RUNS}/{waiting['id']}/cancel"),
        ]
        with database.transaction() as session:
            session.execute(text("UPDATE task_runs SET overlap_key = 'elsewhere'"))
        refused.append(olga.client.post(f"{RUNS}/{ended['id']}/retry"))
        refused.append(olga.client.post(f"{STATS}/runs", json={}))
    assert [answer.status_code for answer in refused] == [500] * 4
    assert all(answer.json()["code"] == "internal_error" for answer in refused)
    assert (api.dispatched.events, audited(database)) == ([], before)
    assert count_runs(database) == 2
    assert olga.client.get(f"{RUNS}/{waiting['id']}").json()["status"] == "pending"
