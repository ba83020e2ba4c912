"""The console: what auditors read and operators do."""

import re
import time

import pytest
from sqlalchemy import text

from genonaut.api.web import schema_forms
from genonaut.api.web.visitor import Form
from genonaut.domain import run_attempts, run_history, runs
from genonaut.domain.runs import NewRun, Overlap, Trigger
from genonaut.domain.users import Role
from genonaut.worker import discovery

PAGES = ("", "/runs", "/tasks", "/schedules", "/workers", "/stale", "/audit")
TASK = "content.refresh_stats"


@pytest.fixture
def make_run(database):
    def make(task: str = TASK, *, fail: str | None = None, **values) -> int:
        asked = NewRun(task, "maintenance", Trigger.API, overlap=Overlap.ALLOW, **values)
        with database.transaction() as session:
            run_id = runs.trigger(session, asked).run.id
        if fail is not None:
            with database.transaction() as session:
                held = run_attempts.claim(session, run_id, worker="w", lease_s=30)
                run_attempts.fail(session, held, code="broken", message=fail)
        return run_id

    return make


def shown(page) -> list[int]:
    return [int(one) for one in re.findall(r'href="/console/runs/(\d+)"', page.text)]


def test_users_do_not_come_in_and_auditors_only_read(visit, act, make_run):
    run_id = make_run()
    ada, eve, oscar = visit("ada"), visit("eve", Role.AUDITOR), visit("oscar", Role.OPERATOR)
    for path in (*PAGES, f"/runs/{run_id}", f"/tasks/{TASK}"):
        assert ada.get(f"/console{path}").status_code == 403, path
        assert eve.get(f"/console{path}").status_code == 200, path
        assert 'class="act"' not in eve.get(f"/console{path}").text, path
        assert oscar.get(f"/console{path}").status_code == 200, path
    for path in (f"/runs/{run_id}/cancel", f"/tasks/{TASK}", "/pause", "/resume"):
        assert act(eve, f"/console{path}").status_code == 403, path
        assert oscar.post(f"/console{path}").status_code == 403, path
    assert eve.get("/console/runs/999999").status_code == 404
    assert eve.get("/console/tasks/no.such").status_code == 404
    assert eve.get("/console/schedules/no.such").status_code == 404


def test_a_task_is_run_dry_from_its_form_and_the_run_is_cancelled_and_repeated(visit, act):
    oscar = visit("oscar", Role.OPERATOR)
    page = act(oscar, f"/console/tasks/{TASK}", **{"param.days": "7", "how": "run", "reason": "x"})
    assert "It is asked for." in page.text
    run_id = int(re.search(r"Run #(\d+)", page.text).group(1))
    assert "&#34;days&#34;: 7" in page.text
    assert "stop" in act(oscar, f"/console/runs/{run_id}/cancel").text
    assert 'data-status="cancelled"' in oscar.get(f"/console/runs/{run_id}").text
    again = act(oscar, f"/console/runs/{run_id}/retry")
    assert f'href="/console/runs/{run_id}">#{run_id}' in again.text
    said = oscar.get("/console/audit").text
    for deed in ("run.trigger", "run.cancel", "run.retry"):
        assert deed in said


def test_what_a_task_cannot_be_told_is_said_at_its_field(visit, act):
    oscar = visit("oscar", Role.OPERATOR)
    for typed in ("many", "-3"):
        page = act(oscar, f"/console/tasks/{TASK}", **{"param.days": typed, "how": "run"})
        assert page.status_code == 422
        assert re.search(r'id="param-days"[^>]*aria-invalid="true"', page.text)
        assert f'value="{typed}"' in page.text
    assert not shown(oscar.get("/console/runs"))


