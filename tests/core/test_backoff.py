"""Waiting grows, but not for ever, and not in step."""

from hypothesis import given
from hypothesis import strategies as st

from genonaut.core.backoff import LONGEST_S, backoff_s


@given(st.integers(0, 200), st.floats(0.01, 100))
def test_it_doubles_up_to_five_minutes_give_or_take_a_fifth(attempt, first_s):
    ideal = min(first_s * 2.0 ** max(0, attempt - 1), LONGEST_S)
    assert 0.8 * ideal <= backoff_s(attempt, first_s) <= 1.2 * ideal


def test_two_waits_differ():
    assert len({backoff_s(1, 5) for _ in range(10)}) > 1
