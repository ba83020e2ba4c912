"""Lists hold what they should, for any numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from genonaut.core.planted import SPAN_S, plant
from genonaut.core.similarity import unit
from genonaut.domain.recommendations import (
    Catalogue,
    Evaluation,
    Feedback,
    Options,
    Reason,
    Recommender,
    evaluate,
)

PLAIN = Options(list_size=10, per_creator=100, new_every=0)


def planted(users=60, items=120, interactions=1500, seed=1):
    data = plant(users, items, interactions, seed=seed)
    random = np.random.default_rng(seed)
    count = len(data.user)
    tastes = random.standard_normal((int(data.taste.max()) + 1, 8))
    feedback = Feedback(
        users,
        data.user.astype(np.int32),
        data.item.astype(np.int32),
        np.ones(count, np.float32),
        (SPAN_S - data.at).astype(np.float32),
        data.rating >= 4,
    )
    catalogue = Catalogue(
        creator=random.integers(0, 8, items),
        owner=np.full(items, -1, np.int64),
        age_s=(SPAN_S - data.born).astype(np.float32),
        vectors=unit(tastes[data.taste].astype(np.float32)),
    )
    return feedback, catalogue


def test_lists_foretell_more_than_what_is_popular():
    found = evaluate(*planted(200, 300, 8000), PLAIN)
    assert found.users > 150
    assert found.recall > 1.5 * found.popular_recall
    assert found.ndcg > 1.5 * found.popular_ndcg
    assert found.coverage > found.popular_coverage


def test_the_same_data_and_seed_give_the_same_lists_and_score():
    data = planted()
    one, two = (Recommender(*data, Options()).lists(np.arange(60)) for _ in range(2))
    assert np.array_equal(one.item, two.item)
    assert evaluate(*data, Options()) == evaluate(*data, Options())


def test_lists_do_not_depend_on_whose_others_are_made_with_them():
    learned = Recommender(*planted(), Options())
    whole, some = learned.lists(np.arange(60)), learned.lists(np.array([7, 31]))
    assert np.array_equal(whole.item[[7, 31]], some.item)


def test_what_is_ones_own_or_dismissed_is_never_in_a_list():
    feedback, catalogue = planted()
    owner = catalogue.owner.copy()
    owner[:30] = 5
    strength = feedback.strength.copy()
    strength[(feedback.user == 6)] = -1
    dismissed = {*feedback.item[feedback.user == 6].tolist()}
    learned = Recommender(
        replace(feedback, strength=strength), replace(catalogue, owner=owner), Options()
    )
    made = learned.lists(np.array([5, 6]), size=120).item
    assert not {*range(30)} & {*made[0].tolist()}
    assert not dismissed & {*made[1].tolist()}


def test_what_was_seen_comes_after_what_was_not():
    feedback, catalogue = planted()
    seen = {*feedback.item[feedback.user == 3].tolist()}
    first = Recommender(feedback, catalogue, PLAIN).lists(np.array([3])).item[0]
    assert len(seen & {*first.tolist()}) <= 1
    again = Recommender(feedback, catalogue, replace(PLAIN, seen_factor=1))
    assert len(seen & {*again.lists(np.array([3])).item[0].tolist()}) > 1


def test_of_one_creator_so_many_come_before_the_others_turn():
    made = Recommender(*planted(), replace(PLAIN, per_creator=2)).lists(np.arange(60))
    creators = planted()[1].creator[made.item]
    for row in creators:
        assert max(np.bincount(row)) == 2


def test_every_fifth_place_goes_to_a_new_item_with_a_prompt_of_ones_taste():
    feedback, catalogue = planted()
    taste = catalogue.vectors[feedback.item[feedback.user == 0]].mean(axis=0, keepdims=True)
    new = Catalogue(
        creator=np.append(catalogue.creator, 99),
        owner=np.append(catalogue.owner, -1),
        age_s=np.append(catalogue.age_s, 60).astype(np.float32),
        vectors=np.vstack([catalogue.vectors, unit(taste)]),
    )
    made = Recommender(feedback, new, replace(PLAIN, new_every=5)).lists(np.array([0]))
    assert made.item[0, 4] == 120
    assert made.reason[0, 4] == Reason.PROMPT
    assert made.because[0, 4] in feedback.item[feedback.user == 0]


def test_reasons_name_items_of_ones_history_and_likes_are_called_so():
    feedback, catalogue = planted()
    made = Recommender(feedback, catalogue, Options()).lists(np.arange(60))
    kinds = set()
    for user in range(60):
        history = {*feedback.item[feedback.user == user].tolist()}
        liked = {*feedback.item[(feedback.user == user) & feedback.liked].tolist()}
        for reason, because in zip(made.reason[user], made.because[user], strict=True):
            kinds.add(Reason(reason))
            assert (because < 0) == (reason in {Reason.POPULAR, Reason.NEW})
            assert because < 0 or because in history
            assert reason != Reason.LIKED or because in liked
            assert reason != Reason.SEEN or because not in liked
    assert {Reason.LIKED, Reason.SEEN} <= kinds


def test_popular_things_come_first_for_who_is_unknown_then_new_ones():
    feedback, catalogue = planted(20, 200, 300)
    made = Recommender(feedback, catalogue, PLAIN).popular(size=200)
    reasons = made.reason[0].tolist()
    assert reasons == sorted(reasons)
    assert {*reasons} == {Reason.POPULAR, Reason.NEW}
    assert len({*made.item[0].tolist()}) == 200


def test_one_user_with_very_many_interactions_gets_a_list():
    items = 2000
    many = np.arange(items, dtype=np.int32)
    feedback = Feedback(
        2,
        np.append(np.zeros(items), [1, 1]).astype(np.int32),
        np.append(many, [3, 4]).astype(np.int32),
        np.ones(items + 2, np.float32),
        np.zeros(items + 2, np.float32),
        np.zeros(items + 2, bool),
    )
    catalogue = Catalogue(
        np.zeros(items, np.int64),
        np.full(items, -1, np.int64),
        np.zeros(items, np.float32),
        np.zeros((items, 1), np.float32),
    )
    made = Recommender(feedback, catalogue, replace(PLAIN, history_max=100)).lists(np.arange(2))
    assert (made.item >= 0).all()


@given(
    users=st.integers(0, 5),
    items=st.integers(0, 8),
    count=st.integers(0, 30),
    odd=st.sampled_from([1.0, 0.0, -1.0, np.nan, np.inf, 1e30]),
    age=st.sampled_from([0.0, -5.0, np.nan, 1e12]),
    seed=st.integers(0, 2**31),
)
@hypothesis_settings(max_examples=60)
def test_any_numbers_give_sensible_lists(users, items, count, odd, age, seed):
    random = np.random.default_rng(seed)
    count = count if users and items else 0
    strength = random.choice([1.0, 4.0, odd], count).astype(np.float32)
    feedback = Feedback(
        users,
        random.integers(0, max(users, 1), count).astype(np.int32),
        random.integers(0, max(items, 1), count).astype(np.int32),
        strength,
        random.choice([10.0, age], count).astype(np.float32),
        strength > 1,
    )
    catalogue = Catalogue(
        random.integers(0, 3, items),
        random.integers(-1, max(users, 1), items),
        random.choice([0.0, 1e9], items).astype(np.float32),
        unit(random.standard_normal((items, 4)).astype(np.float32)),
    )
    learned = Recommender(feedback, catalogue, Options(list_size=6))
    made = learned.lists(np.arange(users))
    everyone = learned.popular()
    for lists in (made, everyone):
        assert np.isfinite(lists.score).all()
        for row in lists.item:
            kept = row[row >= 0]
            assert len({*kept.tolist()}) == len(kept)
            assert (row[len(kept) :] < 0).all()
    found = evaluate(feedback, catalogue, Options(list_size=6))
    assert 0 <= found.recall <= 1
    assert np.isfinite(found.ndcg)


@pytest.mark.parametrize(
    ("ndcg", "error", "margin", "is_worse"),
    [
        (0.19, 0.001, 0.1, False),
        (0.15, 0.001, 0.1, True),
        (0.15, 0.05, 0.1, False),
        (0.15, 0.001, 0.3, False),
        (0.30, 0.001, 0.0, False),
    ],
)
def test_a_fall_counts_beyond_the_margin_and_beyond_chance(ndcg, error, margin, is_worse):
    before = Evaluation(1000, 0.3, 0.2, 0.5, 0.1, 0.1, 0.1, 0.001)
    now = replace(before, ndcg=ndcg, error=error)
    assert now.is_worse_than(before, margin) is is_worse
    assert not replace(now, users=0).is_worse_than(before, margin)
