"""Make believable interactions: clusters of taste, a power law of popularity, and time."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]

SPAN_S = 90 * 86_400.0
"""From the first interaction to the last, seconds."""

_BACKGROUND = 0.15
_TASTES_PER_USER = 4
_OVERDRAW = 1.35
_ROUNDS = 12


@dataclass(frozen=True, slots=True)
class Planted:
    """What was planted.

    ``user``, ``item``, ``rating`` (1 to 5) and ``at`` (seconds from 0 to ``SPAN_S``) have one entry
    per interaction, ordered by time, each pair at most once. ``taste`` and ``born`` (seconds) have
    one per item; an item is not seen before it is born.
    """

    user: IntArray
    item: IntArray
    rating: IntArray
    at: FloatArray
    taste: IntArray
    born: FloatArray


def plant(users: int, items: int, interactions: int, *, seed: int = 0) -> Planted:
    """Draw about ``interactions`` distinct pairs; fewer, where the users cannot have seen so many.

    Each item belongs to one taste and is popular by a power law. Users are active by a log-normal
    law and have a few tastes, from which most of what they see comes; the rest is what everyone
    sees. The same numbers give the same data.
    """
    random = np.random.default_rng(seed)
    tastes = max(1, min(items, round(2 * items**0.5)))
    taste = random.integers(0, tastes, items)
    popularity = (np.arange(1, items + 1) ** -0.8)[random.permutation(items)]
    born = (random.random(items) * 0.9 * SPAN_S).astype(np.float32)
    born[random.random(items) < 0.5] = 0.0
    activity = random.lognormal(0.0, 1.0, users)
    of_user = random.integers(0, tastes, (users, _TASTES_PER_USER))
    share = np.cumsum(random.dirichlet(np.full(_TASTES_PER_USER, 0.7), users), axis=1)

    order = np.argsort(taste, kind="stable")
    weight = np.cumsum(popularity[order])
    ends = np.searchsorted(taste[order], np.arange(tastes), side="right")
    lower = np.concatenate([[0.0], weight])[np.concatenate([[0], ends[:-1]])]
    upper = np.concatenate([[0.0], weight])[ends]

    pairs = np.empty(0, np.int64)
    wanted = min(interactions, users * items)
    for _ in range(_ROUNDS):
        lacking = wanted - len(pairs)
        if lacking <= 0 or not users or not items:
            break
        count = int(lacking * _OVERDRAW) + 16
        user = _weighted(random, activity, count)
        rank = (random.random(count)[:, None] > share[user]).sum(axis=1)
        own = of_user[user, np.minimum(rank, _TASTES_PER_USER - 1)]
        common = random.random(count) < _BACKGROUND
        low = np.where(common | (upper[own] == lower[own]), 0.0, lower[own])
        high = np.where(common | (upper[own] == lower[own]), weight[-1], upper[own])
        place = np.searchsorted(weight, low + random.random(count) * (high - low), side="right")
        item = order[np.minimum(place, items - 1)]
        drawn = np.concatenate([pairs, user * items + item])
        _, first = np.unique(drawn, return_index=True)
        pairs = drawn[np.sort(first)][:wanted]

    user, item = pairs // max(items, 1), pairs % max(items, 1)
    liked = (of_user[user] == taste[item][:, None]).any(axis=1) if len(user) else np.zeros(0, bool)
    rating = np.clip(np.round(random.normal(2.6 + 1.4 * liked, 0.9)), 1, 5).astype(np.int64)
    at = (born[item] + random.random(len(item)) * (SPAN_S - born[item])).astype(np.float32)
    by_time = np.argsort(at, kind="stable")
    return Planted(
        user[by_time], item[by_time], rating[by_time], at[by_time], taste.astype(np.int64), born
    )


def _weighted(random: np.random.Generator, weights: NDArray[np.float64], count: int) -> IntArray:
    total = np.cumsum(weights)
    found = np.searchsorted(total, random.random(count) * total[-1], side="right")
    made: IntArray = np.minimum(found, len(weights) - 1).astype(np.int64)
    return made
