"""The console: what auditors read and operators do."""

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from genonaut.api.web import schema_forms
from genonaut.api.web.checking import whole
from genonaut.api.web.visitor import Form
from genonaut.domain import run_attempts, run_history, runs
from genonaut.domain.run_attempts import Failure
from genonaut.domain.run_history import Ended
from genonaut.domain.runs import NewRun, Overlap, Trigger
from genonaut.domain.users import Role
from genonaut.worker import discovery

PAGES = ("", "/runs", "/tasks", "/schedules", "/workers", "/stale", "/thumbnails", "/audit")
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


def make_schedule(client, name: str = "stats.nightly", **terms) -> None:
    token = client.get("/api/v1/me").json()["csrf_token"]
    made = client.post(
        "/api/v1/admin/schedules",
        json={"name": name, "task": TASK, "cron": "30 2 * * *", **terms},
        headers={"X-CSRF-Token": token},
    )
    assert made.status_code == 201, made.text


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
    page = act(oscar, f"/console/tasks/{TASK}", **{"params.days": "7", "how": "run", "reason": "x"})
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
        page = act(oscar, f"/console/tasks/{TASK}", **{"params.days": typed, "how": "run"})
        assert page.status_code == 422
        assert re.search(r'id="params-days"[^>]*aria-invalid="true"', page.text)
        assert f'value="{typed}"' in page.text
    assert not shown(oscar.get("/console/runs"))


ODD = ("NaN", "Infinity", "1e400", "[" * 20_000, "9" * 5_000, "9" * 30, "a\0b", "١٢", "1_0", "½")


@pytest.mark.parametrize("name", ["thumbnails.backfill", "storage.sweep_orphans"])
def test_odd_values_are_refused_at_their_field(visit, act, name):
    oscar = visit("oscar", Role.OPERATOR)
    for field in schema_forms.fields(discovery.catalogue()[name].public()["params_schema"]):
        if field.kind not in ("whole", "wholes", "number", "json"):
            continue
        for typed in ODD:
            # Thirty nines are a whole number, and some parameters have no upper bound.
            wanted = (200, 409, 422) if typed == "9" * 30 else (422,)
            page = act(oscar, f"/console/tasks/{name}", **{field.key: typed, "how": "dry"})
            assert page.status_code in wanted, (field.name, typed[:20])
            assert page.headers["content-type"].startswith("text/html")


@settings(max_examples=300)
@given(st.text(max_size=50))
def test_a_typed_number_is_read_or_left_as_it_is(typed):
    found = whole(typed)
    assert found == (int(typed) if re.fullmatch("-?[0-9]{1,40}", typed) else typed)


@given(st.integers(min_value=-(10**39), max_value=10**39))
def test_whole_numbers_are_read(number):
    assert whole(str(number)) == number


def test_forms_that_are_not_shown_again_say_what_is_wrong_on_a_page(visit, act):
    oscar = visit("oscar", Role.OPERATOR)
    make_schedule(oscar)
    here = "/console/schedules/stats.nightly"
    for path in ("/console/pause", f"{here}/pause", f"{here}/run"):
        page = act(oscar, path, reason="a\0b")
        assert page.status_code == 422
        assert "Reason: must not contain NUL characters." in page.text
    far = act(oscar, f"{here}/pause", until="2099-01-01T05:00+05:00")
    assert "2099-01-01 00:00:00 UTC" in far.text


def test_addresses_nothing_can_be_at_are_not_found(visit):
    oscar = visit("oscar", Role.OPERATOR)
    for path in ("schedules/a%00b", "schedules/A%20b", "tasks/a%00b", f"runs/{'9' * 30}"):
        page = oscar.get(f"/console/{path}")
        assert page.status_code == 404, path
        assert page.headers["content-type"].startswith("text/html")
    for path in ("runs?cursor=zzz", "audit?cursor=zzz"):
        assert oscar.get(f"/console/{path}").status_code == 422


