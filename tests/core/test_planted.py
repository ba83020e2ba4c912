"""Planted data look like a collection's."""

import numpy as np
import pytest

from genonaut.core.planted import SPAN_S, plant


def test_pairs_are_distinct_and_about_as_many_as_wanted():
    data = plant(200, 400, 8000, seed=1)
    pairs = {*zip(data.user.tolist(), data.item.tolist(), strict=True)}
    assert 7200 <= len(pairs) == len(data.user) <= 8000
    assert set(data.rating.tolist()) <= {1, 2, 3, 4, 5}
    assert (np.diff(data.at) >= 0).all()
    assert (data.at >= data.born[data.item]).all()
    assert data.at.max() <= SPAN_S


def test_a_few_items_have_much_of_the_attention_and_users_keep_to_their_tastes():
    data = plant(300, 1000, 20_000, seed=2)
    counts = np.sort(np.bincount(data.item, minlength=1000))[::-1]
    assert counts[:100].sum() > 0.25 * counts.sum()
    own = [len({*data.taste[data.item[data.user == user]].tolist()}) for user in range(50)]
    assert np.mean(own) < 0.7 * np.mean(np.bincount(data.user, minlength=300)[:50])


def test_the_same_numbers_give_the_same_data():
    one, two = plant(50, 80, 900, seed=5), plant(50, 80, 900, seed=5)
    assert np.array_equal(one.item, two.item)
    assert np.array_equal(one.at, two.at)


@pytest.mark.parametrize("size", [(0, 0, 0), (1, 1, 5), (0, 5, 3), (5, 0, 3), (2, 3, 100)])
def test_few_users_and_items_give_few_pairs(size):
    data = plant(*size)
    assert len(data.user) <= size[0] * size[1]
