"""Spans and moments as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
import typer

from genonaut.cli import times

NOW = datetime(2026, 1, 5, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("word", "number"), [("90", 90), ("90s", 90), (" 15m ", 900), ("2h", 7200), ("1d", 86400)]
)
def test_a_span_is_read(word, number):
    assert times.seconds(word) == number
    assert times.moment(word, NOW) == NOW + timedelta(seconds=number)


@pytest.mark.parametrize("word", ["", "s", "-5s", "1.5h", "2 h", "1w", "٣s", "1" * 10])
def test_what_is_no_span_is_refused(word):
    with pytest.raises(typer.BadParameter):
        times.seconds(word)


def test_a_moment_is_read_in_its_zone_or_the_machines():
    assert times.moment("2026-02-01T10:00+02:00", NOW) == datetime(2026, 2, 1, 8, tzinfo=UTC)
    assert times.moment("2026-02-01 10:00", NOW) == datetime(2026, 2, 1, 10).astimezone()


@pytest.mark.parametrize("word", ["", "soon", "2026-13-01", "999999999d"])
def test_what_is_no_moment_is_refused(word):
    with pytest.raises(typer.BadParameter):
        times.moment(word, NOW)


@pytest.mark.parametrize(
    ("number", "word"),
    [(0, "0s"), (1, "1s"), (90, "90s"), (900, "15m"), (7200, "2h"), (86400, "1d")],
)
def test_a_span_is_written_short(number, word):
    assert times.span(number) == word
