"""Schedules are made, changed and removed on pages, by whoever has seen what they change."""

import re

import pytest

from genonaut.domain.users import Role
from tests.api.test_pages_console import TASK, make_schedule

EDIT = "/console/schedules/stats.nightly/edit"
TIMING = {"timing": "cron", "cron": "0 5 * * *", "timezone": "Europe/Berlin"}
TERMS = {**TIMING, "missed": "skip", "late_limit_s": "60", "jitter_s": "0", "params.days": "3"}


@pytest.fixture
def oscar(visit):
    return visit("oscar", Role.OPERATOR)


def version(page) -> str:
    return re.search(r'name="version" value="(\d*)"', page.text).group(1)


def terms(client, name="stats.nightly") -> dict:
    answer = client.get(f"/api/v1/admin/schedules/{name}")
    return answer.json() if answer.status_code == 200 else {}


def test_a_schedule_is_made_changed_and_removed(oscar, act):
    assert f'value="{TASK}"' in oscar.get("/console/new-schedule").text
    form = oscar.get(f"/console/new-schedule?task={TASK}")
    assert form.text.count("<li>") == 10
    made = act(oscar, "/console/new-schedule", task=TASK, name="stats.mine", **TERMS)
    assert "It is scheduled." in made.text
    found = terms(oscar, "stats.mine")
    assert found["cron"] == "0 5 * * *"
    assert (found["timezone"], found["missed"]) == ("Europe/Berlin", "skip")
    assert (found["late_limit_s"], found["params"]) == (60, {"days": 3})
    path = "/console/schedules/stats.mine"
    page = oscar.get(f"{path}/edit")
    every = {**TERMS, "timing": "every", "every_s": "3600", "anchor_at": "2026-01-05T10:00"}
    changed = act(oscar, f"{path}/edit", version=version(page), **every)
    assert "It is changed." in changed.text
    found = terms(oscar, "stats.mine")
    assert (found["cron"], found["every_s"]) == (None, 3600)
    assert found["anchor_at"] == "2026-01-05T10:00:00+00:00"
    old = act(oscar, f"{path}/remove", version="1")
    assert old.status_code == 412
    assert "stats.mine is removed." in act(oscar, f"{path}/remove", version=found["version"]).text
    assert not terms(oscar, "stats.mine")
    said = oscar.get("/console/audit").text
    assert {"schedule.create", "schedule.edit", "schedule.remove"} <= set(
        re.findall(r"schedule\.\w+", said)
    )


def test_an_edit_that_changes_nothing_changes_nothing(oscar, act):
    for name, timing in (
        ("a", {}),
        ("b", {"cron": None, "every_s": 90}),
        ("c", {"overlap": "wait"}),
    ):
        make_schedule(oscar, name, **timing)
        before = terms(oscar, name)
        page = oscar.get(f"/console/schedules/{name}/edit")
        typed = {}
        for field in re.finditer(r"<input[^>]*>", page.text):
            values = dict(re.findall(r'(\w+)="([^"]*)"', field.group()))
            if values.get("type") == "radio" and " checked" not in field.group():
                continue
            typed[values.get("name", "")] = values.get("value", "")
        for select in re.finditer(r'<select id="\w+" name="(\w+)".*?</select>', page.text):
            chosen = re.search(r'<option(?: value="(\w*)")? selected>(\w*)', select.group())
            typed[select.group(1)] = (chosen.group(1) or chosen.group(2)) if chosen else ""
        typed.pop("csrf"), typed.pop("back")
        assert "It is changed." in act(oscar, f"/console/schedules/{name}/edit", **typed).text
        after = terms(oscar, name)
        for one in ("version", "updated_at"):
            before.pop(one), after.pop(one)
        assert after == before


def test_a_stale_edit_is_shown_beside_what_there_is_and_may_be_saved_over_it(oscar, visit, act):
    make_schedule(oscar, params={"days": 3})
    mine = version(oscar.get(EDIT))
    olga = visit("olga", Role.OPERATOR)
    theirs = {**TERMS, "cron": "0 9 * * *", "params.days": "9"}
    assert "It is changed." in act(olga, EDIT, version=mine, **theirs).text
    page = act(oscar, EDIT, version=mine, **TERMS)
    assert page.status_code == 412
    conflict = page.text.split('id="conflict"')[1].split("</section>")[0]
    rows = re.findall(r"<th[^>]*>([\w ]+)</th><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)</td>", conflict)
    assert rows == [("Cron", "0 5 * * *", "0 9 * * *"), ("days", "3", "9")]
    assert terms(oscar)["cron"] == "0 9 * * *"
    assert 'value="0 5 * * *"' in page.text
    assert version(page) == str(terms(oscar)["version"])
    assert "It is changed." in act(oscar, EDIT, version=version(page), **TERMS).text
    assert terms(oscar)["cron"] == "0 5 * * *"
    for odd in ("", "x", "999", '1", "2'):
        assert act(oscar, EDIT, version=odd, **TERMS).status_code == 412


