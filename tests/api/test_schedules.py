"""Schedules over HTTP: made, edited, paused, tried and removed, and the record of it."""

import json
import threading
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import Field
from sqlalchemy import func, select, text

from genonaut.core.clock import utcnow
from genonaut.db.models import AuditEntry, Schedule, TaskRun
from genonaut.domain import schedule_defaults
from genonaut.domain.users import Role
from genonaut.worker import defaults, discovery, task
from genonaut.worker.reckoning import reckon_after
from genonaut.worker.task import TaskContext, TaskParams, TaskResult

ADMIN = "/api/v1/admin"
PATH = f"{ADMIN}/schedules"
STATS = "content.refresh_stats"
HOURLY = "content.refresh_stats.hourly"
NIGHTLY = {"name": "nightly", "task": STATS, "cron": "30 2 * * *", "timezone": "Europe/Berlin"}
TERMS = {name: value for name, value in NIGHTLY.items() if name != "name"}
HEADERS = {"Content-Type": "application/json"}


@pytest.fixture
def olga(make_account):
    return make_account("olga", Role.OPERATOR)


@pytest.fixture
def eve(make_account):
    return make_account("eve", Role.AUDITOR)


@pytest.fixture
def from_code(database):
    """Store what the code declares; give the name of one."""
    discovery.load()
    with database.transaction() as session:
        schedule_defaults.synchronise(session, defaults.declared(), reckon_after(utcnow()))
    return HOURLY


@pytest.fixture
def nightly(olga):
    answer = olga.client.post(PATH, json=NIGHTLY)
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture
def audited(database):
    def read() -> list[tuple]:
        with database.transaction() as session:
            rows = session.scalars(select(AuditEntry).order_by(AuditEntry.id))
            return [(row.actor, row.action, row.target, row.details) for row in rows]

    return read


@pytest.fixture
def was_due(database):
    """Let a schedule have been due for so many seconds."""

    def change(name: str, ago_s: int) -> None:
        with database.transaction() as session:
            session.execute(
                text(
                    "UPDATE schedules SET next_due_at = now() - make_interval(secs => :s)"
                    " WHERE name = :n"
                ),
                {"s": ago_s, "n": name},
            )

    return change


class Words(TaskParams):
    """A word."""

    word: str = Field(default="", description="Any.")


class Nothing(TaskResult):
    """Nothing to tell."""


@pytest.fixture
def wordy():
    @task.task("test.wordy", title="For a test", dry_run=True, overlap="allow")
    def work(ctx: TaskContext, params: Words) -> Nothing:
        """Do nothing."""
        return Nothing()

    yield "test.wordy"
    task.forget("test.wordy")


def count(database, model) -> int:
    with database.transaction() as session:
        return session.scalars(select(func.count()).select_from(model)).one()


def of_version(version: int) -> dict[str, str]:
    return {"If-Match": f'"{version}"'}


def moment(value: str) -> datetime:
    return datetime.fromisoformat(value)


def test_one_is_made_answered_with_its_place_read_and_listed(olga, eve, audited):
    answer = olga.client.post(PATH, json={**NIGHTLY, "cron": " 30  2 * * * "})
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"{PATH}/nightly")
    assert answer.headers["etag"] == '"1"'
    assert (made["source"], made["version"], made["late_s"]) == ("operator", 1, 0)
    assert (made["cron"], made["params"]) == ("30 2 * * *", {"days": None})
    assert utcnow() < moment(made["next_due_at"]) < utcnow() + timedelta(days=1, hours=1)
    read = eve.client.get(answer.headers["location"])
    assert (read.json(), read.headers["etag"]) == (made, '"1"')
    listed = eve.client.get(PATH).json()
    assert listed == {"paused": None, "items": [made], "next_cursor": None}
    [(actor, act, target, details)] = audited()
    assert (actor, act, target) == ("olga", "schedule.create", "schedule:nightly")
    assert details["after"]["cron"] == "30 2 * * *"


