"""Waiting for PostgreSQL ends, and can be interrupted."""

import signal
import threading
import time
from collections.abc import Callable

import psycopg2
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from genonaut.db.session import Database
from tests.support.database import sqlalchemy_url
from tests.support.servers import running_postgres
from tests.support.simulator import wait_until

PID = text("SELECT pg_backend_pid()")


@pytest.fixture
def fragile():
    with running_postgres() as server:
        yield server


@pytest.fixture
def impatient(fragile):
    database = Database.connect(
        sqlalchemy_url(fragile.url()), pool_size=2, connect_timeout_s=2, answer_timeout_s=1.5
    )
    yield database
    database.close()


def pid(database: Database) -> int:
    with database.transaction() as session:
        return session.execute(PID).scalar_one()


def run(database: Database, statement: str, *, before: Callable[[], object] = int) -> None:
    with database.transaction() as session:
        session.execute(PID)
        before()
        session.execute(text(statement))


def test_a_frozen_server_is_given_up_and_used_again_when_it_is_back(fragile, impatient):
    before = pid(impatient)
    fragile.pause()
    try:
        began = time.monotonic()
        with pytest.raises(OperationalError):
            pid(impatient)
        assert time.monotonic() - began < 5
        with pytest.raises(psycopg2.OperationalError, match="does not answer"):
            psycopg2.connect(fragile.url(), connect_timeout=2)
    finally:
        fragile.cont()
    assert pid(impatient) != before


def test_a_server_that_freezes_while_it_works_is_given_up(fragile, impatient):
    began = time.monotonic()
    try:
        with pytest.raises(OperationalError) as raised:
            run(impatient, "SELECT 1", before=fragile.pause)
    finally:
        fragile.cont()
    assert raised.value.connection_invalidated
    assert time.monotonic() - began < 5
    pid(impatient)


class SoftLimit(Exception):  # noqa: N818 - named like the queue's
    pass


@pytest.mark.parametrize("kind", [SoftLimit, KeyboardInterrupt])
def test_an_interrupted_connection_is_never_used_again(committed_url, kind):
    database = Database.connect(committed_url, pool_size=1)
    before = pid(database)

    def interrupt(*_: object) -> None:
        raise kind

    earlier = signal.signal(signal.SIGALRM, interrupt)
    try:
        began = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(kind):
            run(database, "SELECT pg_sleep(10)")
        assert time.monotonic() - began < 5
    finally:
        signal.signal(signal.SIGALRM, earlier)
    assert pid(database) != before
    database.close()


def test_the_server_ends_a_statement_before_we_give_it_up(fragile, impatient):
    with pytest.raises(OperationalError, match="statement timeout"):
        run(impatient, "SELECT pg_sleep(10)")


def test_threads_wait_side_by_side(committed_url):
    database = Database.connect(committed_url, pool_size=4)
    done: list[int] = []

    def work() -> None:
        with database.transaction() as session:
            session.execute(text("SELECT pg_sleep(0.3)"))
        done.append(1)

    began = time.monotonic()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(done) == 4)
    assert time.monotonic() - began < 1.1
    for thread in threads:
        thread.join()
    database.close()