def test_a_stale_edit_that_is_also_wrong_loses_nothing_that_was_typed(oscar, act):
    make_schedule(oscar)
    page = act(oscar, EDIT, version="999", **{**TERMS, "cron": "61 * * * *"})
    assert page.status_code == 422
    assert 'value="61 * * * *"' in page.text
    assert 'id="cron-error"' in page.text


def test_what_is_typed_is_reckoned_before_it_is_saved(oscar, act):
    make_schedule(oscar)
    page = act(oscar, EDIT, how="preview", **TERMS)
    assert page.status_code == 200
    # The hour of Berlin, whether or not summer time ends among the ten.
    assert re.findall(r'quiet">\w+ \d+-\d+-\d+ (\d\d:\d\d)', page.text) == ["05:00"] * 10
    odd = act(oscar, EDIT, how="preview", **{**TERMS, "cron": "61 * * * *"})
    assert odd.status_code == 200
    assert "<li>" not in odd.text
    assert 'class="field-error"' in odd.text
    assert terms(oscar)["version"] == 1


@pytest.mark.parametrize(
    ("field", "typed"),
    [
        ("cron", "61 * * * *"),
        ("cron", ""),
        ("timezone", "Mars/Base"),
        ("timezone", "a\0b"),
        ("late_limit_s", "-1"),
        ("late_limit_s", "soon"),
        ("jitter_s", "9" * 5000),
        ("missed", "often"),
        ("overlap", "never"),
        ("params.days", "many"),
        ("params.days", "-1"),
    ],
)
def test_a_wrong_term_is_said_at_its_field(oscar, act, field, typed):
    make_schedule(oscar)
    page = act(oscar, EDIT, version="1", **{**TERMS, field: typed})
    assert page.status_code == 422
    assert re.search(rf'name="{re.escape(field)}"[^>]*aria-invalid="true"', page.text)
    assert terms(oscar)["version"] == 1


def test_a_name_that_is_taken_or_wrong_is_refused(oscar, act):
    make_schedule(oscar)
    for name in ("A b", "", "x" * 200, "a\0b"):
        page = act(oscar, "/console/new-schedule", task=TASK, name=name, **TERMS)
        assert page.status_code == 422
        assert re.search(r'name="name"[^>]*aria-invalid="true"', page.text)
    taken = act(oscar, "/console/new-schedule", task=TASK, name="stats.nightly", **TERMS)
    assert taken.status_code == 422
    assert "there is a schedule stats.nightly already" in taken.text
    assert f'value="{TERMS["cron"]}"' in taken.text
    assert oscar.get("/console/new-schedule?task=no.such").status_code == 404
    assert oscar.get("/console/new-schedule?task=a%00b").status_code == 404


def test_auditors_see_no_form(visit, oscar, act):
    make_schedule(oscar)
    eve = visit("eve", Role.AUDITOR)
    for path in ("/console/new-schedule", f"/console/new-schedule?task={TASK}", EDIT):
        assert eve.get(path).status_code == 403
    for path in ("/console/new-schedule", EDIT, EDIT.replace("edit", "remove")):
        assert act(eve, path, task=TASK, name="x", version="1", **TERMS).status_code == 403


def test_many_schedules_are_listed_with_as_many_queries_as_one(oscar, queries):
    make_schedule(oscar)
    asked = queries(lambda: oscar.get("/console/schedules"))
    for n in range(60):
        make_schedule(oscar, f"s{n:02}", cron="* * * * *" if n % 2 else "0 */2 * * *")
    assert queries(lambda: oscar.get("/console/schedules")) == asked <= 6
    page = oscar.get("/console/schedules")
    assert page.text.count('r="3.5"') == 25 * 12
    assert page.text.count("More than hourly") == 25
    [more] = re.findall(r'href="([^"]+)" rel="next"', page.text)
    page = oscar.get(more)
    assert page.text.count("More than hourly") == 5
    assert ">stats.nightly<" in page.text
    assert 'rel="next"' not in page.text
