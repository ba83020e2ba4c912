"""Who is alive is read from rows."""

from datetime import UTC, datetime

import pytest
from sqlalchemy import text

from genonaut.db.models import Heartbeat
from genonaut.domain import heartbeats

START = datetime(2026, 1, 1, tzinfo=UTC)


def beat(session, name="w1", kind="worker", **info):
    heartbeats.beat(session, name, kind=kind, started_at=START, info=info)


def test_a_process_has_one_row_that_is_renewed(session):
    beat(session, pid=1)
    session.execute(text("UPDATE heartbeats SET seen_at = now() - interval '5 minutes'"))
    assert heartbeats.ages(session) == {"w1": pytest.approx(300)}
    beat(session, pid=2)
    assert heartbeats.ages(session) == {"w1": pytest.approx(0)}
    assert session.get_one(Heartbeat, "w1").info == {"pid": 2}


def test_kinds_are_told_apart(session):
    beat(session, queues=["celery", "maintenance"])
    beat(session, "b1", "beat")
    assert set(heartbeats.ages(session)) == {"w1", "b1"}
    assert set(heartbeats.ages(session, queue="maintenance")) == {"w1"}
    assert heartbeats.ages(session, queue="main") == {}
    assert set(heartbeats.ages(session, kind="beat")) == {"b1"}


def test_who_leaves_is_forgotten_at_once_and_who_vanished_after_a_day(session):
    beat(session)
    beat(session, "w2")
    heartbeats.leave(session, "w1")
    heartbeats.leave(session, "nobody")
    assert set(heartbeats.ages(session)) == {"w2"}
    heartbeats.forget_old(session)
    assert set(heartbeats.ages(session)) == {"w2"}
    session.execute(text("UPDATE heartbeats SET seen_at = now() - interval '25 hours'"))
    heartbeats.forget_old(session)
    assert heartbeats.ages(session) == {}
