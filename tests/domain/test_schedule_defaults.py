"""What the code declares and what operators decide come together, however often."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from genonaut.core.errors import InvalidInputError, NotFoundError
from genonaut.domain import schedules
from genonaut.domain.schedule_defaults import GONE, Changes, synchronise
from genonaut.domain.schedules import Terms

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEXT = NOW + timedelta(hours=1)
HOURLY = Terms(task="toys.count", cron="0 * * * *", params={"n": 1})
DAILY = replace(HOURLY, cron="0 2 * * *")
NAME = "toys.count.hourly"


def reckon(terms):
    if terms.task != "toys.count":
        raise NotFoundError(f"there is no task {terms.task!r}")
    if "bad" in terms.params:
        raise InvalidInputError("params.bad: extra inputs are not permitted", field="params.bad")
    return NEXT


@pytest.fixture
def sync(session):
    def run(**defaults):
        return synchronise(session, {NAME: HOURLY, **defaults}, reckon)

    return run


@pytest.fixture
def without(session):
    return lambda: synchronise(session, {}, reckon)


@pytest.fixture
def row(session):
    return lambda name=NAME: schedules.one(session, name)


def test_a_new_default_is_due_after_now_and_a_second_pass_does_nothing(sync, row):
    assert sync() == Changes(added=[NAME])
    assert (row().next_due_at, row().last_due_at, row().source) == (NEXT, None, "code")
    assert row().code_default == HOURLY.public()
    assert sync() == Changes()
    assert row().version == 1


def test_one_that_is_overdue_keeps_its_due_time(session, sync, row):
    sync()
    passed = NOW - timedelta(hours=5)
    schedules.write(session, NAME, (), next_due_at=passed)
    assert sync() == Changes()
    assert row().next_due_at == passed


def test_what_nobody_edited_follows_the_code(session, sync, row):
    sync()
    kept = NOW - timedelta(hours=5)
    schedules.write(session, NAME, (), next_due_at=kept)
    assert sync(**{NAME: replace(HOURLY, params={"n": 2})}) == Changes(changed=[NAME])
    assert (row().params, row().next_due_at) == ({"n": 2}, kept)
    assert sync(**{NAME: DAILY}).changed == [NAME]
    assert (row().cron, row().next_due_at) == (DAILY.cron, NEXT)


def test_what_an_operator_edited_stays_while_the_code_changes(session, sync, row):
    sync()
    edit = replace(HOURLY, cron="5 * * * *")
    schedules.change(session, NAME, edit, version=1, next_due_at=NEXT)
    sync(**{NAME: DAILY})
    assert (row().cron, row().is_edited) == (edit.cron, True)
    assert row().code_default == DAILY.public()
    sync(**{NAME: edit})
    assert not row().is_edited, "the code says the same now"


def test_a_pause_outlives_every_change_of_the_code(session, sync, row, without):
    sync()
    schedules.pause(session, NAME, actor="ada", reason="disk", now=NOW)
    for change in (sync, lambda: sync(**{NAME: DAILY}), without, sync):
        change()
        assert (row().paused_by, row().pause_reason) == ("ada", "disk")


def test_one_that_the_code_gives_up_rests_until_it_is_back(session, sync, row, without):
    sync()
    schedules.write(session, NAME, (), last_due_at=NOW)
    assert without() == Changes(disabled={NAME: GONE})
    assert without() == Changes()
    assert (row().next_due_at, row().last_due_at, row().code_default) == (None, NOW, None)
    assert sync() == Changes(changed=[NAME])
    assert (row().next_due_at, row().disabled_reason, row().last_due_at) == (NEXT, None, NOW)


def test_an_edit_makes_one_that_was_given_up_the_operators_own(session, sync, row, without):
    sync()
    without()
    schedules.change(session, NAME, DAILY, version=row().version, next_due_at=NEXT)
    assert without() == Changes()
    assert (row().source, row().next_due_at) == ("operator", NEXT)


def test_one_that_cannot_be_run_is_disabled_with_the_reason_and_harms_no_other(session, sync, row):
    sync(other=HOURLY)
    bad = {"params": {"bad": 1}}
    schedules.write(session, NAME, (), is_edited=True, **bad)
    operators = replace(HOURLY, task="toys.sum")
    schedules.create(session, "own", operators, next_due_at=NEXT)
    reasons = {
        NAME: "params.bad: extra inputs are not permitted",
        "own": "there is no task 'toys.sum'",
    }
    assert sync(other=HOURLY) == Changes(disabled=reasons)
    assert sync(other=HOURLY) == Changes()
    assert row("other").next_due_at == NEXT
    schedules.write(session, "own", (), task="toys.count")
    assert sync(other=HOURLY).changed == ["own"]
    assert row("own").next_due_at == NEXT


def test_a_default_that_cannot_be_run_is_shown_disabled(sync, row):
    changes = sync(bad=replace(HOURLY, task="toys.sum"))
    assert changes.disabled == {"bad": "there is no task 'toys.sum'"}
    assert row("bad").disabled_reason == "there is no task 'toys.sum'"


def test_a_default_takes_over_a_name_that_an_operator_had_but_not_his_values(session, sync, row):
    schedules.create(session, NAME, DAILY, next_due_at=NEXT)
    sync()
    assert (row().source, row().is_edited, row().cron) == ("code", True, DAILY.cron)