def test_a_mistake_of_ours_is_told_on_a_page_and_says_nothing_of_the_inside(visit, database):
    oscar = visit("oscar", Role.OPERATOR)
    with database.transaction() as session:
        session.execute(text("ALTER TABLE audit_log RENAME TO audit_log_away"))
    try:
        page = oscar.get("/console/audit")
    finally:
        with database.transaction() as session:
            session.execute(text("ALTER TABLE audit_log_away RENAME TO audit_log"))
    assert page.status_code == 500
    assert page.headers["content-type"].startswith("text/html")
    assert "Something went wrong on our side; it is logged." in page.text
    assert "audit_log" not in page.text


def test_every_task_has_a_form_whose_untouched_fields_are_accepted():
    for one in discovery.catalogue().values():
        fields = schema_forms.fields(one.public()["params_schema"])
        typed = schema_forms.form_of(fields, {})
        typed |= {field.key: ["1"] for field in fields if field.required}
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
    make_schedule(oscar)
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
    assert "Resume schedules" in act(oscar, "/console/pause").text
    assert "Pause schedules" in act(oscar, "/console/resume").text


def test_a_run_shows_its_kin_and_what_it_could_not_do(visit, act, make_run, database, put):
    oscar = visit("oscar", Role.OPERATOR)
    visit("ada")
    own, hidden = put("oscar"), put("ada", private=True)
    run_id = make_run("thumbnails.backfill")
    refs = [f"content/{own}/images/0", f"content/{hidden}/images/0", "content/99/images/7", "<i>"]
    with database.transaction() as session:
        held = run_attempts.claim(session, run_id, worker="w", lease_s=30)
        run_attempts.fail_items(session, held, [Failure(ref, "odd <b>") for ref in refs])
    assert "Run only these" not in oscar.get(f"/console/runs/{run_id}").text
    with database.transaction() as session:
        run_attempts.complete(session, held, {})
    part, again = make_run(parent_id=run_id), make_run(retry_of=run_id)
    page = oscar.get(f"/console/runs/{run_id}").text
    assert shown(oscar.get(f"/console/runs/{run_id}")) == [part, again]
    assert f'href="/pictures/{own}"' in page
    assert f"content/{hidden}/images/0" in page
    assert f"/pictures/{hidden}" not in page
    assert "odd &lt;b&gt;" in page
    led = act(oscar, f"/console/runs/{run_id}/retry-failed")
    assert f"&#34;failed_in&#34;: {run_id}" in led.text
    assert "run.retry_failed" in led.text
    made = re.search(r"Run #(\d+)", led.text).group(1)
    found = oscar.get(f"/console/audit?target=run:{made}").text
    assert found.count("run.retry_failed") == 1
    assert "run.retry_failed" not in oscar.get(f"/console/audit?target=run:{run_id}").text
    assert "Nobody did anything" in oscar.get("/console/audit?target=%00x").text


def test_thumbnails_are_counted_and_made_from_their_page(visit, act, put):
    oscar = visit("oscar", Role.OPERATOR)
    assert "There are no pictures yet." in oscar.get("/console/thumbnails").text
    put("oscar", images=3)
    page = oscar.get("/console/thumbnails").text
    assert "3 pictures without thumbnails" in page
    assert "that could not be done" not in page
    led = act(
        oscar, "/console/tasks/thumbnails.backfill", **{"params.only": "missing", "how": "run"}
    )
    made = re.search(r"Run #(\d+)", led.text).group(1)
    assert shown(oscar.get("/console/thumbnails")) == [int(made)]


def test_the_chart_counts_by_task_and_escapes_names(visit, make_run):
    make_run("odd.<b>", fail="x"), make_run(fail="x")
    page = visit("eve", Role.AUDITOR).get("/console").text
    assert "odd.&lt;b&gt;: 0 completed, 1 failed" in page
    assert f"{TASK}: 0 completed, 1 failed" in page
    assert "Runs of the last 24 hours: 0 completed, 2 failed" in page


