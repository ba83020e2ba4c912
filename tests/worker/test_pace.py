"""Rates, turns and words about them."""

import time

import pytest

from genonaut.worker.pace import Pace


def test_items_keep_to_a_rate_and_the_wait_can_be_ended():
    pace = Pace(rate=50)
    began = time.monotonic()
    for _ in range(6):
        pace.next(lambda: None)
    assert time.monotonic() - began >= 5 / 50

    def stop():
        raise KeyboardInterrupt

    slow = Pace(rate=0.01)
    slow.next(stop)
    with pytest.raises(KeyboardInterrupt):
        slow.next(stop)


def test_a_turn_ends():
    assert not Pace().turn_is_over
    assert Pace(turn_s=0).turn_is_over


def test_laps_add_up():
    pace = Pace()
    time.sleep(0.01)
    assert pace.lap_s() >= 0.01
    assert pace.lap_s() < 0.01


def test_it_says_how_fast_and_how_long():
    pace = Pace()
    assert pace.words(10) == ""
    pace.next(lambda: None)
    assert " a second, " in pace.words(10)
    assert pace.words(10).endswith(" left")
