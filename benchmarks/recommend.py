"""Foretell what users take up last, against ALS, BM25 and popularity, tuned on a validation split.

``python -m benchmarks.recommend [FILE]``: planted data, or a file of lines ``user item rating
timestamp``, parted by tabs, spaces, commas or ``::``. The last item of each user is the test, the
one before it the validation; every model chooses its parameters by the validation and meets the
test once.
"""

import math
import resource
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import BM25Recommender
from scipy import sparse
from threadpoolctl import threadpool_limits

from benchmarks.harness.report import Goal, note, tell
from genonaut.core import collaborative, ranking
from genonaut.core.planted import plant

GOAL = Goal("recommend", "recall@20", 1.0)
TIME_GOAL = 1.0
SIZE = (10_000, 20_000, 1_000_000)
AT, KEPT = 20, 50
LEAST = 3

Matrix: TypeAlias = Any
Ranks: TypeAlias = Callable[[Matrix], np.ndarray]


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Give users and items of a ratings file as indices, oldest first, each pair once.

    Four words a line, parted by tabs, spaces, commas or ``::``; a heading and empty lines are
    skipped. Ids may be any words. A pair that is there again counts by its first time. What
    happened in one moment is in an order by chance, the same each time: that of the file may give
    away what is popular.

    Raises: ValueError: a line is something else, or nobody has the three items that it takes.
    """
    users, items, times = [], [], []
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            words = parted(line)
            if not words or (number == 1 and is_heading(words)):
                continue
            try:
                user, item, rating, moment = words
                if not (user and item and math.isfinite(float(rating) + float(moment))):
                    raise ValueError
            except ValueError:
                raise ValueError(
                    f"line {number} is not 'user item rating timestamp': {line.strip()[:60]!r}"
                ) from None
            users.append(user)
            items.append(item)
            times.append(float(moment))
    at = np.array(times)
    order = np.lexsort((np.random.default_rng(0).random(len(at)), at))
    user = np.unique(np.array(users, str), return_inverse=True)[1][order]
    item = np.unique(np.array(items, str), return_inverse=True)[1][order]
    pairs = user * (int(item.max(initial=0)) + 1) + item
    first = np.sort(np.unique(pairs, return_index=True)[1])
    user, item = user[first], item[first]
    if np.bincount(user, minlength=1).max() < LEAST:
        raise ValueError(f"no user has {LEAST} items: one to learn from, one to tune, one to test")
    return user, item


def parted(line: str) -> list[str]:
    """Give the words of a line; none of an empty one."""
    for mark in ("::", ",", "\t"):
        if mark in line:
            return [word.strip() for word in line.split(mark)]
    return line.split()


def is_heading(words: list[str]) -> bool:
    """Whether the words of a first line name columns: nothing in them begins as a number does."""
    return len(words) == 4 and all(word[:1].isalpha() for word in words)


def last_of_each(user: np.ndarray, item: np.ndarray, users: int) -> tuple[np.ndarray, np.ndarray]:
    """Give each user's last item, -1 for who has only one, and which entries are left then."""
    last = np.full(users, -1)
    last[user] = np.arange(len(user))
    last[np.bincount(user, minlength=users) < 2] = -1
    held = np.where(last >= 0, item[last], -1)
    left = np.ones(len(user), bool)
    left[last[last >= 0]] = False
    return held, left


def matrix(user: np.ndarray, item: np.ndarray, shape: tuple[int, int]) -> Matrix:
    """Give who took up what as CSR of ones."""
    made = sparse.csr_matrix((np.ones(len(user), np.float32), (user, item)), shape=shape)
    made.sum_duplicates()
    made.data[:] = 1
    return made


