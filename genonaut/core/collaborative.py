"""Predict what a user takes up next from what users took up together: numbers in, numbers out.

The items with the most interactions, the head, are predicted from each other by EASE; each of the
others, the tail, by a small ridge regression on the head items nearest to it. Both predict the same
value, so their scores can be compared.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.linalg import lapack

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
Matrix: TypeAlias = Any
"""A sparse CSR matrix; SciPy has no types."""

Part = TypeVar("Part")
Made = TypeVar("Made")

_PAD = 1e-3
_MOST = np.float32(1e4)
_ROWS = 512
_SPREAD_OVER = 10


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit.

    ``head_items`` bounds memory (12 bytes times its square) and time (its cube). ``regularization``
    is for signals of mean square 1 and is scaled with them. ``tail_weight`` is how much a tail
    item's score counts beside a head item's. ``spread`` is how much a tail item that a user took up
    counts as the head items nearest to it; 0 is nothing.
    """

    head_items: int = 5000
    neighbours: int = 60
    regularization: float = 200.0
    tail_weight: float = 0.8
    spread: float = 0.3


@dataclass(frozen=True, slots=True)
class Model:
    """What was learned about m items, h of them in the head and t in the tail.

    ``head`` (h,) and ``tail`` (t,) are item indices. ``between`` (h, h) has the weight of a head
    item, the row, for another; its diagonal is 0. ``nearest`` (t, k) are rows of ``between``,
    ``pull`` (t, k) their weights for the tail item, and ``pulls`` (h, t) the same, sparse.
    ``stands_for`` (t, h), sparse, is how much of each head item a tail item counts as.
    """

    items: int
    head: IntArray
    tail: IntArray
    between: FloatArray
    nearest: IntArray
    pull: FloatArray
    pulls: Matrix
    stands_for: Matrix

    def scores(self, signals: Matrix) -> FloatArray:
        """Score every item for some users.

        Args:
            signals: (b, m), sparse, what each user took up, as :func:`fit` was given them.
        Returns: (b, m), higher is likelier; 0 for an item nothing is known about.
        """
        scored = np.zeros((signals.shape[0], self.items), np.float32)
        known = signals[:, self.head]
        if self.stands_for.nnz:
            known = known + signals[:, self.tail] @ self.stands_for
        scored[:, self.head] = known @ self.between
        if self.tail.size:
            scored[:, self.tail] = (known @ self.pulls).toarray()
        return scored

    def strongest(self, history: IntArray, signal: FloatArray, items: IntArray) -> IntArray:
        """Say which of a user's items speaks most for each of some others.

        Args:
            history: (n,), items the user took up, ascending.
            signal: (n,), how much.
            items: (l,), the items to explain.
        Returns: (l,), indices of items out of ``history``, -1 where none speaks for one.
        """
        best = np.full(len(items), -1, np.int64)
        place = np.full(self.items, -1, np.int64)
        place[self.head] = np.arange(len(self.head))
        mine = place[history]
        rows, weight = mine[mine >= 0], signal[mine >= 0]
        if not rows.size:
            return best
        in_head = place[items] >= 0
        if in_head.any():
            said = self.between[np.ix_(rows, place[items[in_head]])] * weight[:, None]
            first = said.argmax(axis=0)
            spoke = said[first, np.arange(said.shape[1])] > 0
            best[in_head] = np.where(spoke, self.head[rows[first]], -1)
        if self.tail.size and not in_head.all():
            taken = np.zeros(len(self.head), np.float32)
            taken[rows] = weight
            at = np.searchsorted(self.tail, items[~in_head]).clip(max=len(self.tail) - 1)
            said = self.pull[at] * taken[self.nearest[at]]
            first = said.argmax(axis=1)
            line = np.arange(len(at))
            spoke = (said[line, first] > 0) & (self.tail[at] == items[~in_head])
            best[~in_head] = np.where(spoke, self.head[self.nearest[at][line, first]], -1)
        return best


def fit(signals: Matrix, options: Options) -> Model:
    """Learn which items go together.

    Args:
        signals: (n, m), sparse CSR, how strongly each of n users took up each of m items, not
            negative. What is not finite counts as 0.
        options: how.
    Returns: the model; the same signals and options give the same.
    Source: H. Steck, Embarrassingly Shallow Autoencoders for Sparse Data (2019), for the head;
        X. Ning, G. Karypis, SLIM (2011), section IV-C (feature selection by nearest neighbours),
        with ridge instead of elastic net, for the tail.
    """
    signals = finite(signals)
    counts = np.diff(signals.tocsc().indptr)
    known = np.flatnonzero(counts)
    by_count = known[np.argsort(-counts[known], kind="stable")]
    head = np.sort(by_count[: options.head_items])
    tail = np.sort(by_count[options.head_items :])
    scale = float(np.mean(signals.data**2)) if signals.nnz else 1.0
    ridge = max(options.regularization * scale, _PAD)
    of_head = signals[:, head]
    together = _gram(of_head)
    width = min(options.neighbours, len(head)) if tail.size else 0
    nearest, pull = _tail(signals[:, tail], of_head, together, width, ridge)
    ends = np.arange(0, pull.size + 1, max(width, 1))[: len(tail) + 1]

    def by_item(values: FloatArray) -> Matrix:
        parts = (values.ravel(), nearest.ravel(), ends)
        return sparse.csr_matrix(parts, shape=(len(tail), len(head)))

    stands_for = by_item(_shares(pull) * np.float32(options.spread))
    stands_for.eliminate_zeros()
    pull *= np.float32(options.tail_weight)
    pulls = by_item(pull).T.tocsr()
    between = _ease(together, ridge)
    return Model(signals.shape[1], head, tail, between, nearest, pull, pulls, stands_for)


