"""The supervisor: order, readiness, restarts, draining, and no orphan ever."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from genonaut.local import processes
from genonaut.local.errors import LocalError
from genonaut.local.supervisor import Process, Supervisor, SupervisorError, Timing

QUICK = Timing(check_s=0.05, failed_checks=2, backoff_s=0.05, backoff_max_s=0.4, settled_s=30)
SLEEP = "import time; time.sleep(600)"
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up")
time.sleep(600)
"""
SAYS_WHEN_IT_ENDS = """
import signal, sys, time
def end(*_):
    time.sleep({slow})
    print("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up")
time.sleep(600)
"""
HAS_A_GRANDCHILD = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "600"], start_new_session={escapes})
print("grandchild", child.pid)
time.sleep(600)
"""


def toy(name: str, code: str, **options: object) -> Process:
    return Process(name, [sys.executable, "-u", "-S", "-c", textwrap.dedent(code)], **options)


class Stage:
    """A supervisor under test, with the lines it printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.made: list[Supervisor] = []

    def __call__(self, *what: Process | list[Process], **options: object) -> Supervisor:
        options.setdefault("timing", QUICK)
        made = Supervisor(what, self.folder, "dev", echo=self.lines.append, **options)
        self.made.append(made)
        return made

    def said(self, text: str) -> bool:
        return any(text in line for line in list(self.lines))

    def until(self, text: str) -> str:
        assert processes.wait_until(lambda: self.said(text), 10), self.lines
        return next(line for line in self.lines if text in line)

    def pid(self, name: str) -> int:
        listed = json.loads((self.folder / "dev.json").read_text())["processes"]
        return next(p["pid"] for p in listed if p["name"] == name)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    here = Stage(tmp_path)
    yield here
    for supervisor in here.made:
        supervisor.stop()


def is_gone(pid: int) -> bool:
    return processes.wait_until(lambda: processes.start_mark(pid) is None, 10)


def number_in(line: str) -> int:
    return int(re.findall(r"\d+", line)[-1])


