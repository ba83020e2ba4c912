"""What is old goes, and nothing that is unfinished or that something still needs."""

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from sqlalchemy import func, select, update

from genonaut.db.models import (
    ApiToken,
    Base,
    GenerationJob,
    IdempotencyKey,
    JobAttempt,
    LoginSession,
    NotificationDelivery,
    RecommendationGeneration,
    Schedule,
    TaskRun,
    UserNotification,
    WebhookReceipt,
)
from genonaut.domain.retention import Kind
from genonaut.domain.retention_rules import rules
from tests.support.database import rolled_back
from tests.support.retention import (
    DAYS,
    STATUSES,
    add,
    ago,
    ids,
    message,
    notice,
    patience,
    purge,
    run_row,
)

__all__ = ["add", "ids", "patience"]


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


def test_zero_days_are_for_ever(database):
    kinds = {rule.kind for rule in rules(dict.fromkeys(Kind, 0))}
    assert kinds == {Kind.SESSIONS, Kind.IDEMPOTENCY_KEYS, Kind.WEBHOOK_RECEIPTS}


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
