"""Rank what each user might like next: numbers in, numbers out.

What others took up together with what a user took up (``core/collaborative.py``) counts most;
likeness of prompts (``core/similarity.py``) and what is popular at the moment count beside it.
Every few places go to pictures that hardly anybody has seen yet, chosen by their prompt alone, so
that new ones get their chance.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genonaut.core import collaborative, ranking, similarity
from genonaut.core.collaborative import in_threads, slices

FloatArray: TypeAlias = NDArray[np.float32]
IntArray: TypeAlias = NDArray[np.int64]
Matrix: TypeAlias = Any

ALGORITHM = "ease-2"
"""Stored with what it made; changed whenever the same numbers would give other lists."""

AT = 20
"""Length of the lists that are evaluated."""

_CELLS = 6_000_000
_ALIKE_WEIGHT = 0.2
_POPULAR_WEIGHT = 0.05
_NEW_WEIGHT = 0.01
_TINY = 1e-6


class Reason(IntEnum):
    """Why an item is in a list. The first three name an item of the user's history."""

    LIKED = 1
    SEEN = 2
    PROMPT = 3
    POPULAR = 4
    NEW = 5


@dataclass(frozen=True, slots=True)
class Options:
    """How lists are made.

    A signal's weight halves every ``half_life_s``, popularity and newness in half-lives of their
    own. What a user saw before keeps ``seen_factor`` of its score. Every ``new_every``-th place
    goes to an item with fewer than ``new_below`` users and a prompt of at least ``new_alike``
    (cosine) to the user's taste; 0 gives none. Of one creator no more than ``per_creator`` items
    come before the others' have had their places.
    """

    list_size: int = 50
    per_creator: int = 5
    seen_factor: float = 0.1
    half_life_s: float = 60 * 86_400
    popular_half_life_s: float = 7 * 86_400
    new_half_life_s: float = 14 * 86_400
    new_every: int = 5
    new_below: int = 5
    new_alike: float = 0.3
    history_max: int = 1000
    seed: int = 0
    fit: collaborative.Options = field(default_factory=collaborative.Options)