def test_each_is_ready_before_the_next_is_started(stage: Stage, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    first = toy(
        "first",
        f"""
        import pathlib, time
        time.sleep(0.3)
        pathlib.Path({str(ready)!r}).touch()
        print("is ready")
        time.sleep(600)
        """,
        ready=ready.exists,
    )
    supervisor = stage(first, toy("second", f"print('is up'); {SLEEP}"))
    supervisor.start()
    supervisor.wait_ready(10)
    stage.until("second")
    assert [line for line in stage.lines if "is" in line] == [
        "first    | is ready",
        "second   | is up",
    ]


def test_an_inner_list_starts_side_by_side(stage: Stage) -> None:
    meeting = threading.Barrier(2, timeout=10)

    def both_run() -> bool:
        meeting.wait()
        return True

    supervisor = stage([toy(n, SLEEP, ready=both_run) for n in ("one", "two")])
    supervisor.start()
    supervisor.wait_ready(10)


def test_drains_in_reverse_order(stage: Stage) -> None:
    slow = [toy(n, SAYS_WHEN_IT_ENDS.format(slow=0.2)) for n in ("a", "b", "c")]
    supervisor = stage(*slow)
    supervisor.start()
    for name in "abc":
        stage.until(f"{name}        | up")
    supervisor.stop()
    ended = [line.split()[0] for line in stage.lines if "ended" in line]
    assert ended == ["c", "b", "a"]
    assert not (stage.folder / "dev.json").exists()


def test_kills_what_does_not_end_in_time(stage: Stage) -> None:
    supervisor = stage(toy("deaf", STUBBORN, drain_timeout_s=0.3))
    supervisor.start()
    stage.until("up")
    pid = stage.pid("deaf")
    supervisor.stop()
    assert is_gone(pid)
    stage.until("did not end in 0.3 s: killed")


def test_stop_during_start_leaves_nothing(stage: Stage) -> None:
    supervisor = stage(toy("never", SLEEP, ready=lambda: False), toy("later", SLEEP))
    supervisor.start()
    assert processes.wait_until((stage.folder / "dev.json").exists, 10)
    pid = stage.pid("never")
    supervisor.stop()
    assert is_gone(pid)
    with pytest.raises(SupervisorError, match="stopped before"):
        supervisor.wait_ready(1)


def test_restarts_what_dies_with_growing_pauses(stage: Stage) -> None:
    supervisor = stage(toy("weak", "import time; time.sleep(0.2); raise SystemExit(3)"))
    supervisor.start()
    supervisor.wait_ready(10)
    stage.until("starting again in 0.4 s")
    delays = [number for line in stage.lines for number in re.findall(r"in ([\d.]+) s", line)]
    assert delays[:4] == ["0.05", "0.1", "0.2", "0.4"]
    assert stage.said("weak     | ended with status 3; starting again")


def test_the_pause_is_short_again_after_a_good_while(stage: Stage) -> None:
    timing = Timing(backoff_s=0.05, settled_s=0)
    supervisor = stage(toy("weak", "import time; time.sleep(0.2)"), timing=timing)
    supervisor.start()
    assert processes.wait_until(lambda: len(stage.lines) >= 3, 10)
    assert all("in 0.05 s" in line for line in stage.lines)


def test_restarts_what_is_killed(stage: Stage) -> None:
    supervisor = stage(toy("shot", SLEEP))
    supervisor.start()
    supervisor.wait_ready(10)
    pid = stage.pid("shot")
    os.kill(pid, signal.SIGKILL)
    stage.until("was ended by SIGKILL")
    assert processes.wait_until(lambda: "shot" in (stage.folder / "dev.json").read_text(), 10)
    assert stage.pid("shot") != pid


def test_a_folder_that_cannot_be_written_loses_hold_of_nobody(stage: Stage) -> None:
    supervisor = stage(toy("shot", f"import os; print('is', os.getpid()); {SLEEP}"))
    supervisor.start()
    supervisor.wait_ready(10)
    first = number_in(stage.until("is "))
    shutil.rmtree(stage.folder)
    os.kill(first, signal.SIGKILL)
    assert processes.wait_until(lambda: sum("is " in line for line in stage.lines) == 2, 10)
    second = number_in([line for line in stage.lines if "is " in line][-1])
    supervisor.stop()
    assert is_gone(second)


def test_kills_and_restarts_what_hangs(stage: Stage, tmp_path: Path) -> None:
    beat = tmp_path / "beat"
    beats = f"""
    import pathlib, time
    while True:
        pathlib.Path({str(beat)!r}).touch()
        time.sleep(0.05)
    """

    def is_fresh() -> bool:
        return time.time() - beat.stat().st_mtime < 0.5  # a read may meet a file being written

    process = toy("hung", beats, ready=beat.exists, healthy=is_fresh, health_grace_s=0.3)
    supervisor = stage(process)
    supervisor.start()
    supervisor.wait_ready(10)
    pid = stage.pid("hung")
    os.kill(pid, signal.SIGSTOP)
    stage.until("shows no sign of life: killed")
    assert is_gone(pid)
    assert processes.wait_until(is_fresh, 10)


def test_a_check_that_fails_itself_kills_nobody(stage: Stage) -> None:
    asked = threading.Event()

    def unknown() -> bool:
        asked.set()
        raise ConnectionError

    supervisor = stage(toy("fine", SLEEP, healthy=unknown, health_grace_s=0))
    supervisor.start()
    assert asked.wait(10)
    time.sleep(0.3)
    assert stage.lines == []


def test_what_fails_at_the_start_is_reported_with_its_last_lines(stage: Stage) -> None:
    broken = toy("broken", "print('port 8001 is taken'); raise SystemExit(2)", ready=lambda: False)
    supervisor = stage(toy("fine", SLEEP), broken, toy("never", SLEEP))
    supervisor.start()
    with pytest.raises(SupervisorError) as error:
        supervisor.wait_ready(10)
    assert str(error.value) == "broken ended with status 2\nport 8001 is taken"
    assert supervisor.wait() == 1
    pid = stage.pid("fine")
    supervisor.stop()
    assert is_gone(pid)


def test_what_does_not_get_ready_in_time_is_reported(stage: Stage) -> None:
    supervisor = stage(toy("slow", SLEEP, ready=lambda: False, ready_timeout_s=0.2))
    supervisor.start()
    with pytest.raises(SupervisorError, match=r"slow was not ready in 0\.2 s"):
        supervisor.wait_ready(10)


def test_a_program_that_does_not_exist_is_reported(stage: Stage) -> None:
    supervisor = stage(Process("odd", ["/no/such/program"]))
    supervisor.start()
    with pytest.raises(SupervisorError, match="odd cannot be started: No such file"):
        supervisor.wait_ready(10)


def test_the_end_of_a_process_that_is_not_restarted_ends_all(stage: Stage) -> None:
    supervisor = stage(
        toy("fine", SLEEP),
        toy("once", "import time; time.sleep(0.3); raise SystemExit(7)", restart=False),
    )
    supervisor.start()
    assert supervisor.wait() == 7


@pytest.mark.parametrize("escapes", [False, pytest.param(True, marks=pytest.mark.skipif(
    not processes.has_proc(), reason="needs /proc"))])  # fmt: skip
def test_grandchildren_end_too(stage: Stage, escapes: bool) -> None:
    supervisor = stage(toy("parent", HAS_A_GRANDCHILD.format(escapes=escapes)))
    supervisor.start()
    grandchild = number_in(stage.until("grandchild"))
    assert processes.start_mark(grandchild)
    supervisor.stop()
    assert is_gone(grandchild)


def test_a_second_supervisor_of_the_name_is_one_clear_line(stage: Stage) -> None:
    supervisor = stage(toy("only", SLEEP))
    supervisor.start()
    second = stage(toy("only", SLEEP))
    with pytest.raises(SupervisorError) as error:
        second.start()
    assert str(error.value) == f"'dev' is already running (process {os.getpid()}); stop it first"
    second.stop()
    supervisor.wait_ready(10)
    other = Supervisor([toy("only", SLEEP)], stage.folder, "demo", echo=stage.lines.append)
    other.start()
    other.stop()


def test_keeps_asked_while_it_runs_and_says_an_error_once(stage: Stage) -> None:
    asked: list[int] = []

    def keep() -> None:
        asked.append(1)
        raise LocalError("PostgreSQL did not start")

    supervisor = stage(toy("fine", SLEEP), keep=[keep])
    supervisor.start()
    assert processes.wait_until(lambda: len(asked) > 3, 10)
    supervisor.stop()
    assert stage.lines == ["genonaut | PostgreSQL did not start"]


def test_output_that_has_gone_away_stops_nothing(stage: Stage) -> None:
    def gone(line: str) -> None:
        stage.lines.append(line)
        raise BrokenPipeError

    supervisor = Supervisor(
        [toy("loud", f"print('x' * 100000); print('still here'); {SLEEP}")],
        stage.folder,
        "dev",
        echo=gone,
    )
    supervisor.start()
    try:
        stage.until("still here")
    finally:
        supervisor.stop()


# What follows runs the supervisor as a process of its own, as `genonaut up` does.

RUN = """
import sys
from pathlib import Path
from genonaut.local.supervisor import Process, Supervisor, Timing
folder, *programs = sys.argv[1:]
processes = [
    Process(f"p{i}", [sys.executable, "-u", "-S", "-c", code], drain_timeout_s=20)
    for i, code in enumerate(programs)
]
sys.exit(Supervisor(processes, Path(folder), "dev", timing=Timing(check_s=0.1)).run())
"""


class Own:
    """A supervisor in another process; it reads its output until a text appears."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(folder), *map(textwrap.dedent, programs)],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.output = ""

    def until(self, text: str) -> str:
        while text not in self.output:
            line = self.process.stdout.readline()
            assert line, self.output
            self.output += line
        return next(line for line in self.output.splitlines() if text in line)

    def finish(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=20)
        self.output += rest
        return self.process.returncode


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Own]]:
    made: list[Own] = []

    def make(*programs: str) -> Own:
        made.append(Own(tmp_path, *programs))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.finish(signal.SIGINT)
        one.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_and_exits_0(own: Callable[..., Own], number: signal.Signals) -> None:
    one = own(SAYS_WHEN_IT_ENDS.format(slow=0.1))
    one.until("up")
    assert one.finish(number) == 0
    assert "p0       | ended" in one.output
    assert "\x1b" not in one.output  # no terminal, no colour


def test_a_second_signal_kills_at_once(own: Callable[..., Own]) -> None:
    one = own(STUBBORN)
    one.until("up")
    one.process.send_signal(signal.SIGINT)
    one.until("once more")
    began = time.monotonic()
    assert one.finish(signal.SIGINT) == 130
    assert time.monotonic() - began < 5


def test_the_next_start_ends_what_a_killed_supervisor_left(own: Callable[..., Own]) -> None:
    killed = own(HAS_A_GRANDCHILD.format(escapes=True), STUBBORN)
    grandchild = number_in(killed.until("grandchild"))
    killed.until("up")
    killed.process.kill()
    killed.process.wait()
    assert processes.start_mark(grandchild)
    heir = own(SAYS_WHEN_IT_ENDS.format(slow=0))
    heir.until("ended p0, left by an earlier run")
    heir.until("ended p1, left by an earlier run")
    heir.until("up")
    if processes.has_proc():
        assert is_gone(grandchild)
    else:
        processes.send(grandchild, signal.SIGKILL)
    assert heir.finish(signal.SIGTERM) == 0


def test_a_reused_process_id_is_never_killed(stage: Stage) -> None:
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as stranger:
        entry = {"name": "x", "pid": stranger.pid, "mark": "another boot/1"}
        (stage.folder / "dev.json").write_text(json.dumps({"processes": [entry, {"odd": 1}]}))
        supervisor = stage(toy("fine", SLEEP))
        supervisor.start()
        supervisor.wait_ready(10)
        assert stranger.poll() is None
        stranger.kill()


def test_an_idle_supervisor_uses_no_processor_time(own: Callable[..., Own]) -> None:
    one = own("print('up'); " + SLEEP)
    one.until("up")
    stat = Path(f"/proc/{one.process.pid}/stat")
    if not stat.exists():
        pytest.skip("needs /proc")
    time.sleep(0.3)

    def used() -> int:
        fields = stat.read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = used()
    time.sleep(1)
    assert used() - before <= 1
