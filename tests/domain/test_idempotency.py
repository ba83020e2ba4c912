"""The same request is answered the same, once."""

from datetime import timedelta

import pytest
from sqlalchemy import func, update

from genonaut.core.errors import ConflictError, InvalidInputError
from genonaut.db.models import IdempotencyKey
from genonaut.domain import idempotency, users
from genonaut.domain.idempotency import Answer, Ticket

MADE = Answer(202, "/api/v1/generation-jobs/1", {"id": 1})

pytestmark = pytest.mark.usefixtures("committed_database")


@pytest.fixture
def request_(database) -> Ticket:
    with database.transaction() as session:
        return Ticket(users.create_user(session, "ada").id, "k-1", "a" * 64)


def test_a_repeated_request_gets_the_first_answer(database, request_):
    with database.transaction() as session:
        assert idempotency.earlier_answer(session, request_) is None
        idempotency.remember(session, request_, MADE)
    with database.transaction() as session:
        assert idempotency.earlier_answer(session, request_) == MADE


def test_a_key_with_another_request_is_refused(database, request_):
    with database.transaction() as session:
        idempotency.remember(session, request_, MADE)
    other = Ticket(request_.user_id, request_.key, "b" * 64)
    with database.transaction() as session, pytest.raises(InvalidInputError) as refused:
        idempotency.earlier_answer(session, other)
    assert refused.value.code == "idempotency_key_reused"


def test_a_request_in_flight_is_a_conflict_until_it_ends(database, request_):
    with database.transaction() as first:
        assert idempotency.earlier_answer(first, request_) is None
        with database.transaction() as second, pytest.raises(ConflictError) as refused:
            idempotency.earlier_answer(second, request_)
    assert refused.value.code == "request_in_flight"
    with database.transaction() as session:
        assert idempotency.earlier_answer(session, request_) is None


def test_keys_of_two_users_do_not_meet(database, request_):
    with database.transaction() as session:
        other = Ticket(users.create_user(session, "bob").id, request_.key, request_.body_hash)
        idempotency.remember(session, request_, MADE)
    with database.transaction() as first:
        idempotency.earlier_answer(first, request_)
        with database.transaction() as second:
            assert idempotency.earlier_answer(second, other) is None


def test_after_a_day_a_key_may_be_used_anew(database, request_):
    with database.transaction() as session:
        idempotency.remember(session, request_, MADE)
    with database.transaction() as session:
        session.execute(update(IdempotencyKey).values(expires_at=func.now() - timedelta(seconds=1)))
    again = Ticket(request_.user_id, request_.key, "c" * 64)
    with database.transaction() as session:
        assert idempotency.earlier_answer(session, again) is None
        idempotency.remember(session, again, Answer(202, None, {"id": 2}))
    with database.transaction() as session:
        found = idempotency.earlier_answer(session, again)
    assert found is not None
    assert found.body == {"id": 2}


@pytest.mark.parametrize("key", ["", "a b", "ä", "a\n", "a\0", "x" * 256])
def test_a_key_that_is_no_plain_text_is_refused(session, request_, key):
    with pytest.raises(InvalidInputError):
        idempotency.earlier_answer(session, Ticket(request_.user_id, key, "a" * 64))
