"""Operators make, edit, pause and remove schedules; two at once do not undo each other."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from genonaut.core.errors import ConflictError, InvalidInputError, NotFoundError
from genonaut.db.models import Schedule
from genonaut.domain import schedules
from genonaut.domain.schedules import StaleVersionError, Terms

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
HOURLY = Terms(task="toys.count", cron="0 * * * *")


def reckon(terms):
    """Stands for the worker: it knows one task, and everything is due in an hour."""
    if terms.task != "toys.count":
        raise NotFoundError(f"there is no task {terms.task!r}")
    return LATER


@pytest.fixture
def made(session):
    return schedules.create(session, "toys.hourly", HOURLY, next_due_at=LATER)


def test_one_that_never_ran_says_so(made):
    shown = schedules.public(made)
    json.dumps(shown)
    assert (shown["last_due_at"], shown["next_due_at"]) == (None, LATER.isoformat())
    assert (shown["source"], shown["is_edited"], shown["version"]) == ("operator", False, 1)
    assert (shown["paused"], shown["disabled_reason"]) == (None, None)


@pytest.mark.parametrize(
    "name", ["", "a/b", "A", "-a", ".a", "a b", "a" * 101, "ä", "a\n", "../etc", "a\0"]
)
def test_a_name_is_fit_for_an_address(session, name):
    with pytest.raises(InvalidInputError) as refused:
        schedules.create(session, name, HOURLY, next_due_at=LATER)
    assert refused.value.field == "name"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("late_limit_s", -1),
        ("late_limit_s", 367 * 24 * 3600),
        ("jitter_s", -1),
        ("jitter_s", 24 * 3600 + 1),
        ("cron", ",".join(["1"] * 200)),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(session, made, field, value):
    terms = Terms(**{"task": "toys.count", "cron": "* * * * *", field: value})
    for call in (
        lambda: schedules.create(session, "other", terms, next_due_at=LATER),
        lambda: schedules.change(session, made.name, terms, version=1, next_due_at=LATER),
    ):
        with pytest.raises(InvalidInputError) as refused:
            call()
        assert refused.value.field == field


def test_a_name_is_given_once(session, made):
    with pytest.raises(ConflictError) as refused:
        schedules.create(session, made.name, HOURLY, next_due_at=LATER)
    assert refused.value.code == "name_taken"


def test_they_are_listed_by_name_page_by_page(session, made):
    for name in ("b", "a"):
        schedules.create(session, name, Terms(task="toys.sum", every_s=5), next_due_at=LATER)

    def names(**where):
        return [row.name for row in schedules.list_schedules(session, **where)]

    assert names() == ["a", "b", "toys.hourly"]
    assert names(after="a", limit=1) == ["b"]
    assert names(tasks=["toys.count"]) == ["toys.hourly"]


def test_of_two_edits_of_one_version_the_second_is_refused(session, made):
    params = Terms(task="toys.count", cron="0 * * * *", params={"n": 1})
    first = schedules.change(session, made.name, params, version=1, next_due_at=LATER)
    assert (first.version, first.params) == (2, {"n": 1})
    with pytest.raises(StaleVersionError) as refused:
        schedules.change(session, made.name, HOURLY, version=1, next_due_at=LATER)
    assert refused.value.http_status == 412
    assert schedules.one(session, made.name).params == {"n": 1}


def test_only_another_timing_makes_it_due_anew(session, made):
    elsewhen = LATER + timedelta(hours=5)
    same = Terms(task="toys.count", cron="0 * * * *", jitter_s=5)
    kept = schedules.change(session, made.name, same, version=1, next_due_at=elsewhen)
    assert kept.next_due_at == LATER
    other = Terms(task="toys.count", cron="0 * * * *", timezone="Asia/Kolkata")
    moved = schedules.change(session, made.name, other, version=2, next_due_at=elsewhen)
    assert moved.next_due_at == elsewhen


def test_an_edit_mends_one_that_was_disabled(session, made):
    made.next_due_at, made.disabled_reason = None, "there is no task 'toys.sum'"
    session.flush()
    mended = schedules.change(session, made.name, HOURLY, version=1, next_due_at=LATER)
    assert (mended.next_due_at, mended.disabled_reason) == (LATER, None)


def test_an_edit_of_what_the_code_declares_is_one_until_it_is_put_back(session, made):
    made.source, made.code_default = "code", HOURLY.public()
    session.flush()
    other = Terms(task="toys.count", cron="5 * * * *")
    edited = schedules.change(session, made.name, other, version=1, next_due_at=LATER)
    assert (edited.is_edited, edited.source) == (True, "code")
    back = schedules.change(session, made.name, HOURLY, version=2, next_due_at=LATER)
    assert not back.is_edited


def test_what_is_not_there_is_not_found(session):
    for call in (
        lambda: schedules.one(session, "gone"),
        lambda: schedules.change(session, "gone", HOURLY, version=1, next_due_at=LATER),
        lambda: schedules.remove(session, "gone"),
        lambda: schedules.pause(session, "gone", actor="ada", now=NOW),
        lambda: schedules.resume(session, "gone", reckon),
    ):
        with pytest.raises(NotFoundError):
            call()


def test_only_what_the_code_does_not_bring_back_is_removed(session, made):
    with pytest.raises(StaleVersionError):
        schedules.remove(session, made.name, version=7)
    schedules.remove(session, made.name, version=1)
    assert session.get(Schedule, made.name, populate_existing=True) is None
    values = {"source": "code", "code_default": HOURLY.public(), "next_due_at": LATER}
    schedules.insert_new(session, "toys.of_code", HOURLY, **values)
    with pytest.raises(ConflictError, match="pause it instead"):
        schedules.remove(session, "toys.of_code")
    schedules.write(session, "toys.of_code", (), code_default=None)
    schedules.remove(session, "toys.of_code")


def test_a_pause_says_who_why_and_until_when(session, made):
    until = NOW + timedelta(days=1)
    row = schedules.pause(session, made.name, actor="ada", reason="disk", until=until, now=NOW)
    shown = schedules.public(row)
    assert shown["paused"] == {
        "at": row.paused_at.isoformat(),
        "by": "ada",
        "reason": "disk",
        "until": until.isoformat(),
    }
    assert (shown["next_due_at"], shown["version"]) == (None, 2)
    again = schedules.pause(session, made.name, actor="bob", now=NOW)
    assert (again.paused_at, again.paused_by, again.paused_until) == (row.paused_at, "bob", None)


@pytest.mark.parametrize("until", [NOW, NOW - timedelta(1), datetime(2027, 1, 1)])  # noqa: DTZ001
def test_a_pause_ends_in_the_future(session, made, until):
    for call in (
        lambda: schedules.pause(session, made.name, actor="ada", until=until, now=NOW),
        lambda: schedules.pause_all(session, actor="ada", until=until, now=NOW),
    ):
        with pytest.raises(InvalidInputError) as refused:
            call()
        assert refused.value.field == "until"


def test_one_that_is_resumed_is_due_after_now(session, made):
    made.next_due_at = NOW - timedelta(days=1)
    session.flush()
    schedules.pause(session, made.name, actor="ada", now=NOW)
    resumed = schedules.resume(session, made.name, reckon)
    assert (resumed.next_due_at, resumed.paused_at, resumed.paused_by) == (LATER, None, None)
    assert schedules.resume(session, made.name, reckon).version == resumed.version


def test_one_that_cannot_be_run_any_more_is_disabled_when_it_is_resumed(session, made):
    made.task = "toys.sum"
    session.flush()
    schedules.pause(session, made.name, actor="ada", now=NOW)
    resumed = schedules.resume(session, made.name, reckon)
    assert (resumed.next_due_at, resumed.disabled_reason) == (None, "there is no task 'toys.sum'")


def test_one_that_is_disabled_stays_so_when_it_is_resumed(session, made):
    made.next_due_at, made.disabled_reason = None, "why"
    session.flush()
    schedules.pause(session, made.name, actor="ada", now=NOW)
    assert schedules.resume(session, made.name, reckon).disabled_reason == "why"


def test_all_are_paused_and_what_passed_meanwhile_is_not_made_up(session, made):
    assert schedules.pause_of_all(session) is None
    assert not schedules.resume_all(session, reckon, now=NOW)
    schedules.pause_all(session, actor="ada", reason="move", now=NOW)
    row = schedules.pause_all(session, actor="bob", until=LATER, now=NOW)
    shown = schedules.public_pause(row)
    assert (shown["by"], shown["reason"], shown["until"]) == ("bob", None, LATER.isoformat())
    passed = NOW - timedelta(hours=3)
    bad, far = Terms(task="toys.sum", every_s=5), NOW + timedelta(days=3)
    schedules.create(session, "passed", HOURLY, next_due_at=passed)
    schedules.create(session, "bad", bad, next_due_at=passed)
    schedules.create(session, "far", HOURLY, next_due_at=far)
    schedules.create(session, "by-itself", HOURLY, next_due_at=passed)
    schedules.pause(session, "by-itself", actor="ada", now=NOW)
    assert schedules.resume_all(session, reckon, now=NOW)
    assert schedules.pause_of_all(session) is None
    session.expire_all()
    due = {row.name: row.next_due_at for row in schedules.list_schedules(session)}
    assert due == {
        "bad": None,
        "by-itself": passed,
        "far": far,
        "passed": LATER,
        made.name: LATER,
    }
