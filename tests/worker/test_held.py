"""What a claim's holder does while PostgreSQL is away for a moment."""

from contextlib import contextmanager

import pytest
from sqlalchemy.exc import OperationalError

from genonaut.core.errors import RetryableError
from genonaut.worker import held
from genonaut.worker.held import guard_patiently


def away() -> OperationalError:
    return OperationalError("SELECT 1", {}, Exception("gone"))


@pytest.fixture
def guarded(monkeypatch):
    """A guard that meets a database which is away, when it is taken and when it is let go."""
    monkeypatch.setattr(held.time, "sleep", lambda _: None)
    seen = []

    def make(*, times=0, at_the_end=False):
        @contextmanager
        def guard(digest):
            seen.append(digest)
            if len(seen) <= times:
                raise away()
            yield
            if at_the_end:
                raise away()

        return guard_patiently(guard), seen

    return make


def test_a_file_is_stored_when_the_database_is_back(guarded):
    guard, seen = guarded(times=3)
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


def test_a_database_that_stays_away_is_not_waited_for_for_ever(guarded, monkeypatch):
    monkeypatch.setattr(held, "PATIENCE_S", -1)
    guard, _ = guarded(times=100)
    with pytest.raises(RetryableError, match="does not answer"), guard("ab"):
        pass