def ours(regularization: float, spread: float) -> Ranks:
    """Fit and rank as ``domain/recommendations.py`` does, without prompts and times."""

    def ranks(known: Matrix) -> np.ndarray:
        options = collaborative.Options(regularization=regularization, spread=spread)
        model = collaborative.fit(known, options)

        def some(part: slice) -> np.ndarray:
            scores = model.scores(known[part])
            scores[known[part].nonzero()] = -np.inf
            return ranking.best(scores, KEPT)

        parts = collaborative.slices(known.shape[0], max(1, 6_000_000 // known.shape[1]))
        return np.concatenate(collaborative.in_threads(some, parts))

    return ranks


def als(factors: int, regularization: float, alpha: float) -> Ranks:
    """Fit ``implicit``'s ALS in 64 bits, as many threads as cores, BLAS alone as it advises."""

    def ranks(known: Matrix) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=factors,
                regularization=regularization,
                alpha=alpha,
                dtype=np.float64,
                random_state=1,
            )
            model.fit(known, show_progress=False)
            return model.recommend(np.arange(known.shape[0]), known, N=KEPT)[0]

    return ranks


def bm25(neighbours: int, k1: float) -> Ranks:
    """Fit ``implicit``'s BM25-weighted neighbours."""

    def ranks(known: Matrix) -> np.ndarray:
        with threadpool_limits(1, "blas"):
            model = BM25Recommender(K=neighbours, K1=k1)
            model.fit(known, show_progress=False)
            return model.recommend(np.arange(known.shape[0]), known, N=KEPT)[0]

    return ranks


def popular() -> Ranks:
    """Rank by how many took an item up."""

    def ranks(known: Matrix) -> np.ndarray:
        counts = np.asarray(known.sum(axis=0), np.float32).ravel()
        made = []
        for part in collaborative.slices(known.shape[0], 500):
            scores = np.tile(counts, (part.stop - part.start, 1))
            scores[known[part].nonzero()] = -np.inf
            made.append(ranking.best(scores, KEPT))
        return np.concatenate(made)

    return ranks


MODELS: list[tuple[Callable[..., Ranks], list[tuple[Any, ...]]]] = [
    (ours, [(50, 0.3), (100, 0), (100, 0.3), (100, 0.6), (200, 0.3)]),
    (
        als,
        [
            (32, 0.1, 1),
            (64, 0.1, 1),
            (128, 0.1, 1),
            (192, 0.1, 1),
            (256, 0.1, 1),
            (128, 1.0, 10),
            (128, 10.0, 1),
            (192, 10.0, 1),
        ],
    ),
    (bm25, [(20, 1.2), (50, 1.2), (100, 1.2), (300, 1.2), (1000, 1.2), (300, 100)]),
    (popular, [()]),
]
"""Each model with the parameters it may choose from."""


def quality(lists: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Give recall@20 and NDCG@20 over the users with an item held back."""
    kept = wanted >= 0
    recall, gain = ranking.hits(np.asarray(lists[kept, :AT], np.int64), wanted[kept])
    return float(recall.mean()), float(gain.mean())


def main(path: str | None = None) -> None:
    """Tune each model, then measure it on the test."""
    if path is None:
        data = plant(*SIZE, seed=7)
        user, item = data.user, data.item
    else:
        try:
            user, item = read(Path(path))
        except (OSError, ValueError) as error:
            sys.exit(f"recommend: {error}")
    shape = (int(user.max()) + 1, int(item.max()) + 1)
    test, left = last_of_each(user, item, shape[0])
    validation, first = last_of_each(user[left], item[left], shape[0])
    learn = matrix(user[left][first], item[left][first], shape)
    whole = matrix(user[left], item[left], shape)
    note(f"{shape[0]} users, {shape[1]} items, {len(user)} interactions")

    recalls, seconds = {}, {}
    for make, choices in MODELS:
        name = make.__name__
        tuned = [quality(make(*choice)(learn), validation)[1] for choice in choices]
        best = choices[int(np.argmax(tuned))]
        began = time.perf_counter()
        lists = make(*best)(whole)
        seconds[name] = time.perf_counter() - began
        recalls[name], gain = quality(lists, test)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        note(
            f"{name} {best}: recall@20 {recalls[name]:.4f}, NDCG@20 {gain:.4f}, "
            f"coverage {ranking.coverage(lists[:, :AT], shape[1]):.3f}, {seconds[name]:.1f} s "
            f"to fit and rank {KEPT} for all; peak so far {peak_mb} MB"
        )
    ratio = seconds["ours"] / seconds["als"]
    met = "met" if ratio <= TIME_GOAL else "not met"
    note(f"time against ALS: {ratio:.2f} (goal ≤ {TIME_GOAL}, {met})")
    peer = max(recalls["als"], recalls["bm25"])
    if not peer:
        sys.exit("recommend: neither ALS nor BM25 foretells anything: too few interactions")
    tell(GOAL, [(recalls["ours"], peer)])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main(*sys.argv[1:2])
