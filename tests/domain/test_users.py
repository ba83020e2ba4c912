"""Accounts, tokens, sessions and one-time links."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import event, func, select, update

from genonaut.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from genonaut.db.models import ApiToken, AuditEntry, LoginSession, User
from genonaut.domain import accounts, users
from genonaut.domain.users import Role

HOUR = timedelta(hours=1)

pytestmark = pytest.mark.usefixtures("committed_database")


@pytest.fixture
def ada(database) -> User:
    with database.transaction() as session:
        return users.create_user(session, "ada")


@pytest.fixture
def token(database, ada) -> str:
    with database.transaction() as session:
        return users.issue_token(session, ada.id, name="laptop")


def test_a_role_includes_those_before_it_and_not_those_after():
    assert Role.ADMIN.includes(Role.OPERATOR)
    assert Role.AUDITOR.includes(Role.AUDITOR)
    assert not Role.USER.includes(Role.AUDITOR)
    assert not Role.OPERATOR.includes(Role.ADMIN)


@pytest.mark.parametrize("name", ["", "Ada", "a b", "-a", "a" * 51, "a/b", "ä", "a\n", "a\0"])
def test_a_name_that_is_not_plain_is_refused(session, name):
    with pytest.raises(InvalidInputError) as refused:
        users.create_user(session, name)
    assert refused.value.field == "username"


def test_a_taken_name_or_address_is_a_conflict_and_the_transaction_goes_on(session):
    users.create_user(session, "ada", email="ada@example.org")
    with pytest.raises(ConflictError) as name:
        users.create_user(session, "ada")
    with pytest.raises(ConflictError) as address:
        users.create_user(session, "bob", email="ada@example.org")
    assert (name.value.code, address.value.code) == ("name_taken", "email_taken")
    assert (name.value.field, address.value.field) == ("username", "email")
    assert users.create_user(session, "bob").username == "bob"
    assert users.find_user(session, "bob").role == "user"
    with pytest.raises(NotFoundError):
        users.find_user(session, "eve")


def test_a_token_signs_in_and_only_its_hash_is_kept(database, ada, token):
    with database.transaction() as session:
        who = users.authenticate_token(session, token)
        kept = accounts.list_tokens(session, ada.id)[0]
    assert (who.user_id, who.username, who.role) == (ada.id, "ada", Role.USER)
    assert token not in {kept.token_hash, kept.name}
    assert len(kept.token_hash) == 64


def test_a_wrong_revoked_or_expired_token_and_an_inactive_user_are_refused(database, ada, token):
    with database.transaction() as session:
        with pytest.raises(UnauthorizedError):
            users.authenticate_token(session, token + "x")
        expired = users.issue_token(session, ada.id, name="old", ttl=timedelta(seconds=-1))
        session.flush()
        with pytest.raises(UnauthorizedError):
            users.authenticate_token(session, expired)
    with database.transaction() as session:
        session.execute(update(User).values(is_active=False))
        with pytest.raises(UnauthorizedError):
            users.authenticate_token(session, token)
        session.execute(update(User).values(is_active=True))
        token_id = accounts.list_tokens(session, ada.id)[-1].id
        accounts.revoke_token(session, token_id)
        with pytest.raises(UnauthorizedError):
            users.authenticate_token(session, token)


def test_authentication_is_one_statement_and_notes_its_use_once_a_minute(database, token):
    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
    for expected in (2, 1, 1):
        statements.clear()
        with database.transaction() as session:
            users.authenticate_token(session, token)
        assert len(statements) == expected
    with database.transaction() as session:
        session.execute(update(ApiToken).values(last_used_at=func.now() - timedelta(seconds=61)))
    with database.transaction() as session:
        users.authenticate_token(session, token)
    with database.transaction() as session:
        age = session.scalars(select(func.now() - ApiToken.last_used_at)).one()
    assert age < timedelta(seconds=30)


def test_noting_the_use_never_waits_for_another_request(database, token):
    with database.transaction() as first:
        users.authenticate_token(first, token)
        with database.transaction() as second:
            assert users.authenticate_token(second, token).username == "ada"


def test_a_session_signs_in_until_it_is_closed_or_ends(database, ada):
    with database.transaction() as session:
        cookie = users.open_session(session, ada.id, ttl=HOUR)
        short = users.open_session(
            session, ada.id, ttl=HOUR, until=session.scalars(select(func.now())).one()
        )
    with database.transaction() as session:
        assert users.authenticate_session(session, cookie).user_id == ada.id
        with pytest.raises(UnauthorizedError):
            users.authenticate_session(session, short)
        users.close_session(session, cookie)
        users.close_session(session, cookie)
        with pytest.raises(UnauthorizedError):
            users.authenticate_session(session, cookie)


def test_opening_a_session_clears_the_users_expired_ones(database, ada):
    with database.transaction() as session:
        users.open_session(session, ada.id, ttl=timedelta(seconds=-1))
    with database.transaction() as session:
        users.issue_ticket(session, ada.id, ttl=HOUR)
    with database.transaction() as session:
        assert session.scalars(select(LoginSession.kind)).all() == ["ticket"]


def test_of_many_who_use_one_link_at_once_one_succeeds(database, ada):
    with database.transaction() as session:
        link = users.issue_login_link(session, ada.id)

    def use(_: int) -> bool:
        try:
            with database.transaction() as session:
                users.redeem(session, link, "login")
        except UnauthorizedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(use, range(8))) == 1


def test_a_link_is_no_ticket_nor_session_and_the_other_way_round(database, ada, token):
    with database.transaction() as session:
        ticket = users.issue_ticket(session, ada.id, ttl=HOUR)
        cookie = users.open_session(session, ada.id, ttl=HOUR)
        late = users.issue_login_link(session, ada.id, ttl=timedelta(seconds=-1))
    with database.transaction() as session:
        for wrong, kind in (
            (ticket, "login"),
            (cookie, "ticket"),
            (token, "login"),
            (late, "login"),
        ):
            with pytest.raises(UnauthorizedError):
                users.redeem(session, wrong, kind)
        with pytest.raises(UnauthorizedError):
            users.authenticate_session(session, ticket)
        assert users.redeem(session, ticket, "ticket").username == "ada"


def test_an_act_is_written_down_with_its_actor(database, ada, token):
    with database.transaction() as session:
        who = users.authenticate_token(session, token)
        users.audit(session, who, "content.delete", "content:7", {"images": 2})
        users.audit(session, "cli", "users.create", "user:ada")
    with database.transaction() as session:
        first, second = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
    assert (first.actor_id, first.actor, first.details) == (ada.id, "ada", {"images": 2})
    assert (second.actor_id, second.actor) == (None, "cli")