def test_every_task_has_a_form_whose_untouched_fields_are_accepted():
    for one in discovery.catalogue().values():
        fields = schema_forms.fields(one.public()["params_schema"])
        typed = {}
        for field in fields:
            if field.kind == "choices":
                typed[f"param.{field.name}"] = list(field.default or [])
            elif field.kind == "check":
                typed[f"param.{field.name}"] = ["1"] if field.default else [""]
            else:
                typed[f"param.{field.name}"] = [field.shown(field.default)]
            if field.required:
                typed[f"param.{field.name}"] = ["1"]
        params = schema_forms.read(fields, Form(None, typed))
        usual = {field.name for field in fields if not field.required}
        plain = one.validate({k: v for k, v in params.items() if k not in usual})
        assert one.validate(params) == plain, one.name


def test_runs_are_filtered_and_what_runs_each_minute_is_left_out(visit, make_run):
    eve = visit("eve", Role.AUDITOR)
    usual, minutely = make_run(), make_run("jobs.reap_stale")
    failed = make_run(fail="<b>broken</b>")
    assert set(shown(eve.get("/console/runs"))) == {usual, failed}
    assert set(shown(eve.get("/console/runs?all=1"))) == {usual, minutely, failed}
    assert set(shown(eve.get("/console/runs?task=jobs.reap_stale"))) == {minutely}
    page = eve.get("/console/runs?status=failed")
    assert set(shown(page)) == {failed}
    assert "&lt;b&gt;broken&lt;/b&gt;" in page.text
    assert eve.get("/console/runs?status=odd&task=odd").status_code == 200
    assert "broken" in eve.get("/console").text


def test_schedules_rest_and_go_on(visit, act, database):
    oscar = visit("oscar", Role.OPERATOR)
    token = oscar.get("/api/v1/me").json()["csrf_token"]
    made = oscar.post(
        "/api/v1/admin/schedules",
        json={"name": "stats.nightly", "task": TASK, "cron": "30 2 * * *"},
        headers={"X-CSRF-Token": token},
    )
    assert made.status_code == 201
    path = "/console/schedules/stats.nightly"
    assert path in oscar.get("/console/schedules").text
    assert oscar.get(path).text.count("<li>") == 10
    resting = act(oscar, f"{path}/pause", reason="a <i>move</i>", until="2099-01-05T10:00")
    assert "a &lt;i&gt;move&lt;/i&gt;" in resting.text
    assert "2099-01-05 10:00:00 UTC" in resting.text
    assert act(oscar, f"{path}/pause", until="soon").status_code == 422
    assert act(oscar, f"{path}/pause", until="1999-01-05T10:00").status_code == 422
    assert "It goes on." in act(oscar, f"{path}/resume").text
    assert "It is asked for." in act(oscar, f"{path}/run").text
    assert "Resume all" in act(oscar, "/console/pause").text
    assert "Pause all" in act(oscar, "/console/resume").text


def test_the_hours_count_what_ended_in_them(database, make_run):
    make_run(fail="x")
    with database.transaction() as session:
        hours = run_history.by_hour(session)
    assert len(hours) == 24
    assert [(hour.completed, hour.failed) for hour in hours[-2:]] in (
        [(0, 0), (0, 1)],
        [(0, 1), (0, 0)],
    )


def test_a_page_costs_as_much_of_ten_thousand_runs_as_of_a_hundred(visit, database, queries):
    eve = visit("eve", Role.AUDITOR)

    def fill(count: int) -> None:
        with database.transaction() as session:
            session.execute(
                text(
                    "INSERT INTO task_runs"
                    " (task, queue, trigger, status, celery_task_id, completed_at)"
                    " SELECT 'content.refresh_stats', 'maintenance', 'api', 'completed',"
                    " gen_random_uuid()::text, now() FROM generate_series(1, :count)"
                ),
                {"count": count},
            )

    def best() -> float:
        times = []
        for _ in range(7):
            began = time.perf_counter()
            assert eve.get("/console/runs").status_code == 200
            times.append(time.perf_counter() - began)
        return min(times)

    fill(100)
    few, asked = best(), queries(lambda: eve.get("/console/runs"))
    fill(9_900)
    assert queries(lambda: eve.get("/console/runs")) == asked <= 8
    assert best() < few * 1.5 + 0.01
    assert len(eve.get("/console/runs").content) < 100_000
