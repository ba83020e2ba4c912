"""Sessions begin with a valid login, and none outlives what it was opened with."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import text

from genonaut.core.errors import UnauthorizedError
from genonaut.domain import accounts, logins, users
from genonaut.local import processes

pytestmark = pytest.mark.usefixtures("committed_database")

HOUR = timedelta(hours=1)


@pytest.fixture
def ada(database):
    with database.transaction() as session:
        return users.create_user(session, "ada")


@pytest.fixture
def enter(database, ada):
    """Give, of both ways to log in, the secret and the function that takes it.

    There is a token to revoke in any case.
    """

    def by(way: str):
        with database.transaction() as session:
            _, token = accounts.issue_token(session, ada.id, name="x")
            if way == "token":
                return token, logins.by_token
            return users.issue_login_link(session, ada.id), logins.by_link

    return by


def end(session, ada, act: str) -> None:
    if act == "revoke":
        for token in accounts.list_tokens(session, ada.id):
            accounts.revoke_token(session, token.id)
    else:
        accounts.change(session, ada.id, {"is_active": False})


@pytest.mark.parametrize("way", ["token", "link"])
def test_a_login_opens_a_session(database, enter, ada, way):
    secret, log_in = enter(way)
    with database.transaction() as session:
        who, cookie = log_in(session, secret, ttl=HOUR)
    with database.transaction() as session:
        assert users.authenticate_session(session, cookie).user_id == who.user_id == ada.id
        with pytest.raises(UnauthorizedError):
            log_in(session, secret + "x", ttl=HOUR)


def test_a_session_ends_with_its_token_at_latest(database, ada):
    with database.transaction() as session:
        ttl = timedelta(minutes=5)
        row, token = accounts.issue_token(session, ada.id, name="short", ttl=ttl)
    with database.transaction() as session:
        _, cookie = logins.by_token(session, token, ttl=HOUR)
    with database.transaction() as session:
        assert users.authenticate_session(session, cookie).expires_at == row.expires_at


@pytest.mark.parametrize("act", ["revoke", "lock out"])
@pytest.mark.parametrize("way", ["token", "link"])
def test_a_session_that_is_being_opened_ends_with_the_rest(database, enter, ada, way, act):
    secret, log_in = enter(way)

    def end_all() -> None:
        with database.transaction() as session:
            end(session, ada, act)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as opening:
            _, cookie = log_in(opening, secret, ttl=HOUR)
            opening.flush()
            ending = pool.submit(end_all)
            assert processes.wait_until(lambda: ending.done() or waits(database), 10)
            assert not ending.done()
        ending.result(10)
    with database.transaction() as session:
        accounts.change(session, ada.id, {"is_active": True})
        with pytest.raises(UnauthorizedError):
            users.authenticate_session(session, cookie)


@pytest.mark.parametrize("act", ["revoke", "lock out"])
@pytest.mark.parametrize("way", ["token", "link"])
def test_a_login_that_is_being_ended_opens_no_session(database, enter, ada, way, act):
    secret, log_in = enter(way)

    def open_one() -> None:
        with database.transaction() as session:
            log_in(session, secret, ttl=HOUR)

    with ThreadPoolExecutor(1) as pool:
        with database.transaction() as ending:
            end(ending, ada, act)
            opening = pool.submit(open_one)
            assert processes.wait_until(lambda: opening.done() or waits(database), 10)
        with pytest.raises(UnauthorizedError):
            opening.result(10)


def waits(database) -> bool:
    with database.transaction() as session:
        return bool(session.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))
