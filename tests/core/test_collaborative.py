"""What belongs together is found, in the head and in the tail, whatever the numbers are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from genonaut.core.collaborative import Options, finite, fit, in_threads, slices


def two_tastes(users=80, items=40, seed=0):
    """Users of two kinds, each of whom took up a third of their own half of the items."""
    random = np.random.default_rng(seed)
    signals = np.zeros((users, items), np.float32)
    for user in range(users):
        half = user % 2 * (items // 2)
        signals[user, half + random.choice(items // 2, items // 6, replace=False)] = 1
    return signals


@pytest.mark.parametrize("head", [40, 20, 12])
def test_items_of_the_same_taste_score_above_the_others(head):
    signals = two_tastes()
    model = fit(signals, Options(head_items=head, neighbours=5, regularization=5))
    scores = model.scores(sparse.csr_matrix(signals[:2]))
    for user, (own, other) in enumerate(((slice(20), slice(20, 40)), (slice(20, 40), slice(20)))):
        assert scores[user, own].mean() > scores[user, other].mean() + 0.01


def test_ease_is_the_closed_form_of_its_paper():
    signals, ridge = two_tastes(30, 12), 3.0
    model = fit(signals, Options(head_items=12, regularization=ridge))
    inverse = np.linalg.inv(signals.T @ signals + ridge * np.eye(12))
    wanted = np.eye(12) - inverse / np.diag(inverse)
    np.fill_diagonal(wanted, 0)
    known = np.flatnonzero(signals.sum(axis=0))
    assert np.allclose(model.between, wanted[np.ix_(known, known)], atol=1e-4)


def test_a_tail_item_is_a_ridge_regression_on_its_neighbours():
    signals = two_tastes(60, 20)
    model = fit(signals, Options(head_items=12, neighbours=12, regularization=2, tail_weight=1))
    head, item = signals[:, model.head], model.tail[0]
    system = head.T @ head + 2 * np.eye(12)
    wanted = np.linalg.solve(system, head.T @ signals[:, item])
    found = np.zeros(12)
    found[model.nearest[0]] = model.pull[0]
    assert np.allclose(found, wanted, atol=1e-4)


def test_who_took_up_tail_items_alone_is_known_by_what_is_nearest_to_them():
    signals = two_tastes(120, 40)
    common = np.r_[0:6, 20:26]  # the head: what many took up
    signals[:, common] = 0
    for user in range(120):
        signals[user, user % 2 * 20 : user % 2 * 20 + 6] = 1
        signals[user, user % 2 * 20 + user % 6] = 0
    options = {"head_items": 12, "neighbours": 6, "regularization": 5}
    model = fit(signals, Options(**options, spread=0.5))
    assert model.head.tolist() == common.tolist()
    mine = np.zeros((1, 40), np.float32)
    mine[0, [8, 9]] = 1
    scores = model.scores(sparse.csr_matrix(mine))[0]
    assert scores[:20].mean() > scores[20:].mean() + 0.01
    shares = np.asarray(model.stands_for.sum(axis=1)).ravel()
    assert np.allclose(shares, 0.5, atol=1e-3)
    without = fit(signals, Options(**options, spread=0))
    assert not without.scores(sparse.csr_matrix(mine)).any()


@pytest.mark.parametrize("head", [40, 8])
def test_what_speaks_most_for_an_item_is_of_its_taste(head):
    signals = two_tastes()
    model = fit(signals, Options(head_items=head, neighbours=6, regularization=5))
    history = np.flatnonzero(signals[0])
    unseen = np.setdiff1d(np.arange(20), history)
    sources = model.strongest(history, np.ones(len(history), np.float32), unseen)
    assert set(sources.tolist()) <= {*history.tolist(), -1}
    assert (sources >= 0).any()
    nobody = model.strongest(np.empty(0, np.int64), np.empty(0, np.float32), unseen)
    assert (nobody == -1).all()


@given(
    st.integers(0, 12),
    st.integers(0, 12),
    st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, -3.0, 1e-30, 1e30]),
    st.integers(1, 6),
    st.integers(0, 2**31),
)
def test_scores_are_finite_for_any_numbers(users, items, odd, head, seed):
    random = np.random.default_rng(seed)
    signals = (random.random((users, items)) < 0.4).astype(np.float32)
    signals[random.random((users, items)) < 0.2] = odd
    signals = np.minimum(signals, 1e15)
    model = fit(sparse.csr_matrix(signals), Options(head_items=head, neighbours=3))
    scores = model.scores(finite(sparse.csr_matrix(signals)))
    assert scores.shape == (users, items)
    assert np.isfinite(scores).all()


def test_the_same_numbers_give_the_same_model():
    one, two = (fit(two_tastes(), Options(head_items=10)) for _ in range(2))
    assert np.array_equal(one.between, two.between)
    assert np.array_equal(one.pull, two.pull)


def test_parts_come_back_in_order():
    parts = slices(10, 3)
    assert [(p.start, p.stop) for p in parts] == [(0, 3), (3, 6), (6, 9), (9, 10)]
    assert in_threads(lambda part: part.start, parts) == [0, 3, 6, 9]
