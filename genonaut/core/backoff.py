"""Say how long to wait before trying again."""

import random

LONGEST_S = 300.0


def backoff_s(attempt: int, first_s: float, *, longest_s: float = LONGEST_S) -> float:
    """Give the seconds to wait after the ``attempt``-th attempt (from 1).

    They double from ``first_s`` with each attempt, up to ``longest_s``, give or take a fifth, so
    that what failed together is not tried again together.
    """
    delay_s = min(first_s * 2.0 ** max(0, attempt - 1), longest_s)
    return delay_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