@dataclass(frozen=True, slots=True)
class Feedback:
    """What n users did with m items, k times; a pair may occur more than once.

    ``user`` (k,) and ``item`` (k,) are indices. ``strength`` (k,) says how much an act speaks for
    the item, 0 not at all; below 0 the user never wants to see it. ``age_s`` (k,) are seconds
    since. ``liked`` (k,) tells acts that mean liking from those that mean looking.
    """

    users: int
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    strength: FloatArray
    age_s: FloatArray
    liked: NDArray[np.bool_]

    def where(self, kept: NDArray[np.bool_]) -> "Feedback":
        """Give a part of it, of the same users."""
        return Feedback(
            self.users,
            self.user[kept],
            self.item[kept],
            self.strength[kept],
            self.age_s[kept],
            self.liked[kept],
        )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The m items that may be recommended.

    ``creator`` (m,) numbers who made each; ``owner`` (m,) is the index of that user in the
    feedback, -1 for one who is not in it. ``age_s`` (m,) are seconds since it was made, ``vectors``
    (m, d) what its prompt is about, unit rows or zeros.
    """

    creator: IntArray
    owner: IntArray
    age_s: FloatArray
    vectors: FloatArray

    @property
    def items(self) -> int:
        """How many items there are, m."""
        return len(self.creator)


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of b users, best place first.

    Each is (b, l): the ``item``'s index, -1 for an empty place, which only empty ones follow; its
    ``score``; the ``reason``, a :class:`Reason`; and the item ``because`` of which, or -1.
    """

    item: IntArray
    score: FloatArray
    reason: IntArray
    because: IntArray


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How well lists foretell what users took up last, beside the list of what is popular.

    The newest item of each of ``users`` users was held back and looked for in their lists of 20,
    made without it. ``error`` is the standard error of ``ndcg``.
    """

    users: int
    recall: float
    ndcg: float
    coverage: float
    popular_recall: float
    popular_ndcg: float
    popular_coverage: float
    error: float

    def is_worse_than(self, other: "Evaluation", margin: float) -> bool:
        """Whether the score fell by more than ``margin`` (a share), and not by chance.

        Chance is two standard errors of the difference.
        """
        if not self.users or not other.users:
            return False
        fall = other.ndcg - self.ndcg
        by_chance = 2 * float(np.hypot(self.error, other.error))
        return fall > margin * other.ndcg and fall > by_chance


class Recommender:
    """What was learned from feedback, to make lists with."""

    def __init__(self, feedback: Feedback, catalogue: Catalogue, options: Options) -> None:
        self._catalogue = catalogue
        self._options = options
        shape = (feedback.users, catalogue.items)
        age_s = np.nan_to_num(np.maximum(feedback.age_s, 0), nan=0.0)
        strength = np.nan_to_num(feedback.strength, nan=0.0, posinf=0.0, neginf=0.0)
        positive = np.maximum(strength, 0)
        pair = (feedback.user, feedback.item)

        def _matrix(values: FloatArray) -> Matrix:
            return collaborative.finite(sparse.coo_matrix((values, pair), shape=shape))

        signals = _matrix(positive * _halved(age_s, options.half_life_s))
        self._signals = _strongest(signals, options.history_max)
        self._seen = _matrix((strength >= 0).astype(np.float32))
        self._unwanted = _matrix((strength < 0).astype(np.float32))
        self._liked = _matrix((feedback.liked & (strength > 0)).astype(np.float32))
        self._followers = np.bincount(self._seen.indices, minlength=catalogue.items)
        lately = np.zeros(catalogue.items, np.float32)
        np.add.at(lately, feedback.item, positive * _halved(age_s, options.popular_half_life_s))
        said = np.log1p(lately, dtype=np.float32)
        self._popular = said / np.float32(max(float(said.max(initial=0)), _TINY))
        self._fresh = _halved(np.maximum(catalogue.age_s, 0), options.new_half_life_s)
        self._model = collaborative.fit(self._signals, options.fit)

    def lists(self, users: IntArray, *, size: int | None = None) -> Lists:
        """Make the lists of some users (b,), by their indices in the feedback.

        An item that its owner would get, or that a user does not want to see, is never among them.
        """
        step = max(1, _CELLS // max(1, self._catalogue.items))
        length = size or self._options.list_size
        parts = in_threads(
            lambda part: self._some(users[part], length), slices(len(users), step)
        ) or [self._some(users, length)]
        return Lists(
            np.concatenate([part.item for part in parts]),
            np.concatenate([part.score for part in parts]),
            np.concatenate([part.reason for part in parts]),
            np.concatenate([part.because for part in parts]),
        )

    def popular(self, *, size: int | None = None) -> Lists:
        """Make the one list for users of whom nothing is known: popular items, then new ones."""
        score = self._popular + np.float32(_NEW_WEIGHT) * self._fresh
        key = score + (self._popular > 0)
        item = ranking.best(key[None, :], 3 * (size or self._options.list_size))
        item = self._spread(item, size or self._options.list_size)
        known = item >= 0
        found = np.where(known, np.take(self._popular, np.maximum(item, 0), mode="clip"), 0)
        reason = np.where(found > 0, Reason.POPULAR, Reason.NEW)
        kept = np.where(known, np.take(score, np.maximum(item, 0), mode="clip"), 0)
        return Lists(item, kept.astype(np.float32), reason, np.full_like(item, -1))

    def unseen_popular(self, users: IntArray, size: int) -> IntArray:
        """Give each user's most popular unseen items (b, l): what lists are compared with."""

        def _popular_for(part: slice) -> IntArray:
            score: FloatArray = np.tile(self._popular, (part.stop - part.start, 1))
            self._set(score, self._seen, users[part], -np.inf)
            return ranking.best(score, size)

        step = max(1, _CELLS // max(1, self._catalogue.items))
        return np.concatenate(in_threads(_popular_for, slices(len(users), step)))

    def _some(self, users: IntArray, size: int) -> Lists:
        options, vectors = self._options, self._catalogue.vectors
        mine = self._signals[users]
        together = self._model.scores(mine)
        together /= np.maximum(together.max(axis=1, initial=0, keepdims=True), _TINY)
        alike = np.maximum(similarity.unit(np.asarray(mine @ vectors)) @ vectors.T, 0)
        score = together + np.float32(_ALIKE_WEIGHT) * alike
        score += np.float32(_POPULAR_WEIGHT) * self._popular
        score += np.float32(_NEW_WEIGHT) * self._fresh
        rows, items = _cells(self._seen, users)
        score[rows, items] *= np.where(score[rows, items] > 0, options.seen_factor, 1)
        self._forbid(score, users)

        new = np.zeros((len(users), 0), np.int64)
        if options.new_every and vectors.any():
            chance = alike * self._fresh
            chance[alike < options.new_alike] = -np.inf
            chance[:, self._followers >= options.new_below] = -np.inf
            self._set(chance, self._seen, users, -np.inf)
            chance[np.isneginf(score)] = -np.inf
            new = ranking.best(chance, size // options.new_every)
            at, place = np.nonzero(new >= 0)
            score[at, new[at, place]] = -np.inf
        main = ranking.best(score, 3 * size)
        item = self._spread(_interleaved(main, new, options.new_every), size)
        return self._explained(users, mine, item, together, alike, score)

    def _forbid(self, score: FloatArray, users: IntArray) -> None:
        self._set(score, self._unwanted, users, -np.inf)
        owner = self._catalogue.owner
        place = np.full(self._signals.shape[0] + 1, -1, np.int64)
        place[users] = np.arange(len(users))
        row = place[owner]  # of -1: the last, which no user is
        owned = np.flatnonzero(row >= 0)
        score[row[owned], owned] = -np.inf

    @staticmethod
    def _set(score: FloatArray, cells: Matrix, users: IntArray, value: float) -> None:
        score[_cells(cells, users)] = value

    def _spread(self, item: IntArray, size: int) -> IntArray:
        creator = np.append(self._catalogue.creator, -1)[item]
        order = ranking.spread(creator, self._options.per_creator)
        made = np.take_along_axis(item, order, axis=1)
        # Empty places last again, whatever was moved behind them.
        filled = np.argsort(made < 0, axis=1, kind="stable")
        return np.take_along_axis(made, filled, axis=1)[:, :size]

    def _explained(
        self,
        users: IntArray,
        mine: Matrix,
        item: IntArray,
        together: FloatArray,
        alike: FloatArray,
        score: FloatArray,
    ) -> Lists:
        vectors = self._catalogue.vectors
        reason = np.zeros_like(item)
        because = np.full_like(item, -1)
        worth = np.zeros(item.shape, np.float32)
        for row, user in enumerate(users):
            place = np.flatnonzero(item[row] >= 0)
            chosen = item[row, place]
            history, signal = _row(mine, row)
            value, near = score[row, chosen], alike[row, chosen]
            worth[row, place] = np.where(np.isfinite(value), value, near)
            source = self._model.strongest(history, signal, chosen)
            by_prompt = ~np.isfinite(value) | (_ALIKE_WEIGHT * near > together[row, chosen])
            by_prompt = (by_prompt | (source < 0)) & (near > 0)
            if by_prompt.any():
                closest = (vectors[chosen[by_prompt]] @ vectors[history].T).argmax(axis=1)
                source[by_prompt] = history[closest]
            liked = np.isin(source, _row(self._liked, int(user))[0])
            popular = np.where(self._popular[chosen] > 0, Reason.POPULAR, Reason.NEW)
            said = np.where(liked, Reason.LIKED, Reason.SEEN)
            said = np.where(by_prompt, Reason.PROMPT, said)
            reason[row, place] = np.where(source < 0, popular, said)
            because[row, place] = source
        return Lists(item, worth, reason, because)


def evaluate(
    feedback: Feedback, catalogue: Catalogue, options: Options, *, sample: int = 2000
) -> Evaluation:
    """Hold back what users took up last, learn from the rest, and look whether it is foretold.

    Of at most ``sample`` users with two items or more, drawn by the seed of ``options``.
    """
    user, item = _newest(feedback)
    if len(user) > sample:
        drawn = np.random.default_rng(options.seed).permutation(len(user))[:sample]
        user, item = user[np.sort(drawn)], item[np.sort(drawn)]
    if not len(user):
        return Evaluation(0, 0, 0, 0, 0, 0, 0, 0)
    wanted = np.full(feedback.users, -1, np.int64)
    wanted[user] = item
    learned = Recommender(
        feedback.where(feedback.item != wanted[feedback.user]), catalogue, options
    )
    ours = learned.lists(user, size=AT).item
    theirs = learned.unseen_popular(user, AT)
    recall, gain = ranking.hits(ours, item)
    popular_recall, popular_gain = ranking.hits(theirs, item)
    return Evaluation(
        users=len(user),
        recall=float(recall.mean()),
        ndcg=float(gain.mean()),
        coverage=ranking.coverage(ours, catalogue.items),
        popular_recall=float(popular_recall.mean()),
        popular_ndcg=float(popular_gain.mean()),
        popular_coverage=ranking.coverage(theirs, catalogue.items),
        error=float(gain.std() / len(user) ** 0.5),
    )


def _newest(feedback: Feedback) -> tuple[IntArray, IntArray]:
    """Give the users with two items or more, ascending, and the item each took up last."""
    kept = np.flatnonzero(feedback.strength > 0)
    user, item = feedback.user[kept].astype(np.int64), feedback.item[kept].astype(np.int64)
    width = int(item.max(initial=0)) + 1
    pairs = np.unique(user * width + item)
    has_more = np.bincount(pairs // width, minlength=feedback.users) > 1
    order = np.lexsort((item, feedback.age_s[kept], user))
    user, item = user[order], item[order]
    first = np.ones(len(user), bool)
    first[1:] = user[1:] != user[:-1]
    first &= has_more[user]
    return user[first], item[first]


def _halved(age_s: FloatArray, half_life_s: float) -> FloatArray:
    made: FloatArray = np.exp2(-age_s / np.float32(half_life_s)).astype(np.float32)
    return made


def _strongest(signals: Matrix, most: int) -> Matrix:
    """Keep each user's strongest ``most`` signals: one with very many must not cost all others."""
    for row in np.flatnonzero(np.diff(signals.indptr) > most):
        part = slice(signals.indptr[row], signals.indptr[row + 1])
        order = np.argsort(-signals.data[part], kind="stable")
        signals.data[part][order[most:]] = 0
    signals.eliminate_zeros()
    return signals


def _row(matrix: Matrix, row: int) -> tuple[IntArray, FloatArray]:
    part = slice(matrix.indptr[row], matrix.indptr[row + 1])
    return matrix.indices[part].astype(np.int64), matrix.data[part]


def _cells(matrix: Matrix, rows: IntArray) -> tuple[IntArray, IntArray]:
    """Give the cells that some rows of a sparse matrix have, counted from the first of them."""
    part = matrix[rows]
    return np.repeat(np.arange(len(rows)), np.diff(part.indptr)), part.indices


def _interleaved(main: IntArray, new: IntArray, every: int) -> IntArray:
    """Put one of ``new`` (b, e) at every ``every``-th place of ``main`` (b, l)."""
    if not new.shape[1]:
        return main
    places = np.arange(1, new.shape[1] + 1) * (every - 1) - 0.5
    key = np.concatenate([np.arange(main.shape[1], dtype=np.float64), places])
    both = np.concatenate([main, new], axis=1)
    order = np.argsort(np.where(both < 0, np.inf, key), axis=1, kind="stable")
    return np.take_along_axis(both, order, axis=1)
