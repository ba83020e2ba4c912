"""What a claim's holder does while PostgreSQL is away for a moment."""

from contextlib import contextmanager

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from genonaut.core.errors import RetryableError
from genonaut.worker import held
from genonaut.worker.held import guard_patiently

AWAY = OperationalError("SELECT 1", {}, Exception("gone"))
NO_CONNECTION = PoolTimeoutError("QueuePool limit reached")


@pytest.fixture
def guarded(monkeypatch):
    """A guard that meets a database which is away, when it is taken and when it is let go."""
    monkeypatch.setattr(held.time, "sleep", lambda _: None)
    seen = []

    def make(*, times=0, at_the_end=False, error=AWAY):
        @contextmanager
        def guard(digest):
            seen.append(digest)
            if len(seen) <= times:
                raise error
            yield
            if at_the_end:
                raise error

        return guard_patiently(guard), seen

    return make


@pytest.mark.parametrize("error", [AWAY, NO_CONNECTION])
def test_a_file_is_stored_when_the_database_is_back(guarded, error):
    guard, seen = guarded(times=3, error=error)
    with guard("ab"):
        assert seen == ["ab"] * 4


def test_a_lock_lost_while_the_file_was_written_is_no_matter(guarded):
    guard, _ = guarded(at_the_end=True)
    with guard("ab"):
        pass


def test_what_the_store_says_is_heard(guarded):
    guard, _ = guarded()
    with pytest.raises(KeyError), guard("ab"):
        raise KeyError


@pytest.mark.parametrize(("error", "who"), [(AWAY, "database"), (NO_CONNECTION, "store")])
def test_what_stays_away_is_not_waited_for_for_ever(guarded, monkeypatch, error, who):
    """Where every connection for storing is taken, it is the store that lets none go."""
    monkeypatch.setattr(held, "PATIENCE_S", -1)
    guard, _ = guarded(times=100, error=error)
    with pytest.raises(RetryableError, match=f"the {who} does not answer"), guard("ab"):
        pass
