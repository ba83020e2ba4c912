"""Orders are right and measured rightly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genonaut.core.ranking import best, coverage, hits, spread

SCORES = arrays(
    np.float32,
    st.tuples(st.integers(0, 4), st.integers(0, 9)),
    elements=st.sampled_from([-np.inf, np.nan, -1.0, 0.0, 1.0, 2.5]),
)


@given(SCORES, st.integers(0, 12))
def test_best_are_the_highest_and_never_what_is_forbidden(scores, count):
    found = best(scores, count)
    assert found.shape == (scores.shape[0], min(count, scores.shape[1]))
    for row, chosen in zip(scores, found, strict=True):
        allowed = sorted((v for v in row if not np.isnan(v) and v > -np.inf), reverse=True)
        kept = [item for item in chosen if item >= 0]
        assert [row[item] for item in kept] == allowed[: len(chosen)]
        assert len(set(kept)) == len(kept)
        assert all(item < 0 for item in chosen[len(kept) :])


@given(
    arrays(np.int64, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=st.integers(-1, 3))
)
def test_spread_holds_groups_back_and_loses_nothing(groups):
    order = spread(groups, 2)
    for row, places in zip(groups, order, strict=True):
        assert sorted(places) == list(range(len(row)))
        seen: dict[int, int] = {}
        late = []
        for place in range(len(row)):
            seen[row[place]] = seen.get(row[place], 0) + 1
            if row[place] >= 0 and seen[row[place]] > 2:
                late.append(place)
        wanted = [place for place in range(len(row)) if place not in late] + late
        assert list(places) == wanted


def test_hits_count_less_the_further_down_they_are():
    recall, gain = hits(np.array([[4, 5, 6], [6, 5, 4], [1, 2, -1]]), np.array([4, 4, -1]))
    assert recall.tolist() == [1, 1, 0]
    assert gain.tolist() == pytest.approx([1, 0.5, 0])
    assert hits(np.zeros((2, 0), np.int64), np.array([0, 1]))[1].tolist() == [0, 0]


def test_coverage_is_the_share_of_items_in_any_list():
    assert coverage(np.array([[0, 1], [1, -1]]), 4) == 0.5
    assert coverage(np.zeros((0, 3), np.int64), 0) == 0
