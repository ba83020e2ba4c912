"""What an operator does with schedules while ``genonaut up`` runs."""

import json
import re
from collections.abc import Iterator

import pytest

from genonaut.api.config import ROOT
from genonaut.local import processes
from tests.cli.conftest import Commands, make_commands
from tests.support.servers import RunningPostgres, RunningValkey

HOURLY = "content.refresh_stats.hourly"


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: RunningPostgres,
    valkey_server: RunningValkey,
) -> Iterator[Commands]:
    """Commands while ``genonaut up`` runs with tasks of our own."""
    folder = tmp_path_factory.mktemp("schedules") / "var"
    made = make_commands(folder, postgres, valkey_server, "cli_schedules")
    made.variables |= {
        "PYTHONPATH": str(ROOT),
        "TASK_PACKAGES": "tests.cli.toys",
        "FLOWER_ACTIVE": "false",
        "TZ": "UTC",
    }
    started = made.start("up")
    made.until_ready(started)
    yield made
    assert started.end() == 0
    made.close()


def row(running: Commands, name: str) -> dict:
    shown: dict = json.loads(running("schedules", "show", name, "--json").stdout)
    return shown


def state(running: Commands, name: str) -> str:
    """Give the line of one in the list, from its state on."""
    listed = running("schedules", "list").stdout.splitlines()
    begin = listed[0].index("STATE")
    [line] = [line for line in listed if line.startswith(f"{name} ")]
    return line[begin:]


def test_one_is_made_changed_in_parts_and_removed(running: Commands) -> None:
    words = ("--task", "toys.count", "--cron", "30 2 * * *", "--timezone", "Europe/Berlin")
    params = ("--param", "steps=4", "--param", "note=7", "--param", "skip=[2]")
    rules = ("--overlap", "wait", "--missed", "skip", "--late-limit", "10m", "--jitter", "30s")
    said = running("schedules", "set", "count.nightly", *words, *params, *rules).stdout
    assert re.fullmatch(
        r"count\.nightly: 30 2 \* \* \* Europe/Berlin; next \d{4}-\S+ 0[01]:30:00\n", said
    )
    made = row(running, "count.nightly")
    assert (made["params"]["steps"], made["params"]["note"]) == (4, "7")
    assert made["params"]["skip"] == [2]
    assert (made["overlap"], made["missed"]) == ("wait", "skip")
    assert (made["late_limit_s"], made["jitter_s"], made["source"]) == (600, 30, "operator")
    assert re.search(
        r"^count\.nightly +toys\.count +30 2 \* \* \* Europe/Berlin +\d{4}-\S+ \S+ +on$",
        running("schedules", "list").stdout,
        re.MULTILINE,
    )

    running("schedules", "set", "count.nightly", "--param", "steps=5", "--overlap", "task")
    changed = row(running, "count.nightly")
    assert (changed["params"]["steps"], changed["params"]["note"]) == (5, "7")
    assert (changed["overlap"], changed["cron"], changed["version"]) == (None, made["cron"], 2)
    every = ("--every", "2d", "--anchor", "2026-01-01T00:07", "--json")
    changed = json.loads(running("schedules", "set", "count.nightly", *every).stdout)
    assert (changed["cron"], changed["every_s"]) == (None, 172800)
    assert changed["anchor_at"] == "2026-01-01T00:07:00+00:00"
    shown = running("schedules", "show", "count.nightly").stdout
    assert re.search(r"^when +every 2d$", shown, re.MULTILINE)
    assert re.search(r"^made by +an operator$", shown, re.MULTILINE)
    other = running("schedules", "set", "count.nightly", "--task", "content.refresh_stats")
    assert "every 2d" in other.stdout
    assert row(running, "count.nightly")["params"] == {"days": None}

    said = running("schedules", "remove", "count.nightly").stdout
    assert said == "count.nightly is removed\n"
    assert running.refusal("schedules", "show", "count.nightly") == "there is no such schedule"


def test_one_of_the_code_is_paused_and_not_removed(running: Commands) -> None:
    assert state(running, HOURLY) == "on"
    assert "pause it instead" in running.refusal("schedules", "remove", HOURLY)
    words = ("--reason", "the [disk] is full", "--until", "2h")
    said = running("schedules", "pause", HOURLY, *words).stdout
    assert re.fullmatch(
        rf"{re.escape(HOURLY)} is paused by operator until \S+ \S+: the \[disk\] is full\n", said
    )
    assert state(running, HOURLY) == said.partition(" is ")[2].strip()
    assert row(running, HOURLY)["next_due_at"] is None
    assert " next 20" in running("schedules", "resume", HOURLY).stdout
    assert state(running, HOURLY) == "on"


