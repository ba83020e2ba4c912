"""Whatever comes from outside can be kept."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genonaut.core.text import duration, pace, storable, storable_json


@given(st.text(st.characters(codec=None)))
def test_any_text_becomes_one_that_postgres_takes(words):
    kept = storable(words)
    assert "\0" not in kept
    kept.encode()


def test_good_text_stays_as_it_is():
    assert storable("née 🙂") == "née 🙂"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ({"n": 1, "ok": True, "none": None}, {"n": 1, "ok": True, "none": None}),
        ({1: (1, 2)}, {"1": [1, 2]}),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Path("a") / "b", "a/b"),
        ("x" * 600, "x" * 499 + "…"),
        ([{"a\0": "\0"}], [{"a\ufffd": "\ufffd"}]),
    ],
)
def test_any_value_becomes_json(value, kept):
    assert storable_json(value) == kept
    json.dumps(kept, allow_nan=False)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (3600, "1 h"), (12000, "3 h 20 min")],
)
def test_durations_are_said_as_people_do(seconds, words):
    assert duration(seconds) == words


def test_how_fast_work_goes_and_what_is_left():
    assert pace(12.34, 617) == "12.3 a second, 50 s left"
    assert pace(1, -5).endswith(" 0 s left")
