"""``retention.purge`` walks through each kind; ``tests/domain/test_retention.py`` has the rules."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, func, select, text

from genonaut.api.config import ConfigError
from genonaut.core.events import Event
from genonaut.db.models import AuditEntry, LoginSession, TaskRun, UserNotification
from genonaut.domain import retention, runs
from genonaut.domain.retention import Kind
from genonaut.domain.runs import Trigger
from genonaut.worker import drain
from genonaut.worker.tasks.retention import Result, ages, purge
from tests.worker.conftest import work_on


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Let a busy machine take its time over a batch, so that rows go in the batches expected."""
    monkeypatch.setattr(retention, "_HOLD_S", 60)


@pytest.fixture
def ada(make_user):
    return make_user()


@pytest.fixture
def left(database):
    def read(model: Any) -> int:
        with database.transaction() as session:
            return session.scalars(select(func.count()).select_from(model)).one()

    return read


@pytest.fixture
def fill(database, ada):
    """Store read notifications and audit entries past their age, and young ones."""

    def make(notices: int, entries: int = 0, *, days: float = 3000) -> None:
        at = func.now() - timedelta(days=days)
        with database.transaction() as session:
            for n in range(notices):
                values = {"kind": "k", "dedupe_key": f"{days}:{n}", "title": "t", "read_at": at}
                session.add(UserNotification(user_id=ada.id, **values))
            session.add_all(
                AuditEntry(actor="ada", action="a", target="t", at=at) for _ in range(entries)
            )

    return make


def test_what_is_old_goes_and_a_second_run_finds_nothing(run_task, fill, left):
    fill(5, 3)
    fill(2, 1, days=1)
    first, progress = run_task(purge, batch_size=2)
    again, _ = run_task(purge)
    assert first == Result(removed={"read_notifications": 5, "audit": 3})
    assert again == Result(removed={})
    assert progress[0] == (0, None)
    assert progress[-1] == (8, 8)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert left(UserNotification) == 2
    assert left(AuditEntry) == 1 + 2, "one is young, and two batches went from the log"


def test_a_dry_run_counts_and_removes_nothing(run_task, fill, left):
    fill(5, 3)
    fill(2, days=1)
    counted, _ = run_task(purge, dry_run=True)
    found = {kind: number for kind, number in counted.removed.items() if number}
    assert found == {"read_notifications": 5, "audit": 3}
    assert set(counted.removed) == {*Kind, "failed_items", "deliveries"}
    assert (left(UserNotification), left(AuditEntry)) == (7, 3)


def test_only_some_kinds_go_when_they_are_named(run_task, fill, left):
    fill(5, 3)
    result, _ = run_task(purge, kinds=["audit"])
    assert result == Result(removed={"audit": 3})
    assert left(UserNotification) == 5


@pytest.mark.parametrize("task_settings", [{"retention_audit_days": 0}])
def test_a_kind_whose_age_is_zero_is_kept(run_task, fill, left, task_settings):
    fill(2, 2)
    result, _ = run_task(purge)
    assert result == Result(removed={"read_notifications": 2})
    assert left(AuditEntry) == 2


def test_every_kind_has_its_setting_or_is_of_no_use_to_anybody(settings):
    spent = {Kind.SESSIONS, Kind.IDEMPOTENCY_KEYS, Kind.WEBHOOK_RECEIPTS}
    assert set(ages(settings)) == set(Kind) - spent
    assert all(days > 0 for days in ages(settings).values())


@pytest.mark.parametrize(
    ("days", "is_right"),
    [
        ({"read_notifications": 30, "unread_notifications": 30}, True),
        ({"read_notifications": 31, "unread_notifications": 30}, False),
        ({"read_notifications": 31, "unread_notifications": 0}, True),
        ({"read_notifications": 0, "unread_notifications": 30}, False),
        ({"runs": 0, "audit": 0}, True),
        ({"runs": 0, "audit": 5000}, False),
        ({"runs": 800, "audit": 730}, False),
    ],
)
def test_ages_that_contradict_each_other_are_refused_at_start(make_settings, days, is_right):
    values = {f"retention_{kind}_days": number for kind, number in days.items()}
    if is_right:
        make_settings(**values)
        return
    with pytest.raises(ConfigError, match=r"RETENTION_\w+_DAYS must be at least RETENTION_\w+"):
        make_settings(**values)


