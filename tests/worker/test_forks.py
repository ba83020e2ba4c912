"""A fork waits for busy threads, though not for ever; the child begins anew."""

import os
import threading
from collections.abc import Callable

import pytest

from genonaut.worker import forks
from genonaut.worker.forks import ForkGate


@pytest.fixture
def gate() -> ForkGate:
    """A gate that guards no real fork of the test run."""
    return ForkGate()


def _forks(gate: ForkGate) -> threading.Thread:
    def fork() -> None:
        gate._enter()
        gate._leave()

    thread = threading.Thread(target=fork, daemon=True)
    thread.start()
    return thread


def test_a_fork_waits_until_nobody_is_busy(gate: ForkGate) -> None:
    with gate.closed():
        with gate.closed():
            fork = _forks(gate)
        fork.join(0.2)
        assert fork.is_alive()
    fork.join(5)
    assert not fork.is_alive()


def test_nobody_begins_during_a_fork(gate: ForkGate) -> None:
    begun = threading.Event()

    def begin() -> None:
        with gate.closed():
            begun.set()

    gate._enter()
    threading.Thread(target=begin, daemon=True).start()
    assert not begun.wait(0.2)
    gate._leave()
    assert begun.wait(5)


def test_a_fork_does_not_wait_for_ever(gate: ForkGate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "FORK_PATIENCE_S", 0.1)
    with gate.closed():
        fork = _forks(gate)
        fork.join(5)
        assert not fork.is_alive()


def test_a_real_fork_leaves_an_open_gate_in_the_child() -> None:
    def in_child(check: Callable[[], bool]) -> int:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if check() else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    gate = ForkGate()
    gate.install()

    def is_open() -> bool:
        with gate.closed():
            return gate._busy == 1

    assert in_child(is_open) == 0
    assert is_open()
