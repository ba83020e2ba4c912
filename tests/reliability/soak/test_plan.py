"""A plan is its seed's: whole, replayable, and nothing in it gets in another's way."""

import json
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from tests.reliability.soak import plan
from tests.reliability.soak.faults import KINDS

SEEDS = range(20)
FIVE_MINUTES = 300.0


def test_the_same_seed_gives_the_same_plan():
    first, again, other = (plan.make(seed, FIVE_MINUTES) for seed in (7, 7, 8))
    assert json.dumps(first.as_json()) == json.dumps(again.as_json())
    assert first.faults != other.faults
    assert first.acts != other.acts


@pytest.mark.parametrize("seed", SEEDS)
def test_five_minutes_have_every_kind_of_fault_and_work_enough(seed):
    made = plan.make(seed, FIVE_MINUTES)
    assert len(made.faults) >= 60
    assert {fault.kind for fault in made.faults} == KINDS.keys()
    assert sum(act.verb == "submit_job" for act in made.acts) >= 500
    assert {act.verb for act in made.acts} == set(plan.Verb.__args__)
    assert any(act.times > 1 for act in made.acts)
    assert any(act.is_doomed for act in made.acts)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_struck_while_it_is_struck_and_all_is_over_at_the_end(seed):
    made = plan.make(seed, FIVE_MINUTES, pace_s=1.0)
    by_target = defaultdict(list)
    for fault in made.faults:
        kind = KINDS[fault.kind]
        assert fault.target in kind.targets
        assert 0 <= fault.lasts_s <= kind.lasts_s[1]
        assert fault.at_s + fault.lasts_s <= FIVE_MINUTES + 0.01
        by_target[fault.target].append(fault)
    for faults in by_target.values():
        for one, two in pairwise(faults):
            assert one.at_s + one.lasts_s + KINDS[one.kind].rest_s <= two.at_s


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_cancelled_or_repeated_was_asked_for_before_by_the_same_user(seed):
    made = plan.make(seed, 60)
    numbers = Counter(act.number for act in made.acts if act.number)
    assert max(numbers.values()) == 1
    asked = {act.number: act for act in made.acts if act.number}
    assert [act.at_s for act in made.acts] == sorted(act.at_s for act in made.acts)
    for act in made.acts:
        if act.of:
            assert asked[act.of].at_s <= act.at_s
            assert asked[act.of].user == act.user
            assert asked[act.of].verb.rpartition("_")[2] == act.verb.rpartition("_")[2]


def test_a_shorter_pace_changes_what_is_broken_and_not_what_is_asked_for():
    slow, fast = plan.make(1, 60), plan.make(1, 60, pace_s=1.0)
    assert slow.acts == fast.acts
    assert len(fast.faults) > 2 * len(slow.faults)
