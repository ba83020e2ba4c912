"""Batches are short, wait for nobody and keep nobody waiting, and take what goes together."""

import threading
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import OperationalError

from genonaut.core.errors import NotFoundError
from genonaut.db.models import (
    AuditEntry,
    IdempotencyKey,
    NotificationDelivery,
    RunFailure,
    TaskRun,
    UserNotification,
)
from genonaut.domain import retention, runs
from genonaut.domain.retention import Kind
from genonaut.domain.retention_rules import rules
from genonaut.domain.runs import NewRun, Trigger
from tests.support.retention import (
    DAYS,
    add,
    ago,
    ids,
    message,
    notice,
    patience,
    purge,
    rule_of,
    run_row,
)

__all__ = ["add", "ids", "patience"]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled", "skipped"])
def test_a_finished_run_goes_with_its_failed_items_in_batches(database, add, ids, status):
    old, young = add(run_row(status=status), run_row(status=status, ended=9))
    for (run_id,), number in ((old, 7), (young, 2)):
        add(*[RunFailure(run_id=run_id, ref=str(n), error="e") for n in range(number)])
    assert purge(database, Kind.RUNS, limit=3) == {"runs": 1, "failed_items": 7}
    assert ids(TaskRun) == {young[0]}
    assert len(ids(RunFailure)) == 2


def test_a_run_goes_with_its_failed_items_so_that_nobody_finds_it_without_them(database, add):
    (first,), (second,) = add(run_row(), run_row())
    add(*[RunFailure(run_id=run, ref=str(n), error="e") for run in (first, second) for n in (1, 2)])
    rule = rule_of(Kind.RUNS)
    with database.transaction() as session:
        after = retention.begin(session, rule)
        step = retention.remove(session, rule, after=after, limit=5)
        assert (step.removed, step.is_last) == ({"failed_items": 2, "runs": 1}, False)
        assert session.get(TaskRun, first) is not None
        step = retention.remove(session, rule, after=step.after, limit=5)
        assert step.removed == {"failed_items": 2, "runs": 1}


def test_a_notification_goes_with_its_messages_whichever_was_read_first(
    database, make_user, add, ids
):
    ada = make_user()
    for n in range(3):  # the youngest was read first, the oldest last; then the other way round
        for read in (11 + n, 22 - n):
            ((notification_id,),) = add(notice(ada, f"{n} {read}", came=30, read=read))
            add(*[message(ada, notification_id) for _ in range(3)])
    removed = purge(database, Kind.READ_NOTIFICATIONS, limit=5)
    assert removed == {"read_notifications": 6, "deliveries": 18}
    assert ids(NotificationDelivery) == set()


def test_no_more_parts_are_read_than_a_batch_may_remove(database, add):
    made = [identity for (identity,) in add(run_row(), run_row(), run_row())]
    add(*[RunFailure(run_id=run, ref=str(n), error="e") for run in made for n in range(3)])
    in_order = [made[1], made[2], made[0]]
    with database.transaction() as session:
        counted = retention._count_parts(session, rule_of(Kind.RUNS), in_order, 4)
    assert counted == {made[1]: 3, made[2]: 2}


@pytest.mark.parametrize("column", ["parent_id", "retry_of"])
@pytest.mark.parametrize("limit", [1, 2, 1000])
def test_what_a_run_that_stays_names_stays_and_so_on(database, add, ids, column, limit):
    (first,) = add(run_row())
    (second,) = add(run_row(**{column: first[0]}))
    (young,) = add(run_row(ended=1, **{column: second[0]}))
    (lone,) = add(run_row())
    (lone_retry,) = add(run_row(ended=12, **{column: lone[0]}))
    assert purge(database, Kind.RUNS, limit=limit) == {"runs": 2}
    assert ids(TaskRun) == {first[0], second[0], young[0]}
    assert not ids(TaskRun) & {lone[0], lone_retry[0]}


def test_the_audit_log_tells_what_went_from_it(database, add):
    add(*[AuditEntry(actor="ada", action="a", target="t", at=ago(11 + n)) for n in range(5)])
    add(AuditEntry(actor="ada", action="a", target="young", at=ago(9)))
    assert purge(database, Kind.AUDIT, limit=3) == {"audit": 5}
    with database.transaction() as session:
        left = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [entry.action for entry in left] == ["a", "audit.purge", "audit.purge"]
    assert [entry.details["removed"] for entry in left[1:]] == [3, 2]
    assert left[1].details["from"] < left[1].details["to"] < left[2].details["from"]


def test_many_keys_of_one_moment_go_in_batches(database, make_user, add):
    ada = make_user()
    values = {"body_hash": "h", "status_code": 202, "answer": {}, "expires_at": ago(1)}
    add(*[IdempotencyKey(user_id=ada.id, key=f"k{n}", **values) for n in range(25)])
    assert purge(database, Kind.IDEMPOTENCY_KEYS, limit=10) == {"idempotency_keys": 25}