@pytest.fixture
def start_and_stop(committed_database, task_services):
    """Start a run in batches of two, and do ``stop`` once four rows are gone; give its row."""

    def start(stop) -> TaskRun:
        def watch(events: list[Event]) -> None:
            if any(change.row.get("progress", {}).get("done") == 4 for change in events):
                committed_database.sinks.remove(watch)
                stop(events[0].id)

        request = purge.request(purge.validate({"batch_size": 2}), trigger=Trigger.API)
        with committed_database.transaction() as session:
            made = runs.trigger(session, request).run
        committed_database.sinks.append(watch)
        return work_on(task_services, purge, made.id)

    return start


def test_a_run_given_back_goes_on_and_counts_all(
    start_and_stop, task_services, fill, left, monkeypatch
):
    fill(9)
    with monkeypatch.context() as patch:
        stopped = start_and_stop(lambda _: patch.setattr(drain, "is_over", lambda: True))
    assert stopped.status == "pending"
    gone = stopped.checkpoint["removed"]["read_notifications"]
    assert left(UserNotification) == 9 - gone > 0
    done = work_on(task_services, purge, stopped.id)
    assert (done.status, done.result) == ("completed", {"removed": {"read_notifications": 9}})
    assert (done.progress["done"], done.progress["total"]) == (9, 9)


def test_a_cancel_ends_it_after_a_batch(start_and_stop, committed_database, fill, left):
    fill(9)

    def cancel(run_id: int) -> None:
        with committed_database.transaction() as session:
            runs.request_cancel(session, run_id)

    assert start_and_stop(cancel).status == "cancelled"
    assert left(UserNotification) == 3


SLOW_WHEN_MANY = """
CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM pg_sleep(0.03); RETURN OLD; END $$;
CREATE TRIGGER dawdle BEFORE DELETE ON sessions FOR EACH ROW EXECUTE FUNCTION dawdle();
"""


@pytest.fixture
def slow_deletes(committed_database):
    """Let the removal of each session take 30 ms: eight of them are out of time."""
    with committed_database.transaction() as session:
        session.execute(text(SLOW_WHEN_MANY))
    yield
    with committed_database.transaction() as session:
        session.execute(text("DROP FUNCTION dawdle CASCADE"))


def test_a_batch_that_takes_too_long_is_tried_with_half_the_rows(
    slow_deletes, committed_database, run_task, ada, left
):
    at = func.now() - timedelta(days=1)
    with committed_database.transaction() as session:
        for n in range(20):
            values = {"kind": "ticket", "token_hash": str(n), "expires_at": at}
            session.add(LoginSession(user_id=ada.id, **values))
    failed: list[str] = []
    event.listen(
        committed_database.engine, "handle_error", lambda c: failed.append(c.statement or "")
    )
    result, _ = run_task(purge, kinds=["sessions"], batch_size=16)
    assert result == Result(removed={"sessions": 20})
    assert any("DELETE FROM sessions" in statement for statement in failed)
    assert left(LoginSession) == 0


def test_where_not_even_one_row_goes_in_time_the_run_pauses_and_goes_on_later(
    slow_deletes, committed_database, start_run, task_services, ada, left
):
    at = func.now() - timedelta(days=1)
    with committed_database.transaction() as session:
        slower = SLOW_WHEN_MANY.split("CREATE TRIGGER", maxsplit=1)[0].replace("0.03", "0.5")
        session.execute(text(slower.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION")))
        values = {"kind": "ticket", "token_hash": "x", "expires_at": at}
        session.add(LoginSession(user_id=ada.id, **values))
    row = start_run(purge, kinds=["sessions"], batch_size=4)
    assert (row.status, row.attempt, row.progress["phase"]) == ("pending", 0, "paused")
    assert "too busy" in row.progress["reason"]
    assert left(LoginSession) == 1
    with committed_database.transaction() as session:
        session.execute(text("DROP TRIGGER dawdle ON sessions"))
        session.get_one(TaskRun, row.id).available_at = func.now()
    row = work_on(task_services, purge, row.id)
    assert (row.status, row.result) == ("completed", {"removed": {"sessions": 1}})
