"""Say how long to wait before trying again."""

import random

LONGEST_S = 300.0


def backoff_s(attempt: int, first_s: float) -> float:
    """Give the seconds to wait after the ``attempt``-th attempt (from 1).

    They double from ``first_s`` with each attempt, up to five minutes, give or take a fifth, so
    that what failed together is not tried again together.
    """
    delay_s = min(first_s * 2.0 ** max(0, attempt - 1), LONGEST_S)
    return delay_s * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, guards nothing
