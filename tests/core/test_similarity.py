"""Prompts with words of the same kind lie close."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from genonaut.core.similarity import VOCABULARY, hashed, table, unit, vectors, words

TEXTS = [
    "a lighthouse in a storm, oil painting",
    "a lighthouse at night, oil painting",
    "a storm over the sea with a lighthouse",
    "a cat on a sofa, photo",
    "a sleeping cat, photo",
    "a black cat on a chair, photo",
]


def of(texts, **options):
    return vectors(table([hashed(words(text)) for text in texts]), **options)


def test_texts_of_one_kind_are_closer_than_others():
    alike = (made := of(TEXTS, dimensions=3)) @ made.T
    assert alike[0, 1] > alike[0, 3]
    assert alike[3, 4] > alike[3, 0]


def test_the_same_texts_and_seed_give_the_same_vectors():
    assert np.array_equal(of(TEXTS, seed=1), of(TEXTS, seed=1))


def test_a_text_without_a_telling_word_is_zero():
    made = of(["one alone", "two other", "", "!?"])
    assert made.shape[0] == 4
    assert not made.any()


@given(st.lists(st.text(max_size=40), max_size=8))
def test_rows_are_unit_or_zero_for_any_texts(texts):
    made = of(texts)
    length = np.linalg.norm(made, axis=1)
    assert made.shape[0] == len(texts)
    assert np.all(np.isclose(length, 1, atol=1e-3) | (length == 0))


def test_hashes_are_distinct_ascending_and_in_range():
    found = hashed(["b", "a", "b", "\ud800"])
    assert len(found) == 3
    assert (np.diff(found) > 0).all()
    assert found.max() < VOCABULARY


def test_what_is_not_finite_becomes_zero():
    rows = np.array([[np.nan, np.nan], [np.inf, 0], [3, 4]], np.float32)
    assert unit(rows).tolist() == [[0, 0], [0, 0], np.float32([0.6, 0.8]).tolist()]