def test_all_are_paused_and_resumed(running: Commands) -> None:
    assert running("schedules", "pause", "--all", "--reason", "we move").stdout == (
        "all schedules are paused by operator: we move\n"
    )
    assert state(running, HOURLY) == "paused by operator: we move"
    assert "all schedules are paused" in running("schedules", "list").stderr
    assert json.loads(running("schedules", "list", "--json").stdout)["paused"]["by"] == "operator"
    assert "is over" in running("schedules", "resume", "--all").stdout
    assert state(running, HOURLY) == "on"


def test_one_is_tried_now_and_runs_by_itself(running: Commands) -> None:
    words = ("--task", "toys.count", "--every", "1d", "--param", "pause_s=0")
    running("schedules", "set", "tried", *words)
    done = running("schedules", "run", "tried", "--wait", "--reason", "to see").stdout
    assert "completed" in done
    run = json.loads(running("runs", "list", "--task", "toys.count", "--json").stdout)[0]
    assert (run["trigger"], run["schedule"], run["reason"]) == ("cli", None, "to see")
    running("schedules", "set", "tried", "--every", "1s")

    def has_fired() -> bool:
        listed = running("runs", "list", "--schedule", "tried", "--json").stdout
        return any(one["status"] == "completed" for one in json.loads(listed))

    assert processes.wait_until(has_fired, 60)
    assert row(running, "tried")["last_due_at"] is not None
    running("schedules", "remove", "tried")


def test_a_preview_tells_of_changes_of_the_clock(running: Commands) -> None:
    words = ("--cron", "30 2 * 3,10 sun", "--timezone", "Europe/Berlin", "-n", "20")
    told = running("schedules", "preview", *words).stdout
    assert re.search(r"T03:30:00\+02:00 +moved: the clock skips it$", told, re.MULTILINE)
    assert re.search(r"T02:30:00\+02:00 +there twice: the first$", told, re.MULTILINE)
    found = json.loads(running("schedules", "preview", HOURLY, "-n", "3", "--json").stdout)
    assert len(found["items"]) == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--task", "no.such", "--cron", "@daily"), "task: there is no task 'no.such'"),
        (("--task", "toys.count"), "cron: give a cron or an interval"),
        (("--task", "toys.count", "--cron", "0 0 31 2 *"), "cron: "),
        (
            ("--task", "toys.count", "--cron", "@daily", "--timezone", "Mars/Base"),
            "timezone: there is no time zone 'Mars/Base'",
        ),
        (
            ("--task", "toys.count", "--cron", "@daily", "--param", "steps=many"),
            "params.steps: Input should be a valid integer",
        ),
        (
            ("--task", "toys.count", "--cron", "@daily", "--missed", "twice"),
            "missed: Input should be 'run_once' or 'skip'",
        ),
    ],
)
def test_what_is_wrong_is_named(running: Commands, words: tuple[str, ...], said: str) -> None:
    assert running.refusal("schedules", "set", "wrong", *words).startswith(said)


@pytest.mark.parametrize(
    "words",
    [
        ("set", "new", "--cron", "@daily"),
        ("set", "a/b", "--task", "toys.count", "--cron", "@daily"),
        ("set", "new", "--task", "toys.count", "--cron", "@daily", "--every", "5s"),
        ("set", "new", "--task", "toys.count", "--every", "often"),
        ("pause",),
        ("pause", HOURLY, "--all"),
        ("pause", HOURLY, "--until", "soon"),
        ("resume",),
        ("preview",),
        ("preview", HOURLY, "--cron", "@daily"),
    ],
)
def test_what_is_asked_wrongly_ends_with_2(running: Commands, words: tuple[str, ...]) -> None:
    assert running("schedules", *words, status=2).stdout == ""


def test_the_doctor_looks_at_them(running: Commands) -> None:
    found = json.loads(running("doctor", "--json").stdout)
    [finding] = [one for one in found if one["part"] == "schedules"]
    assert (finding["ok"], finding["found"]) == (True, "none is late")