def _shares(pull: FloatArray) -> FloatArray:
    """Give the largest few of each row of (t, k) as shares of their sum, and 0 for the others."""
    shares = np.maximum(pull, 0)
    if shares.shape[1] > _SPREAD_OVER:
        least = np.partition(shares, -_SPREAD_OVER, axis=1)[:, -_SPREAD_OVER, None]
        shares[shares < least] = 0
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), _PAD)
    return shares


def finite(signals: Matrix) -> Matrix:
    """Give signals as CSR of 32-bit floats, without what is not finite or not above 0.

    What is above 10,000 counts as that: its square must have its place in a float too.
    """
    made = sparse.csr_matrix(signals, dtype=np.float32, copy=True)
    made.sum_duplicates()
    made.data[~(np.isfinite(made.data) & (made.data > 0))] = 0
    made.eliminate_zeros()
    np.minimum(made.data, _MOST, out=made.data)
    return made


def _gram(of_head: Matrix) -> FloatArray:
    """Multiply (n, h) by itself to (h, h), a stripe of items at a time."""
    turned = of_head.T.tocsr()
    made = np.empty((turned.shape[0], turned.shape[0]), np.float32)

    def fill(part: slice) -> None:
        made[part] = (turned[part] @ of_head).toarray()

    in_threads(fill, slices(turned.shape[0], _ROWS))
    return made


def _ease(together: FloatArray, ridge: float) -> FloatArray:
    """Solve EASE in closed form; ``together`` (h, h) is used up."""
    if not together.size:
        return together
    np.einsum("ii->i", together)[:] += np.float32(ridge)
    # Of a symmetric matrix the transpose, which LAPACK wants in place, is the matrix itself.
    factor, failed = lapack.spotrf(together.T, lower=1, overwrite_a=1, clean=0)
    if not failed:
        factor, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed or not np.isfinite(diagonal := np.diag(factor).copy()).all():
        return np.zeros_like(together)
    whole = factor.T  # its upper half is right now
    for part in slices(len(whole), _ROWS):
        whole[part, : part.start] = whole[: part.start, part].T
        square = whole[part, part]
        upper = np.triu(square)
        whole[part, part] = upper + np.triu(upper, 1).T
    whole /= -diagonal
    np.einsum("ii->i", whole)[:] = 0
    result: FloatArray = whole
    return result


def _tail(
    of_tail: Matrix, of_head: Matrix, together: FloatArray, width: int, ridge: float
) -> tuple[IntArray, FloatArray]:
    """Regress each of t tail items on the ``width`` head items whose users are most like its own.

    ``together`` (h, h) is the head's Gram matrix.
    """
    norms = np.sqrt(np.diag(together) + ridge / 10)
    turned = of_tail.T.tocsr()
    nearest = np.empty((turned.shape[0], width), np.int64)
    pull = np.empty((turned.shape[0], width), np.float32)
    on_diagonal = np.arange(width)

    def fill(part: slice) -> None:
        shared = (turned[part] @ of_head).toarray()
        chosen = np.argpartition(-shared / norms, width - 1, axis=1)[:, :width]
        chosen.sort(axis=1)
        system = together[chosen[:, :, None], chosen[:, None, :]]
        system[:, on_diagonal, on_diagonal] += np.float32(ridge)
        wanted = np.take_along_axis(shared, chosen, axis=1)
        nearest[part] = chosen
        pull[part] = np.linalg.solve(system, wanted[:, :, None])[:, :, 0]

    in_threads(fill, slices(turned.shape[0], _ROWS))
    np.nan_to_num(pull, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return nearest, pull


def slices(length: int, step: int) -> list[slice]:
    """Cut a range into pieces of at most ``step``."""
    return [slice(start, min(start + step, length)) for start in range(0, length, step)]


def in_threads(work: Callable[[Part], Made], parts: Iterable[Part]) -> list[Made]:
    """Work on the parts at once, as many as there are cores; the results are in their order."""
    with ThreadPoolExecutor(min(4, len(os.sched_getaffinity(0)))) as pool:
        return list(pool.map(work, parts))
