"""Errors have a stable code, a status and words for people."""

import inspect

import pytest

from genonaut.core import errors
from genonaut.core.errors import ConflictError, GenonautError, LeaseLostError, RateLimitedError

CLASSES = [
    one
    for _, one in inspect.getmembers(errors, inspect.isclass)
    if issubclass(one, GenonautError) and one is not RateLimitedError
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_can_be_shown(kind):
    error = kind()
    assert str(error)
    assert error.code.isidentifier()
    assert len(error.code) <= 50  # it is stored
    assert 400 <= error.http_status < 600


def test_codes_are_unique():
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))


def test_a_message_a_field_and_a_code_of_its_own():
    error = ConflictError("it has ended", field="id", code="already_completed")
    assert (str(error), error.field, error.code) == ("it has ended", "id", "already_completed")
    assert ConflictError.code == "conflict"


def test_a_lost_lease_is_a_conflict():
    assert issubclass(LeaseLostError, ConflictError)


def test_a_limit_says_when_to_come_back():
    error = RateLimitedError("too many", retry_after_s=3, limit=10)
    assert (error.http_status, error.retry_after_s, error.limit, error.remaining) == (429, 3, 10, 0)
