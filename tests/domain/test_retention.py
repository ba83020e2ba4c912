"""What is old goes, and nothing that is unfinished or that something still needs."""

import threading
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from sqlalchemy import event, func, inspect, select, text, update
from sqlalchemy.exc import OperationalError

from genonaut.core.errors import NotFoundError
from genonaut.db.models import (
    ApiToken,
    AuditEntry,
    Base,
    GenerationJob,
    IdempotencyKey,
    JobAttempt,
    LoginSession,
    NotificationDelivery,
    RecommendationGeneration,
    RunFailure,
    Schedule,
    TaskRun,
    UserNotification,
    WebhookReceipt,
)
from genonaut.domain import retention, runs
from genonaut.domain.retention import Kind
from genonaut.domain.retention_rules import rules
from genonaut.domain.runs import NewRun, Trigger
from tests.support.database import rolled_back

STATUSES = ["pending", "running", "completed", "failed", "cancelled", "skipped"]
DAYS = dict.fromkeys(Kind, 10) | {Kind.UNREAD_NOTIFICATIONS: 20}


def ago(days: float) -> Any:
    return func.now() - timedelta(days=days)


def rule_of(kind: Kind, **days: int) -> retention.Rule:
    (rule,) = [rule for rule in rules(DAYS | days) if rule.kind == kind]
    return rule


