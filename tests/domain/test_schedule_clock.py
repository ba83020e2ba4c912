"""What is due is found at once however many schedules there are, and moves on once."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from genonaut.domain import schedule_clock, schedules
from genonaut.domain.schedule_clock import Step, advance, disable, due, end_pauses, look
from genonaut.domain.schedules import Terms

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEXT = NOW + timedelta(hours=1)
SECOND = timedelta(seconds=1)


def reckon(_):
    return NEXT


@pytest.fixture
def make(session):
    def make_one(name, next_due_at):
        terms = Terms(task="toys.count", every_s=60)
        return schedules.create(session, name, terms, next_due_at=next_due_at)

    return make_one


def names(rows):
    return [row.name for row in rows]


def test_what_is_due_is_found_the_longest_due_first(session, make):
    make("to-come", NOW + SECOND)
    make("b", NOW)
    make("a", NOW)
    make("old", NOW - timedelta(days=1))
    assert names(due(session, NOW, limit=9)) == ["old", "a", "b"]
    assert names(due(session, NOW, limit=1)) == ["old"]
    assert names(due(session, NOW, limit=9, after=(NOW, "a"))) == ["b"]


def test_what_rests_is_not_due(session, make):
    make("paused", NOW)
    schedules.pause(session, "paused", actor="ada", now=NOW)
    make("disabled", NOW)
    assert disable(session, "disabled", due_at=NOW, reason="why")
    assert not disable(session, "disabled", due_at=NOW, reason="why")
    assert due(session, NOW, limit=9) == []
    make("due", NOW)
    schedules.pause_all(session, actor="ada", now=NOW)
    assert due(session, NOW, limit=9) == []
    assert look(session).next_due_at is None
    schedules.resume_all(session, lambda _: NOW, now=NOW)
    assert names(due(session, NOW, limit=9)) == ["due"]
    assert schedule_clock.count(session) == {"schedules": 3, "paused": 1, "disabled": 1}


def test_a_look_gives_the_time_and_what_is_next(session, make):
    empty = look(session)
    assert (empty.next_due_at, empty.resume_at, empty.late_s) == (None, None, 0)
    assert abs(empty.now - datetime.now(UTC)) < timedelta(minutes=1)
    make("a", empty.now - 5 * SECOND)
    make("b", empty.now + timedelta(hours=1))
    assert 5 <= look(session).late_s < 60
    until = empty.now + timedelta(days=1)
    schedules.pause(session, "b", actor="ada", now=empty.now, until=until)
    assert look(session).resume_at == until
    schedules.pause_all(session, actor="ada", now=empty.now, until=until - SECOND)
    assert look(session).resume_at == until - SECOND


def test_only_the_first_moves_a_schedule_on(session, make):
    row, _ = make("a", NOW), make("b", NOW)
    steps = [Step(name, NOW, NOW, NEXT) for name in "ab"]
    assert advance(session, steps[:1]) == {"a"}
    assert advance(session, steps) == {"b"}
    assert advance(session, steps) == set()
    session.refresh(row)
    assert (row.last_due_at, row.next_due_at, row.version) == (NOW, NEXT, 1)
    schedules.pause(session, "a", actor="ada", now=NOW)
    assert advance(session, [Step("a", NEXT, NEXT, NEXT + SECOND)]) == set()


def test_what_another_holds_is_passed_over_not_waited_for(committed_database):
    database = committed_database
    terms = Terms(task="toys.count", every_s=60)
    with database.transaction() as session:
        schedules.create(session, "a", terms, next_due_at=NOW)
        schedules.create(session, "b", terms, next_due_at=NOW)
    seen = []

    def other():
        with database.transaction() as session:
            seen.extend(names(due(session, NOW, limit=9)))

    with database.transaction() as session:
        assert names(due(session, NOW, limit=1)) == ["a"]
        thread = threading.Thread(target=other)
        thread.start()
        thread.join(10)
        assert seen == ["b"]


def test_a_pause_ends_by_itself_and_what_passed_is_not_made_up(session, make):
    for name, until in (("over", NOW - SECOND), ("not-yet", NOW + SECOND), ("for-good", None)):
        make(name, NOW - timedelta(hours=1))
        schedules.pause(session, name, actor="ada", now=NOW - timedelta(days=1), until=until)
    assert end_pauses(session, NOW, reckon, limit=9) == ["over"]
    assert schedules.one(session, "over").next_due_at == NEXT
    assert schedules.one(session, "not-yet").paused_at
    assert due(session, NOW, limit=9) == []


def test_the_pause_of_all_ends_by_itself(session, make):
    make("a", NOW - SECOND)
    schedules.pause_all(session, actor="ada", now=NOW - timedelta(days=1), until=NOW)
    assert end_pauses(session, NOW - SECOND, reckon, limit=9) == []
    assert end_pauses(session, NOW, reckon, limit=9) == ["*"]
    assert schedules.one(session, "a").next_due_at == NEXT


def test_a_look_does_not_read_the_whole_table(session):
    session.execute(
        text(
            "INSERT INTO schedules (name, task, every_s, next_due_at)"
            " SELECT 's' || n, 'toys.count', 60, now() + n * interval '1 s'"
            " FROM generate_series(1, 5000) AS n"
        )
    )
    session.execute(text("ANALYZE schedules"))
    plan = "\n".join(
        row[0]
        for row in session.execute(
            text(
                "EXPLAIN SELECT min(next_due_at) FROM schedules"
                " WHERE paused_at IS NULL AND next_due_at IS NOT NULL"
            )
        )
    )
    assert "ix_schedules_next_due_at" in plan
    assert [shown.name for shown in schedule_clock.to_show(session)[:1]] == ["s1"]