def test_pages_follow_each_other_by_name(olga, eve):
    names = ["a", "b.x", "c-1", "d_2", "e"]
    for name in reversed(names):
        body = {"name": name, "task": STATS, "every_s": 60}
        assert olga.client.post(PATH, json=body).status_code == 201
    seen, url = [], f"{PATH}?limit=2"
    while url:
        answer = eve.client.get(url)
        seen += [item["name"] for item in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url")
    assert seen == names
    assert eve.client.get(PATH, params={"task": "other"}).json()["items"] == []


def test_users_see_nothing_and_auditors_act_on_nothing(ada, eve, nightly, database, audited):
    one = f"{PATH}/nightly"
    for path in (PATH, one, f"{one}/preview"):
        assert ada.client.get(path).status_code == 403
        assert eve.client.get(path).status_code == 200
    assert ada.client.post(f"{PATH}/preview", json={"every_s": 5}).status_code == 403
    acts = [
        ("POST", PATH, {**NIGHTLY, "name": "other"}),
        ("PUT", one, TERMS),
        ("DELETE", one, None),
        *[("POST", f"{one}/{act}", None) for act in ("pause", "resume", "run")],
        *[("POST", f"{ADMIN}/{act}", None) for act in ("pause", "resume")],
    ]
    for who in (ada, eve):
        for method, path, body in acts:
            answer = who.client.request(method, path, json=body, headers=of_version(1))
            assert answer.status_code == 403, (method, path)
    assert eve.client.get(one).json() == nightly
    assert (len(audited()), count(database, TaskRun)) == (1, 0)


@pytest.mark.parametrize(
    ("pointer", "change"),
    [
        ("#/cron", {"cron": "0 0 31 2 *"}),
        ("#/cron", {"cron": "61 * * * *"}),
        ("#/cron", {"cron": "hourly"}),
        ("#/cron", {"cron": ""}),
        ("#/cron", {"cron": None}),
        ("#/cron", {"cron": "*" * 256}),
        ("#/cron", {"cron": "a\0b"}),
        ("#/every_s", {"every_s": 60}),
        ("#/every_s", {"cron": None, "every_s": 0}),
        ("#/every_s", {"cron": None, "every_s": 2**40}),
        ("#/every_s", {"cron": None, "every_s": 1.5}),
        ("#/anchor_at", {"anchor_at": "2026-01-05T10:00:00"}),
        ("#/anchor_at", {"anchor_at": 5}),
        ("#/anchor_at", {"anchor_at": "9999-12-31T23:59:59-14:00"}),
        ("#/timezone", {"timezone": "Europe/Atlantis"}),
        ("#/timezone", {"timezone": "../etc/passwd"}),
        ("#/timezone", {"timezone": "\ud800"}),
        ("#/task", {"task": "no.such"}),
        ("#/task", {"task": "\0"}),
        ("#/params/days", {"params": {"days": "many"}}),
        ("#/params/nope", {"params": {"nope": 1}}),
        ("#/params", {"params": {"days": float("nan")}}),
        ("#/overlap", {"overlap": "never"}),
        ("#/missed", {"missed": "run_twice"}),
        ("#/late_limit_s", {"late_limit_s": -1}),
        ("#/jitter_s", {"jitter_s": 86401}),
        ("#/odd", {"odd": 1}),
    ],
)
def test_a_wrong_field_is_named_when_one_is_made_and_when_it_is_edited(
    olga, nightly, database, pointer, change
):
    for method, path, body in (
        ("POST", PATH, {**NIGHTLY, "name": "other", **change}),
        ("PUT", f"{PATH}/nightly", {**TERMS, **change}),
    ):
        headers = {**HEADERS, **of_version(1)}
        answer = olga.client.request(method, path, content=json.dumps(body), headers=headers)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["pointer"] == pointer
    assert count(database, Schedule) == 1
    assert olga.client.get(f"{PATH}/nightly").json() == nightly


@pytest.mark.parametrize("name", ["", "a/b", "-x", "A", "é", "a b", "x" * 101, "a\0", None, 5])
def test_a_wrong_name_is_refused(olga, database, name):
    answer = olga.client.post(PATH, json={**NIGHTLY, "name": name})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/name")
    assert count(database, Schedule) == 0


@pytest.mark.parametrize(
    ("name", "status"),
    [("a%2Fb", 404), ("a/b", 404), ("no.such", 404), ("%00", 422), ("A", 422), ("x" * 101, 422)],
)
def test_an_address_of_none_is_said_to_be_none(olga, name, status):
    headers = of_version(1)
    for answer in (
        olga.client.get(f"{PATH}/{name}"),
        olga.client.put(f"{PATH}/{name}", json=TERMS, headers=headers),
        olga.client.delete(f"{PATH}/{name}", headers=headers),
        olga.client.get(f"{PATH}/{name}/preview"),
        *[olga.client.post(f"{PATH}/{name}/{act}") for act in ("pause", "resume", "run")],
    ):
        assert answer.status_code == status, (answer.url, answer.text)
        assert answer.json()["detail"]


def test_a_taken_name_is_a_conflict(olga, nightly, audited):
    answer = olga.client.post(PATH, json=NIGHTLY)
    assert (answer.status_code, answer.json()["code"]) == (409, "name_taken")
    assert len(audited()) == 1


def test_what_is_too_large_or_too_deep_is_refused_in_few_words(olga, wordy, database):
    deep: dict = {}
    for _ in range(40):
        deep = {"a": deep}
    for params in ({"word": "x" * 2**20}, {"x" * 2**20: 1}, deep):
        body = {"name": "big", "task": wordy, "every_s": 60, "params": params}
        answer = olga.client.post(PATH, json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"].startswith("#/params")
        assert len(answer.text) < 4000
    body["params"] = {"word": "x" * 3 * 2**20}
    assert olga.client.post(PATH, json=body).status_code == 413
    assert count(database, Schedule) == 0


def test_an_edit_replaces_all_terms_and_only_of_the_version_that_was_read(olga, nightly, audited):
    path = f"{PATH}/nightly"
    changed = {"task": STATS, "every_s": 900, "params": {"days": 3}, "overlap": "wait"}
    missing = olga.client.put(path, json=changed)
    assert (missing.status_code, missing.json()["code"]) == (428, "precondition_required")
    for stale in ('"2"', "1", 'W/"1"', "", "x, y"):
        answer = olga.client.put(path, json=changed, headers={"If-Match": stale})
        assert (answer.status_code, answer.json()["code"]) == (412, "stale_version"), stale
    answer = olga.client.put(path, json=changed, headers=of_version(1))
    row = answer.json()
    assert (answer.status_code, answer.headers["etag"], row["version"]) == (200, '"2"', 2)
    assert (row["cron"], row["every_s"], row["timezone"]) == (None, 900, "UTC")
    assert moment(row["next_due_at"]) <= utcnow() + timedelta(seconds=900)
    assert olga.client.put(path, json=TERMS, headers=of_version(1)).status_code == 412
    headers = {"If-Match": '"1", "2"'}
    assert olga.client.put(path, json=TERMS, headers=headers).status_code == 200
    _, (actor, act, target, details), _ = audited()
    assert (actor, act, target) == ("olga", "schedule.edit", "schedule:nightly")
    assert details["changes"] == {
        "cron": {"before": "30 2 * * *", "after": None},
        "every_s": {"before": None, "after": 900},
        "timezone": {"before": "Europe/Berlin", "after": "UTC"},
        "params": {"before": {"days": None}, "after": {"days": 3}},
        "overlap": {"before": None, "after": "wait"},
    }


def test_of_edits_at_once_one_wins_and_the_others_are_told(olga, nightly, audited):
    start = threading.Barrier(6)
    answers = []

    def edit(days: int) -> None:
        body = {**TERMS, "params": {"days": days}}
        start.wait()
        answers.append(olga.client.put(f"{PATH}/nightly", json=body, headers=of_version(1)))

    threads = [threading.Thread(target=edit, args=(days,)) for days in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
    [won] = [answer.json() for answer in answers if answer.is_success]
    assert olga.client.get(f"{PATH}/nightly").json() == won
    assert [act for _, act, *_ in audited()] == ["schedule.create", "schedule.edit"]


def test_one_from_the_code_is_edited_put_back_and_not_removed(olga, from_code):
    path = f"{PATH}/{from_code}"
    row = olga.client.get(path).json()
    assert (row["source"], row["is_edited"]) == ("code", False)
    terms = {"task": STATS, "cron": "5 * * * *"}
    edited = olga.client.put(path, json=terms, headers=of_version(row["version"])).json()
    assert (edited["source"], edited["is_edited"]) == ("code", True)
    assert edited["code_default"]["cron"] == "0 * * * *"
    refused = olga.client.delete(path, headers=of_version(edited["version"]))
    assert (refused.status_code, refused.json()["code"]) == (409, "declared_in_code")
    assert "pause it instead" in refused.json()["detail"]
    back = olga.client.put(path, json=row["code_default"], headers={"If-Match": "*"}).json()
    assert (back["is_edited"], back["cron"]) == (False, "0 * * * *")


def test_one_is_removed_of_the_version_that_was_read(olga, nightly, audited):
    path = f"{PATH}/nightly"
    assert olga.client.delete(path).status_code == 428
    assert olga.client.delete(path, headers=of_version(7)).status_code == 412
    answer = olga.client.delete(path, headers=of_version(1))
    assert (answer.status_code, answer.content) == (204, b"")
    assert olga.client.get(path).status_code == 404
    *_, (_, act, target, details) = audited()
    assert (act, target) == ("schedule.remove", "schedule:nightly")
    assert details["before"]["cron"] == "30 2 * * *"


def test_one_is_paused_told_of_and_resumed(olga, nightly, audited):
    until = (utcnow() + timedelta(hours=2)).isoformat()
    body = {"reason": "the disk is full", "until": until}
    answer = olga.client.post(f"{PATH}/nightly/pause", json=body)
    row = answer.json()
    assert (answer.status_code, answer.headers["etag"]) == (200, '"2"')
    assert (row["next_due_at"], row["paused"]["by"]) == (None, "olga")
    assert row["paused"]["reason"] == "the disk is full"
    assert moment(row["paused"]["until"]) == moment(until)
    row = olga.client.post(f"{PATH}/nightly/pause").json()
    assert (row["paused"]["reason"], row["paused"]["until"]) == (None, None)
    row = olga.client.post(f"{PATH}/nightly/resume").json()
    assert row["paused"] is None
    assert moment(row["next_due_at"]) > utcnow()
    assert olga.client.post(f"{PATH}/nightly/resume").json() == row
    told = [(act, details.get("changes")) for _, act, _, details in audited()][1:]
    acts = ["schedule.pause", "schedule.pause", "schedule.resume", "schedule.resume"]
    assert [act for act, _ in told] == acts
    assert told[0][1]["paused"]["before"] is None
    assert told[0][1]["paused"]["after"]["reason"] == "the disk is full"
    assert told[2][1]["paused"]["after"] is None
    assert told[3][1] == {}


@pytest.mark.parametrize("until", ["2020-01-01T00:00:00Z", "2099-01-01T00:00:00", "soon", 5, ""])
def test_a_pause_ends_at_a_time_to_come(olga, nightly, until):
    for path in (f"{PATH}/nightly/pause", f"{ADMIN}/pause"):
        answer = olga.client.post(path, json={"until": until})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/until")
    assert olga.client.get(PATH).json()["paused"] is None
    assert olga.client.get(f"{PATH}/nightly").json() == nightly


def test_all_are_paused_and_resumed_but_those_paused_by_themselves(
    olga, eve, nightly, from_code, was_due, audited
):
    olga.client.post(f"{PATH}/nightly/pause")
    was_due(from_code, 7200)
    paused = olga.client.post(f"{ADMIN}/pause", json={"reason": "we move"}).json()["paused"]
    assert (paused["by"], paused["reason"], paused["until"]) == ("olga", "we move", None)
    listed = eve.client.get(PATH).json()
    assert listed["paused"] == paused
    late = {item["name"]: item["late_s"] for item in listed["items"]}
    assert {HOURLY, "nightly"} <= set(late)
    assert not any(late.values())
    assert olga.client.post(f"{ADMIN}/resume").json() == {"paused": None}
    assert eve.client.get(PATH).json()["paused"] is None
    assert moment(eve.client.get(f"{PATH}/{from_code}").json()["next_due_at"]) > utcnow()
    assert eve.client.get(f"{PATH}/nightly").json()["paused"] is not None
    olga.client.post(f"{ADMIN}/resume")
    told = [(act, target) for _, act, target, _ in audited()][2:]
    acts = ("schedules.pause", "schedules.resume", "schedules.resume")
    assert told == [(act, "schedule:*") for act in acts]
    assert audited()[-1][3] == {"changes": {}}


def test_one_is_run_now_with_its_parameters_and_its_due_time_stays(api, olga, wordy, audited):
    body = {"name": "w", "task": wordy, "every_s": 86400, "params": {"word": "hello"}}
    made = olga.client.post(PATH, json=body).json()
    api.dispatched.events.clear()
    asked = {"reason": "to try", "dry_run": True}
    answer = olga.client.post(f"{PATH}/w/run", json=asked)
    run = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (202, f"{ADMIN}/runs/{run['id']}")
    assert (run["params"], run["dry_run"]) == ({"word": "hello"}, True)
    assert (run["trigger"], run["actor"], run["schedule"], run["due_at"]) == (
        "api",
        "olga",
        None,
        None,
    )
    assert [(event.kind, event.id) for event in api.dispatched.events] == [("run", run["id"])]
    assert olga.client.get(f"{PATH}/w").json() == made
    *_, (actor, act, target, details) = audited()
    assert (actor, act, target) == ("olga", "schedule.run", "schedule:w")
    assert (details["run_id"], details["reason"]) == (run["id"], "to try")


def test_a_repeated_run_under_its_key_is_one_and_its_own_overlap_counts(olga, wordy, database):
    body = {"name": "w", "task": wordy, "every_s": 86400, "overlap": "skip"}
    olga.client.post(PATH, json=body)
    key = {"Idempotency-Key": "k1"}
    first = olga.client.post(f"{PATH}/w/run", headers=key)
    again = olga.client.post(f"{PATH}/w/run", headers=key)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.json() == first.json()
    another = olga.client.post(f"{PATH}/w/run", json={"reason": "other"}, headers=key)
    assert another.status_code == 422
    live = olga.client.post(f"{PATH}/w/run")
    assert (live.status_code, live.json()["id"]) == (200, first.json()["id"])
    assert count(database, TaskRun) == 1


def test_a_dry_run_is_refused_where_the_task_has_none(olga, nightly, database):
    answer = olga.client.post(f"{PATH}/nightly/run", json={"dry_run": True})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "#/dry_run")
    assert count(database, TaskRun) == 0


def test_one_whose_task_is_gone_is_shown_and_not_run(olga, wordy, database):
    olga.client.post(PATH, json={"name": "w", "task": wordy, "every_s": 60})
    task.forget(wordy)
    assert olga.client.get(f"{PATH}/w").json()["task"] == wordy
    assert len(olga.client.get(f"{PATH}/w/preview").json()["items"]) == 10
    answer = olga.client.post(f"{PATH}/w/run")
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_task")
    olga.client.post(f"{PATH}/w/pause")
    resumed = olga.client.post(f"{PATH}/w/resume")
    assert resumed.status_code == 200
    assert "there is no task" in resumed.json()["disabled_reason"]


def test_a_preview_is_in_the_zone_of_the_schedule(eve, nightly):
    answer = eve.client.get(f"{PATH}/nightly/preview", params={"n": 3}).json()
    assert (answer["timezone"], len(answer["items"])) == ("Europe/Berlin", 3)
    assert answer["items"][0]["due_at"] == nightly["next_due_at"]
    for item in answer["items"]:
        assert moment(item["local"]) == moment(item["due_at"])
        assert item["local"][11:16] == "02:30"
    for n in ("0", "101", "x"):
        assert eve.client.get(f"{PATH}/nightly/preview", params={"n": n}).status_code == 422


def test_a_preview_of_what_is_not_stored_marks_the_changes_of_the_clock(eve, database):
    body = {"cron": "30 2 * 3,10 sun", "timezone": "Europe/Berlin"}
    items = eve.client.post(f"{PATH}/preview?n=20", json=body).json()["items"]
    marks = {item["local"][5:7]: item["mark"] for item in items if item["mark"]}
    assert marks == {"03": "gap", "10": "fold"}
    far = {"every_s": 366 * 86400, "anchor_at": "8999-12-31T00:00:00Z"}
    assert len(eve.client.post(f"{PATH}/preview?n=100", json=far).json()["items"]) == 100
    rare = {"cron": "0 0 29 2 sun"}
    assert len(eve.client.post(f"{PATH}/preview?n=100", json=rare).json()["items"]) == 100
    never = eve.client.post(f"{PATH}/preview", json={"cron": "0 0 31 2 *"})
    assert never.json()["errors"][0]["pointer"] == "#/cron"
    assert count(database, Schedule) == 0


def test_what_is_late_is_told_with_it_and_makes_health_red(olga, eve, nightly, was_due):
    def checked():
        found = eve.client.get(f"{ADMIN}/health").json()["checks"]
        return next(check for check in found if check["name"] == "schedules")

    assert checked()["ok"]
    was_due("nightly", 30)
    assert checked()["ok"]
    was_due("nightly", 90)
    check = checked()
    assert not check["ok"]
    assert "late: 1, the first (nightly) for 9" in check["detail"]
    assert (check["limit"], check["unit"]) == (60, "s")
    assert eve.client.get(f"{PATH}/nightly").json()["late_s"] == pytest.approx(90, abs=5)
    olga.client.post(f"{PATH}/nightly/pause")
    assert checked()["ok"]
    assert eve.client.get(PATH).json()["items"][0]["late_s"] == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", PATH, {**NIGHTLY, "name": "other"}),
        ("PUT", f"{PATH}/nightly", {**TERMS, "cron": "0 5 * * *"}),
        ("DELETE", f"{PATH}/nightly", None),
        ("POST", f"{PATH}/nightly/pause", None),
        ("POST", f"{PATH}/nightly/run", None),
        ("POST", f"{ADMIN}/pause", None),
    ],
)
def test_nothing_is_done_that_cannot_be_written_down(olga, nightly, database, method, path, body):
    with database.transaction() as session:
        session.execute(text("ALTER TABLE audit_log ADD CONSTRAINT no CHECK (false) NOT VALID"))
    try:
        answer = olga.client.request(method, path, json=body, headers=of_version(1))
    finally:
        with database.transaction() as session:
            session.execute(text("ALTER TABLE audit_log DROP CONSTRAINT no"))
    assert answer.status_code == 500
    listed = olga.client.get(PATH).json()
    assert (listed["items"], listed["paused"]) == ([nightly], None)
    assert count(database, TaskRun) == 0


def test_an_interval_counts_from_its_anchor(olga):
    anchor = datetime(2026, 1, 1, 0, 7, tzinfo=UTC)
    body = {"name": "i", "task": STATS, "every_s": 3600, "anchor_at": anchor.isoformat()}
    made = olga.client.post(PATH, json=body).json()
    assert moment(made["anchor_at"]) == anchor
    assert moment(made["next_due_at"]).minute == 7
