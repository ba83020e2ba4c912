"""Accounts are listed and changed, and somebody always stays who may do so; tokens end."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from uuid import UUID

import pytest
from sqlalchemy import select

from genonaut.core.clock import utcnow
from genonaut.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from genonaut.db.models import LoginSession, User
from genonaut.domain import accounts, users
from genonaut.domain.accounts import LastAdminError
from genonaut.domain.users import Role

pytestmark = pytest.mark.usefixtures("committed_database")

HOUR = timedelta(hours=1)


@pytest.fixture
def make(database):
    def account(username: str, role: Role = Role.USER, **values) -> User:
        with database.transaction() as session:
            return users.create_user(session, username, role=role, **values)

    return account


def names(found: list[User]) -> list[str]:
    return [user.username for user in found]


def test_accounts_are_listed_by_name_and_narrowed(database, make):
    make("bob", Role.ADMIN)
    make("ada", email="love@example.org")
    eve = make("eve_1", Role.AUDITOR)
    with database.transaction() as session:
        accounts.change(session, eve.id, {"is_active": False})
    with database.transaction() as session:
        assert names(accounts.list_users(session)) == ["ada", "bob", "eve_1"]
        assert names(accounts.list_users(session, after="ada", limit=1)) == ["bob"]
        assert names(accounts.list_users(session, words="LOVE")) == ["ada"]
        assert names(accounts.list_users(session, words="B")) == ["bob"]
        assert names(accounts.list_users(session, words="_")) == ["eve_1"]
        assert accounts.list_users(session, words="%") == []
        assert names(accounts.list_users(session, roles=[Role.ADMIN, Role.USER])) == ["ada", "bob"]
        assert names(accounts.list_users(session, is_active=False)) == ["eve_1"]


def test_a_change_says_what_became_different(database, make):
    ada = make("ada", email="ada@example.org")
    with database.transaction() as session:
        user, changes = accounts.change(
            session, ada.id, {"role": Role.AUDITOR, "email": "ada@example.org"}
        )
        assert changes == {"role": {"before": "user", "after": "auditor"}}
        assert user.updated_at > user.created_at
    with database.transaction() as session:
        same, changes = accounts.change(session, ada.id, {"role": Role.AUDITOR})
        assert (same.updated_at, changes) == (user.updated_at, {})
        assert accounts.change(session, ada.id, {"email": None})[0].email is None
        assert accounts.change(session, ada.id, {}) == (accounts.one(session, ada.id), {})


def test_an_address_that_is_taken_is_a_conflict_and_the_transaction_goes_on(database, make):
    make("ada", email="ada@example.org")
    bob = make("bob")
    with database.transaction() as session:
        with pytest.raises(ConflictError) as refused:
            accounts.change(session, bob.id, {"email": "ada@example.org", "role": Role.AUDITOR})
        assert (refused.value.code, refused.value.field) == ("email_taken", "email")
        assert accounts.one(session, bob.id).role == "user"


def test_an_address_is_kept_in_its_usual_form():
    assert accounts.check_email("Ada@EXAMPLE.org") == "Ada@example.org"
    for odd in ("", "ada", "a b@example.org", "a@b\n", "a" * 300 + "@example.org"):
        with pytest.raises(InvalidInputError) as refused:
            accounts.check_email(odd)
        assert refused.value.field == "email"


def test_nobody_there_is_not_found(session):
    unknown = UUID(int=0)
    with pytest.raises(NotFoundError):
        accounts.one(session, unknown)
    with pytest.raises(NotFoundError):
        accounts.change(session, unknown, {"role": Role.USER})


@pytest.mark.parametrize("wanted", [{"role": Role.OPERATOR}, {"is_active": False}])
def test_the_last_active_admin_stays_one(database, make, wanted):
    root, other = make("root", Role.ADMIN), make("other", Role.ADMIN)
    with database.transaction() as session:
        accounts.change(session, other.id, {"is_active": False})
    with database.transaction() as session:
        with pytest.raises(LastAdminError):
            accounts.change(session, root.id, wanted)
        accounts.change(session, root.id, {"email": "root@example.org", "role": Role.ADMIN})
        accounts.change(session, other.id, {"role": Role.USER})
        accounts.change(session, other.id, {"role": Role.ADMIN, "is_active": True})
        accounts.change(session, root.id, wanted)


def test_of_admins_who_are_all_demoted_at_once_one_stays(database, make):
    admins = [make(f"admin{n}", Role.ADMIN) for n in range(4)]
    together = Barrier(len(admins))

    def demote(user: User) -> bool:
        together.wait()
        try:
            with database.transaction() as session:
                accounts.change(session, user.id, {"role": Role.USER})
        except LastAdminError:
            return False
        return True

    with ThreadPoolExecutor(len(admins)) as pool:
        assert sorted(pool.map(demote, admins)) == [False, True, True, True]
    with database.transaction() as session:
        assert len(accounts.list_users(session, roles=[Role.ADMIN])) == 1


def test_who_is_made_inactive_is_logged_out_and_their_tokens_rest(database, make):
    ada = make("ada")
    with database.transaction() as session:
        _, token = accounts.issue_token(session, ada.id, name="laptop")
        cookie = users.open_session(session, ada.id, ttl=HOUR)
        link = users.issue_login_link(session, ada.id)
    with database.transaction() as session:
        accounts.change(session, ada.id, {"is_active": False})
        assert session.scalars(select(LoginSession)).all() == []
        with pytest.raises(UnauthorizedError):
            users.authenticate_token(session, token)
        accounts.change(session, ada.id, {"is_active": True})
        assert users.authenticate_token(session, token).user_id == ada.id
        with pytest.raises(UnauthorizedError):
            users.authenticate_session(session, cookie)
        with pytest.raises(UnauthorizedError):
            users.redeem(session, link, "login")


def test_tokens_are_listed_newest_first_and_show_nothing_of_themselves(database, make):
    ada, bob = make("ada"), make("bob")
    with database.transaction() as session:
        accounts.issue_token(session, bob.id, name="his")
        old, _ = accounts.issue_token(session, ada.id, name="old", ttl=timedelta(seconds=-1))
        row, token = accounts.issue_token(session, ada.id, name=" laptop ", ttl=HOUR)
        accounts.revoke_token(session, accounts.issue_token(session, ada.id, name="lost")[0].id)
    with database.transaction() as session:
        listed = accounts.list_tokens(session, ada.id)
        assert accounts.list_tokens(session, ada.id, before=row.id, limit=1)[0].id == old.id
        shown = [accounts.public_token(one, utcnow()) for one in listed]
    assert [(one["name"], one["state"]) for one in shown] == [
        ("lost", "revoked"),
        ("laptop", "valid"),
        ("old", "expired"),
    ]
    assert not {token, row.token_hash} & set(map(str, shown[1].values()))


def test_revoking_a_token_ends_it_and_browser_sessions_once(database, make):
    ada, bob = make("ada"), make("bob")
    with database.transaction() as session:
        row, token = accounts.issue_token(session, ada.id, name="laptop")
        cookie = users.open_session(session, ada.id, ttl=HOUR)
    with database.transaction() as session:
        for nobodys, whose in ((10**9, None), (row.id, bob.id)):
            with pytest.raises(NotFoundError):
                accounts.revoke_token(session, nobodys, of=whose)
        assert users.authenticate_token(session, token).user_id == ada.id
        assert accounts.revoke_token(session, row.id, of=ada.id).id == row.id
        with pytest.raises(UnauthorizedError):
            users.authenticate_session(session, cookie)
        later = users.open_session(session, ada.id, ttl=HOUR)
        session.flush()
        assert accounts.revoke_token(session, row.id) is None
        assert users.authenticate_session(session, later).user_id == ada.id
        with pytest.raises(UnauthorizedError):
            users.authenticate_token(session, token)
