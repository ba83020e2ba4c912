"""A place tells of what a program does that nobody made it do."""

from pathlib import Path

import pytest

from tests.reliability.program import Program, base_environment, until
from tests.reliability.soak import site
from tests.reliability.soak.site import Place

PARENT = """
import os, signal, time
{first}
if os.fork() == 0:
    {child}
    os._exit(0)
print("there", flush=True)
{parent}
"""
IDLE = "time.sleep(60)"
ENDS_WITH_ITS_PARENT = "parent = os.getppid()\n    while os.getppid() == parent: time.sleep(0.02)"


@pytest.fixture
def make_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(site, "_LOOK_S", 0.0)
    started: list[Program] = []

    def make(*, first: str = "", child: str = "pass", parent: str = IDLE) -> Place:
        script = PARENT.format(first=first, child=child, parent=parent)

        def start() -> Program:
            name = f"p{len(started)}"
            program = Program(name, ["-c", script], environment=base_environment(), folder=tmp_path)
            started.append(program)
            return program

        place = Place("toy", start)
        place.keep()
        assert place.program is not None
        if parent == IDLE:
            place.program.wait_for_log("there")
        return place

    yield make
    for program in started:
        program.close()


def test_what_is_taken_down_is_replaced_when_it_may_be(make_place):
    place = make_place()
    first = place.program
    release = place.take_down(Program.kill9)
    place.keep()
    assert place.program is None
    release()
    place.keep()
    assert place.program not in {None, first}
    place.close()
    assert place.surprises == []


def test_a_program_that_ends_by_itself_is_told_of_and_replaced(make_place):
    place = make_place(parent="raise SystemExit(3)")
    until(lambda: place.keep() or place.surprises, "its end is noticed")
    assert place.surprises[0] == "toy ended by itself with 3"
    assert place.program is not None


def test_an_end_that_was_our_doing_is_no_surprise_once(make_place):
    place = make_place()
    place.excuse()
    for _ in range(2):
        place.program.kill_main()
        until(lambda: place.keep() or place.program.is_alive(), "it is replaced")
    assert place.surprises == ["toy ended by itself with -9"]


def test_a_child_that_outlives_its_parent_is_told_of_and_ended(make_place, monkeypatch):
    monkeypatch.setattr(site, "LINGER_S", 0.3)
    place = make_place(child=IDLE)
    parent = place.program
    place.take_down(Program.kill_main)
    until(lambda: place.keep() or place.surprises, "the child is noticed")
    assert place.surprises == [f"toy: 1 processes outlive their parent {parent.pid}"]
    assert parent.group() == []


def test_a_child_that_ends_soon_after_its_parent_is_fine(make_place):
    place = make_place(child=ENDS_WITH_ITS_PARENT)
    place.take_down(Program.kill_main)
    place.close()
    assert place.surprises == []


def test_a_program_that_does_not_end_when_asked_is_told_of_and_killed(make_place, monkeypatch):
    monkeypatch.setattr(site, "STOP_S", 0.2)
    place = make_place(first="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    place.ask_to_end()
    until(lambda: place.keep() or place.surprises, "it is noticed")
    assert "did not end within" in place.surprises[0]
    assert place.program is None