def test_who_holds_a_row_keeps_it_and_nobody_waits(committed_database, make_user, add, ids):
    ada = make_user()
    held, _ = add(notice(ada, "a", came=30, read=11), notice(ada, "b", came=30, read=11))
    with committed_database.transaction() as other:
        other.get_one(UserNotification, held[0], with_for_update=True)
        with committed_database.transaction() as session:
            rule = rule_of(Kind.READ_NOTIFICATIONS)
            step = retention.remove(session, rule, after=None, limit=10)
    assert step.removed == {"read_notifications": 1}
    assert ids(UserNotification) == {held[0]}


def test_a_run_that_is_repeated_at_this_moment_stays(committed_database, add, ids):
    (old,) = add(run_row(status="failed"))
    request = NewRun(task="toys.count", queue="default", trigger=Trigger.API)
    with committed_database.transaction() as clicking:
        made = runs.again(clicking, old[0], request).run
        assert purge_step(committed_database).removed == {}
    assert purge_step(committed_database).removed == {}
    assert ids(TaskRun) == {old[0], made.id}


def test_a_run_that_is_being_removed_is_not_there_to_be_repeated(committed_database, add):
    (old,) = add(run_row(status="failed"))
    request = NewRun(task="toys.count", queue="default", trigger=Trigger.API)
    told: list[Exception] = []

    def click() -> None:
        try:
            with committed_database.transaction() as session:
                runs.again(session, old[0], request)
        except NotFoundError as error:
            told.append(error)

    thread = threading.Thread(target=click)
    with committed_database.transaction() as session:
        rule = rule_of(Kind.RUNS)
        retention.remove(session, rule, after=retention.begin(session, rule), limit=10)
        thread.start()
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not session.scalar(text(waits)):
            session.execute(text("SELECT pg_stat_clear_snapshot()"))
    thread.join(10)
    assert len(told) == 1


def purge_step(database) -> retention.Step:
    with database.transaction() as session:
        rule = rule_of(Kind.RUNS)
        return retention.remove(session, rule, after=retention.begin(session, rule), limit=10)


def test_a_batch_that_takes_too_long_says_so_and_leaves_everything(
    committed_database, make_user, add, ids
):
    ada = make_user()
    add(notice(ada, "a", came=30, read=11))

    def dawdle() -> None:
        with committed_database.transaction() as session:
            retention.remove(session, rule_of(Kind.READ_NOTIFICATIONS), after=None, limit=10)
            session.execute(text("SELECT pg_sleep(1)"))

    with pytest.raises(OperationalError) as caught:
        dawdle()
    assert retention.is_out_of_time(caught.value)
    assert len(ids(UserNotification)) == 1


SLOW = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.04); RETURN NULL; END $$;
CREATE TRIGGER dawdle AFTER DELETE ON task_runs EXECUTE FUNCTION dawdle();
CREATE TRIGGER dawdle AFTER DELETE ON run_failures EXECUTE FUNCTION dawdle();
"""


def test_a_batch_whose_statements_together_take_too_long_leaves_everything(
    committed_database, add, ids, monkeypatch
):
    monkeypatch.setattr(retention, "_HOLD_S", 0.05)
    ((old,),) = add(run_row())
    add(RunFailure(run_id=old, ref="a", error="e"))
    with committed_database.transaction() as session:
        session.execute(text(SLOW))
    try:
        with pytest.raises(retention.SlowBatchError) as caught:
            purge_step(committed_database)
    finally:
        with committed_database.transaction() as session:
            session.execute(text("DROP FUNCTION dawdle CASCADE"))
    assert retention.is_out_of_time(caught.value)
    assert ids(TaskRun) == {old}
    assert len(ids(RunFailure)) == 1


def test_every_statement_of_a_batch_goes_by_an_index(engine, database, make_user, add):
    ada = make_user()
    add(notice(ada, "a", came=30, read=11), notice(ada, "b", came=30))
    add(AuditEntry(actor="ada", action="a", target="t", at=ago(11)), run_row())
    said: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        if statement.startswith(("SELECT", "DELETE", "WITH")):
            said.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    for rule in rules(DAYS):
        with database.transaction() as session:
            retention.remove(session, rule, after=retention.begin(session, rule), limit=10)
    event.remove(engine, "before_cursor_execute", note)
    assert len(said) >= 15
    with database.transaction() as session:
        connection = session.connection()
        for statement, parameters in said:
            plan = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).scalars().all()
            assert not [line for line in plan if "Seq Scan" in line], "\n".join([statement, *plan])