def purge(database, kind: Kind, *, limit: int = 1000) -> dict[str, int]:
    """Walk through all that is old; check that a count tells what goes, and how it goes."""
    rule = rule_of(kind)
    with database.transaction() as session:
        counted = retention.count(session, rule)
        after = retention.begin(session, rule)
    removed: dict[str, int] = {}
    while True:
        with database.transaction() as session:
            step = retention.remove(session, rule, after=after, limit=limit)
        assert sum(step.removed.values()) <= limit
        for name, number in step.removed.items():
            removed[name] = removed.get(name, 0) + number
        after = step.after
        if step.is_last:
            break
    assert removed == {name: number for name, number in counted.items() if number}
    return removed


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Let a busy machine take its time over a batch, so that rows go in the batches expected."""
    monkeypatch.setattr(retention, "_HOLD_S", 60)


@pytest.fixture
def add(database):
    def put(*rows: Base) -> list[Any]:
        with database.transaction() as session:
            session.add_all(rows)
            session.flush()
            return [inspect(row).identity for row in rows]

    return put


@pytest.fixture
def ids(database):
    def read(model) -> set[int]:
        with database.transaction() as session:
            return set(session.scalars(select(model.id)))

    return read


def notice(
    user, key: str, *, came: float, read: float | None = None, kind: str = "k"
) -> UserNotification:
    return UserNotification(
        user_id=user.id,
        kind=kind,
        dedupe_key=key,
        title="t",
        created_at=ago(came),
        read_at=None if read is None else ago(read),
    )


def message(
    user, notification_id: int | None, status: str = "completed", **columns: Any
) -> NotificationDelivery:
    lease = {"lease_token": func.gen_random_uuid(), "lease_expires_at": func.now()}
    return NotificationDelivery(
        user_id=user.id,
        notification_id=notification_id,
        channel="email",
        subject="s",
        message_id="m",
        lane="l",
        host="h",
        celery_task_id="c",
        status=status,
        error_code="broken" if status == "failed" else None,
        **(lease if status == "running" else {}),
        **columns,
    )


def run_row(*, ended: float = 11, status: str = "completed", **columns: Any) -> TaskRun:
    final = status not in {"pending", "running"}
    lease = {"lease_token": func.gen_random_uuid(), "lease_expires_at": func.now()}
    return TaskRun(
        task="toys.count",
        trigger="api",
        queue="default",
        celery_task_id="c",
        status=status,
        completed_at=ago(ended) if final else None,
        error_code="broken" if status == "failed" else None,
        **(lease if status == "running" else {}),
        **columns,
    )


def test_notifications_go_by_when_they_were_read_or_else_came(database, make_user, add, ids):
    ada = make_user()
    read_long_ago, read_lately, unread_old, unread = add(
        notice(ada, "a", came=30, read=11),
        notice(ada, "b", came=30, read=9),
        notice(ada, "c", came=21),
        notice(ada, "d", came=19),
    )
    assert purge(database, Kind.READ_NOTIFICATIONS) == {"read_notifications": 1}
    assert ids(UserNotification) == {read_lately[0], unread_old[0], unread[0]}
    assert purge(database, Kind.UNREAD_NOTIFICATIONS) == {"unread_notifications": 1}
    assert ids(UserNotification) == {read_lately[0], unread[0]}
    assert read_long_ago[0] not in ids(UserNotification)


@pytest.mark.parametrize("read", [11, None])
def test_what_somebody_was_recommended_is_remembered_for_a_year(
    database, make_user, add, ids, read
):
    ada = make_user()
    kind = Kind.UNREAD_NOTIFICATIONS if read is None else Kind.READ_NOTIFICATIONS
    _, _, lately = add(
        notice(ada, "a", came=363, read=read),
        notice(ada, "b", came=365, read=read, kind="recommendation"),
        notice(ada, "c", came=363, read=read, kind="recommendation"),
    )
    assert purge(database, kind) == {kind: 2}
    assert ids(UserNotification) == {lately[0]}


@pytest.mark.parametrize("read", [11, None])
def test_a_notification_waits_for_its_messages_to_be_sent(database, make_user, add, ids, read):
    ada = make_user()
    kind = Kind.UNREAD_NOTIFICATIONS if read is None else Kind.READ_NOTIFICATIONS
    kept: set[int] = set()
    for status in STATUSES:
        ((notification_id,),) = add(notice(ada, status, came=30, read=read))
        add(message(ada, notification_id, status), message(ada, notification_id))
        if status in {"pending", "running"}:
            kept.add(notification_id)
    assert purge(database, kind) == {kind: 4, "deliveries": 8}
    assert ids(UserNotification) == kept
    with database.transaction() as session:
        session.execute(
            update(NotificationDelivery).values(
                status="completed", lease_token=None, lease_expires_at=None
            )
        )
    assert purge(database, kind) == {kind: 2, "deliveries": 4}


@pytest.mark.parametrize(
    ("status", "ended", "goes"),
    [
        ("completed", 11, True),
        ("cancelled", 11, True),
        ("failed", 11, True),
        ("completed", 9, False),
        ("pending", None, False),
        ("running", None, False),
    ],
)
def test_attempts_go_with_the_age_of_their_finished_job(
    database, make_job, make_claim, add, ids, status, ended, goes
):
    job = make_job() if status != "running" else make_claim().job
    add(
        JobAttempt(
            job_id=job.id,
            number=1,
            worker="w",
            lease_token=func.gen_random_uuid(),
            ended_at=ago(12),
            outcome="retried",
        )
    )
    with database.transaction() as session:
        session.execute(
            update(GenerationJob)
            .where(GenerationJob.id == job.id)
            .values(
                status=status,
                completed_at=None if ended is None else ago(ended),
                error_code="x" if status == "failed" else None,
            )
        )
    before = ids(JobAttempt)
    assert purge(database, Kind.TIMELINES) == ({"timelines": 1} if goes else {})
    assert len(before - ids(JobAttempt)) == goes
    assert ids(GenerationJob) == {job.id}


@pytest.mark.parametrize("status", ["pending", "running"])
def test_an_unfinished_run_stays_however_old(database, add, ids, status):
    (key,) = add(run_row(status=status, created_at=ago(1000), updated_at=ago(1000)))
    assert purge(database, Kind.RUNS) == {}
    assert ids(TaskRun) == {key[0]}


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


def test_the_run_that_made_the_lists_in_use_stays(database, add, ids):
    (kept,), _ = add(run_row(), run_row())
    add(RecommendationGeneration(run_id=kept, algorithm="x", as_of=func.now()))
    assert purge(database, Kind.RUNS) == {"runs": 1}
    assert ids(TaskRun) == {kept}


def test_a_schedule_keeps_its_last_run_and_the_last_that_was_not_skipped(database, add, ids):
    def of(name: str, due: float, status: str = "completed") -> TaskRun:
        return run_row(schedule=name, due_at=ago(due), status=status, ended=due)

    add(Schedule(name="s", task="toys.count", every_s=60, next_due_at=func.now()))
    runs_of_s = add(of("s", 40), of("s", 30), of("s", 20, "skipped"), of("s", 15, "skipped"))
    add(of("gone", 15))
    assert purge(database, Kind.RUNS) == {"runs": 3}
    assert ids(TaskRun) == {runs_of_s[1][0], runs_of_s[3][0]}


def test_the_audit_log_tells_what_went_from_it(database, add):
    add(*[AuditEntry(actor="ada", action="a", target="t", at=ago(11 + n)) for n in range(5)])
    add(AuditEntry(actor="ada", action="a", target="young", at=ago(9)))
    assert purge(database, Kind.AUDIT, limit=3) == {"audit": 5}
    with database.transaction() as session:
        left = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert [entry.action for entry in left] == ["a", "audit.purge", "audit.purge"]
    assert [entry.details["removed"] for entry in left[1:]] == [3, 2]
    assert left[1].details["from"] < left[1].details["to"] < left[2].details["from"]


def test_spent_keys_and_logins_go_and_good_ones_stay(database, make_user, add):
    ada = make_user()
    for n, (days, stays) in enumerate(((1, False), (-1, True))):
        add(
            LoginSession(user_id=ada.id, kind="session", token_hash=f"s{n}", expires_at=ago(days)),
            LoginSession(user_id=ada.id, kind="ticket", token_hash=f"t{n}", expires_at=ago(days)),
            IdempotencyKey(
                user_id=ada.id,
                key=f"k{n}",
                body_hash="h",
                status_code=202,
                answer={},
                expires_at=ago(days),
            ),
            WebhookReceipt(signature=f"w{n}", received_at=ago(0.5 if stays else 2)),
        )
    add(
        ApiToken(user_id=ada.id, name="revoked", token_hash="a", revoked_at=ago(11)),
        ApiToken(user_id=ada.id, name="expired", token_hash="b", expires_at=ago(11)),
        ApiToken(
            user_id=ada.id,
            name="both",
            token_hash="c",
            revoked_at=ago(11),
            expires_at=ago(-100),
        ),
        ApiToken(user_id=ada.id, name="revoked lately", token_hash="d", revoked_at=ago(9)),
        ApiToken(user_id=ada.id, name="good", token_hash="e", expires_at=ago(-1)),
        ApiToken(user_id=ada.id, name="for ever", token_hash="f", created_at=ago(1000)),
    )
    assert purge(database, Kind.SESSIONS, limit=1) == {"sessions": 2}
    assert purge(database, Kind.IDEMPOTENCY_KEYS, limit=1) == {"idempotency_keys": 1}
    assert purge(database, Kind.WEBHOOK_RECEIPTS) == {"webhook_receipts": 1}
    assert purge(database, Kind.TOKENS, limit=2) == {"tokens": 3}
    with database.transaction() as session:
        assert set(session.scalars(select(LoginSession.token_hash))) == {"s1", "t1"}
        assert session.scalars(select(IdempotencyKey.key)).all() == ["k1"]
        assert session.scalars(select(WebhookReceipt.signature)).all() == ["w1"]
        names = set(session.scalars(select(ApiToken.name)))
    assert names == {"revoked lately", "good", "for ever"}


@pytest.mark.parametrize("status", STATUSES)
def test_messages_of_no_notification_go_once_they_have_ended(database, make_user, add, ids, status):
    ada = make_user()
    ended_at = {} if status in {"pending", "running"} else {"completed_at": ago(11)}
    ((told,),) = add(notice(ada, "a", came=500))
    ((of_notice,),) = add(message(ada, told, completed_at=ago(11)))
    ((young,),) = add(message(ada, None, completed_at=ago(9)))
    ((old,),) = add(message(ada, None, status, **ended_at))
    ((again,),) = add(message(ada, None, status, **ended_at, retry_of=old))
    gone = {"deliveries": 1} if ended_at else {}
    assert purge(database, Kind.DELIVERIES, limit=1) == gone
    kept = {of_notice, young, old}
    assert ids(NotificationDelivery) == (kept if gone else {*kept, again})
    assert purge(database, Kind.DELIVERIES) == gone, "it was named until now"
    assert ids(NotificationDelivery) == (kept - {old} if gone else {*kept, again})


def test_many_keys_of_one_moment_go_in_batches(database, make_user, add):
    ada = make_user()
    values = {"body_hash": "h", "status_code": 202, "answer": {}, "expires_at": ago(1)}
    add(*[IdempotencyKey(user_id=ada.id, key=f"k{n}", **values) for n in range(25)])
    assert purge(database, Kind.IDEMPOTENCY_KEYS, limit=10) == {"idempotency_keys": 25}


def test_zero_days_are_for_ever(database):
    kinds = {rule.kind for rule in rules(dict.fromkeys(Kind, 0))}
    assert kinds == {Kind.SESSIONS, Kind.IDEMPOTENCY_KEYS, Kind.WEBHOOK_RECEIPTS}


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


def test_no_delete_reaches_rows_that_no_rule_names():
    """A key to a purged table is known to its rule, and an index begins with it."""
    every_rule = rules(DAYS)
    for table in Base.metadata.tables.values():
        leading = {next(iter(index.columns)).name for index in table.indexes if index.columns}
        leading |= {
            next(iter(constraint.columns)).name
            for constraint in table.constraints
            if type(constraint).__name__ in {"UniqueConstraint", "PrimaryKeyConstraint"}
        }
        for key in table.foreign_keys:
            for rule in every_rule:
                if key.column.table is not rule.model.__table__:
                    continue
                named = (*rule.named_by, *rule.kept_by, *rule.parts.values())
                known = [c.property.columns[0] for c in named]
                assert any(key.parent is column for column in known), f"{table.name}: {key.parent}"
                assert key.parent.name in leading, f"no index on {table.name}.{key.parent.name}"


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


RUN = st.tuples(
    st.sampled_from(STATUSES),
    st.integers(8, 12),  # days since its end
    st.integers(0, 30),  # which earlier run it names, if there is one
    st.sampled_from([None, "parent_id", "retry_of"]),
    st.sampled_from([None, "s", "t", "gone"]),
)


@settings(max_examples=30)
@given(rows=st.lists(RUN, max_size=12), limit=st.integers(1, 5))
def test_whatever_runs_there_are_the_right_ones_go(engine, rows, limit):
    with rolled_back(engine) as database:
        made: list[TaskRun] = []
        with database.transaction() as session:
            for name in ("s", "t"):
                values = {"task": "toys.count", "every_s": 60, "next_due_at": func.now()}
                session.add(Schedule(name=name, **values))
            session.flush()
            for n, (status, ended, other, column, schedule) in enumerate(rows):
                named = {column: made[other % len(made)].id} if column and made else {}
                due = ago(100 - n) if schedule else None
                run = run_row(
                    status=status, ended=ended + 0.5, schedule=schedule, due_at=due, **named
                )
                session.add(run)
                session.flush()
                made.append(run)
        expected = those_that_stay(made, rows)
        purge(database, Kind.RUNS, limit=limit)
        with database.transaction() as session:
            left = session.execute(select(TaskRun.id, TaskRun.parent_id, TaskRun.retry_of)).all()
        assert {row.id for row in left} == expected
        names = {run.id: (run.parent_id, run.retry_of) for run in made}
        assert all(names[row.id] == (row.parent_id, row.retry_of) for row in left)


def those_that_stay(made: list[TaskRun], rows: list[Any]) -> set[int]:
    """The rule in other words."""
    stay = set()
    for schedule in ("s", "t"):
        mine = [(run, row) for run, row in zip(made, rows, strict=True) if row[4] == schedule]
        stay |= {run.id for run, _ in mine[-1:]}
        stay |= {run.id for run, row in [one for one in mine if one[1][0] != "skipped"][-1:]}
    for run, (status, ended, *_) in zip(made, rows, strict=True):
        if status in {"pending", "running"} or ended + 0.5 < 10:
            stay.add(run.id)
    for run in reversed(made):
        if run.id in stay:
            stay |= {run.parent_id, run.retry_of} - {None}
    return stay
