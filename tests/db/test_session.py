"""Transactions: what follows a commit follows it, and only it."""

from dataclasses import replace

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError, OperationalError

from genonaut.core.events import Event
from genonaut.db.models import User
from genonaut.db.session import Database, add_event, make_engine, on_commit, savepoint
from tests.support.database import sqlalchemy_url
from tests.support.servers import free_port

EVENT = Event("job", 1, 1, ("job:1",), {})


def users(database) -> int:
    with database.transaction() as session:
        return session.scalars(select(func.count()).select_from(User)).one()


def test_actions_and_events_come_after_the_commit_in_order(committed_database):
    heard = []
    committed_database.sinks.append(lambda events: heard.append(("events", events)))
    with committed_database.transaction() as session:
        session.add(User(username="ada"))
        on_commit(session, lambda: heard.append(("action", users(committed_database))))
        on_commit(session, lambda: heard.append(("second", None)))
        add_event(session, EVENT)
        session.flush()
        assert heard == []
    assert heard == [("events", [EVENT]), ("action", 1), ("second", None)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_nothing_and_tells_nobody(database, error):
    heard = []
    database.sinks.append(heard.append)

    def fail() -> None:
        with database.transaction() as session:
            session.add(User(username="ada"))
            session.flush()
            on_commit(session, lambda: heard.append("action"))
            add_event(session, EVENT)
            raise error

    with pytest.raises(error):
        fail()
    assert heard == []
    assert users(database) == 0


def test_a_commit_that_fails_tells_nobody(database):
    heard = []
    database.sinks.append(heard.append)

    def twice() -> None:
        with database.transaction() as session:
            session.add_all([User(username="ada"), User(username="ada")])
            add_event(session, EVENT)

    with pytest.raises(DBAPIError):
        twice()
    assert heard == []


def test_what_fails_after_the_commit_neither_undoes_nor_hides_it(database):
    heard = []

    def broken(*_: object) -> None:
        raise RuntimeError("a sink that fails")

    database.sinks.extend([broken, heard.append])
    with database.transaction() as session:
        session.add(User(username="ada"))
        add_event(session, EVENT)
        on_commit(session, broken)
        on_commit(session, lambda: heard.append("action"))
    assert heard == [[EVENT], "action"]
    assert users(database) == 1


def test_rows_are_readable_after_the_transaction(make_user):
    assert make_user("ada").created_at.utcoffset().total_seconds() == 0


def test_a_server_that_is_away_is_an_error_soon():
    port = free_port()
    away = Database.connect(f"postgresql+psycopg2://postgres@127.0.0.1:{port}/x")
    with pytest.raises(OperationalError):
        users(away)
    away.close()


def test_every_kind_of_waiting_has_a_limit(committed_database):
    with committed_database.transaction() as session:
        for limit in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            assert session.scalars(text(f"SHOW {limit}")).one() not in {"0", ""}
        assert session.scalars(text("SHOW timezone")).one() == "UTC"


def test_a_server_that_became_read_only_empties_the_pool(committed_database):
    engine = committed_database.engine
    with engine.connect() as connection:
        before = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.exec_driver_sql("SET default_transaction_read_only = on")
        connection.commit()
        with pytest.raises(DBAPIError):
            connection.execute(text("INSERT INTO users (username) VALUES ('x')"))
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT pg_backend_pid()")) != before


def test_connections_cut_by_the_server_are_replaced(committed_database, postgres):
    assert users(committed_database) == 0
    other = make_engine(sqlalchemy_url(postgres.url()), pool_size=1)
    with other.begin() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name"),
            {"name": committed_database.engine.url.database},
        )
    other.dispose()
    assert users(committed_database) == 0


@pytest.mark.parametrize("name", ["engine", "locking"])
def test_a_child_forgets_connections_without_closing_its_parents(committed_database, name):
    engine, pid = getattr(committed_database, name), text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        parents = connection.scalar(pid)
        committed_database.after_fork()
        assert connection.scalar(pid) == parents
    with engine.connect() as connection:
        assert connection.scalar(pid) != parents
    assert users(committed_database) == 0


def test_a_savepoint_takes_back_what_was_to_follow_its_commit(committed_database):
    told, done = [], []
    committed_database.sinks.append(told.extend)

    def undone(session) -> None:
        with savepoint(session):
            add_event(session, replace(EVENT, id=2))
            on_commit(session, lambda: done.append(2))
            raise ValueError("no")

    with committed_database.transaction() as session:
        add_event(session, EVENT)
        with pytest.raises(ValueError, match="no"):
            undone(session)
        with savepoint(session):
            add_event(session, replace(EVENT, id=3))
    assert [event.id for event in told] == [1, 3]
    assert done == []