def test_what_is_worked_on_is_listed_by_worker(visit, make_run, database, put):
    eve = visit("eve", Role.AUDITOR)
    run_id = make_run()
    assert "Nothing." in eve.get("/console/workers").text
    with database.transaction() as session:
        run_attempts.claim(session, run_id, worker="celery@there", lease_s=30)
    page = eve.get("/console/workers").text
    assert f"run #{run_id}" in page
    assert "celery@there" in page


def test_all_runs_that_a_filter_finds_are_cancelled_or_repeated(visit, act, make_run, database):
    oscar = visit("oscar", Role.OPERATOR)
    waiting, minutely = [make_run() for _ in range(3)], make_run("jobs.reap_stale")
    failed = make_run("thumbnails.backfill", fail="x")
    assert 'act=cancel&amp;status=pending"' in oscar.get("/console/runs?status=pending").text
    assert "act=retry" not in oscar.get("/console/runs?status=pending").text
    page = oscar.get(f"/console/batch?act=cancel&task={TASK}")
    assert "Cancel 3 runs" in page.text
    ids = re.search(r'name="ids" value="([\d,]+)"', page.text).group(1)
    assert {int(one) for one in ids.split(",")} == set(waiting)
    with database.transaction() as session:
        held = run_attempts.claim(session, waiting[0], worker="w", lease_s=30)
        run_attempts.complete(session, held, {})
    led = act(oscar, "/console/batch", act="cancel", ids=ids, query=f"task={TASK}")
    assert "2 told to stop; 1 could not be." in led.text
    assert str(led.url).endswith(f"/console/runs?task={TASK}")
    with database.transaction() as session:
        states = {run.id: run.status for run in runs.list_runs(session)}
    assert [states[one] for one in waiting] == ["completed", "cancelled", "cancelled"]
    assert states[minutely] == "pending"
    assert "Retry 3 runs" in oscar.get("/console/batch?act=retry").text
    led = act(oscar, "/console/batch", act="retry", ids=str(failed), query="")
    assert "1 repeated." in led.text
    assert "There is no run to cancel" in oscar.get("/console/batch?act=cancel&task=no.such").text
    for odd in ("act=burn", "act=retry&status=pending"):
        assert oscar.get(f"/console/batch?{odd}").status_code == 404
    for odd in ("", "x", "1,,2", "9" * 30, "-1"):
        assert act(oscar, "/console/batch", act="cancel", ids=odd).status_code == 422
    eve = visit("eve", Role.AUDITOR)
    assert act(eve, "/console/batch", act="cancel", ids="1").status_code == 403
    assert eve.get("/console/batch?act=cancel").status_code == 403


def test_no_chart_is_drawn_of_nothing(visit):
    page = visit("eve", Role.AUDITOR).get("/console").text
    assert "Runs of the last 24 hours" in page
    assert "By task" not in page


def test_the_hours_count_what_ended_in_them(database, make_run):
    make_run(fail="x")
    with database.transaction() as session:
        hours = run_history.by_hour(session)
    assert len(hours) == 24
    assert [one for hour in hours for one in hour.tasks] == [Ended(TASK, 0, 1)]
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
            session.execute(text("ANALYZE task_runs"))  # as autovacuum does soon

    def best(address: str, *, enough: float = 0.0) -> float:
        """Give the shortest of some times; with ``enough``, go on for a while until it is."""
        times: list[float] = []
        while len(times) < (40 if enough else 7) and min(times, default=1) >= enough:
            began = time.perf_counter()
            assert eve.get(address).status_code == 200
            times.append(time.perf_counter() - began)
        return min(times)

    filters = ("", "all=1", "status=completed", "task=content.refresh_stats")
    addresses = [f"/console/runs?{one}" for one in filters]
    fill(100)
    few = {one: best(one) for one in addresses}
    asked = queries(lambda: eve.get("/console/runs"))
    fill(9_900)
    assert queries(lambda: eve.get("/console/runs")) == asked <= 8
    for one in addresses:
        bound = few[one] * 1.5 + 0.01
        assert best(one, enough=bound) < bound
    assert len(eve.get("/console/runs").content) < 100_000
