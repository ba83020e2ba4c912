"""Rows of every age, and a walk that removes by one rule what is old."""

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, inspect, select

from genonaut.db.models import (
    Base,
    NotificationDelivery,
    TaskRun,
    UserNotification,
)
from genonaut.domain import retention
from genonaut.domain.retention import Kind
from genonaut.domain.retention_rules import rules

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
