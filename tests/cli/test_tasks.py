"""What an operator does with tasks and their runs while ``genonaut up`` runs."""

import json
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from genonaut.api.config import ROOT
from genonaut.local import processes
from tests.cli.conftest import Commands, in_terminal, make_commands
from tests.core.pictures import encode, picture
from tests.support.database import sqlalchemy_url
from tests.support.servers import RunningPostgres, RunningValkey

LOST_RUN = """
    INSERT INTO task_runs (task, queue, trigger, status, params, attempt, celery_task_id, worker,
                           lease_token, lease_expires_at, claimed_at, started_at, dispatched_at)
    VALUES ('toys.count', 'maintenance', 'api', 'running', '{"steps": 2}', 1, 'lost', 'gone@host',
            gen_random_uuid(), now() - interval '1 minute', now(), now(), now())
    RETURNING id
"""


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory,
    postgres: RunningPostgres,
    valkey_server: RunningValkey,
) -> Iterator[Commands]:
    """Commands while ``genonaut up`` runs with tasks of our own."""
    folder = tmp_path_factory.mktemp("tasks") / "var"
    made = make_commands(folder, postgres, valkey_server, "cli_tasks")
    made.variables |= {
        "PYTHONPATH": str(ROOT),
        "TASK_PACKAGES": "tests.cli.toys",
        "FLOWER_ACTIVE": "false",
        "POSTGRES_GRACE_S": "0",  # the server of the tests may have started just now
    }
    started = made.start("up")
    made.until_ready(started)
    yield made
    assert started.end() == 0
    made.close()


def row(running: Commands, run_id: object) -> dict:
    shown: dict = json.loads(running("runs", "show", str(run_id), "--json").stdout)
    return shown


def test_tasks_are_listed_and_shown_with_their_parameters(running: Commands) -> None:
    listed = running("tasks", "list").stdout
    assert re.search(r"^toys\.count +maintenance +yes +Count$", listed, re.MULTILINE)
    assert "content.refresh_stats" in listed
    names = [task["name"] for task in json.loads(running("tasks", "list", "--json").stdout)]
    assert names == sorted(names)
    shown = running("tasks", "show", "toys.count").stdout
    assert "Safe to run twice: numbers do not mind." in shown
    assert re.search(r"^steps +integer +3 +How far to count\.$", shown, re.MULTILINE)
    assert '"calm" or "[b]wild"' in shown
    one = json.loads(running("tasks", "show", "toys.count", "--json").stdout)
    assert one["params_schema"]["properties"]["steps"]["default"] == 3
    assert running.refusal("tasks", "show", "no.such") == "there is no task 'no.such'"


def test_a_run_is_asked_for_watched_listed_and_shown(running: Commands) -> None:
    words = ("toys.count", "steps=4", "note=7", "skip=[2,3]", "mood=[b]wild")
    done = running("tasks", "run", *words, "--reason", "a [test]", "--wait")
    found = re.search(r"^run (\d+) completed: (\{.*\})$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    assert json.loads(found[2]) == {"counted": 2, "note": "7", "dry": False}
    assert f"items failed: 2; see: genonaut runs show {found[1]}" in done.stdout

    run = row(running, found[1])
    assert (run["trigger"], run["actor"], run["reason"]) == ("cli", "operator", "a [test]")
    assert run["params"]["skip"] == [2, 3]
    shown = running("runs", "show", found[1]).stdout
    assert re.search(r"^status +completed$", shown, re.MULTILINE)
    assert re.search(r"^reason +a \[test\]$", shown, re.MULTILINE)
    assert "null" not in shown
    assert not re.search(r"^message", shown, re.MULTILINE), "it is over"
    assert "number:2: [not] a number" in shown
    assert re.search(r"info  counted number=4$", shown, re.MULTILINE)
    listed = running("runs", "list", "--task", "toys.count", "--status", "completed").stdout
    assert re.search(rf"^{found[1]} +completed +4/4 .*toys\.count +operator$", listed, re.MULTILINE)
    assert json.loads(running("runs", "list", "--schedule", "none", "--json").stdout) == []


def test_a_dry_run_in_json(running: Commands) -> None:
    done = running("tasks", "run", "toys.count", "--dry-run", "--wait", "--json")
    run = json.loads(done.stdout)
    assert (run["status"], run["dry_run"], run["result"]["dry"]) == ("completed", True, True)


def test_a_terminal_shows_a_bar_with_or_without_an_end(running: Commands) -> None:
    for words in ((), ("is_endless=true",)):
        status, written = in_terminal(
            running, "tasks", "run", "toys.count", "steps=15", "pause_s=0.1", *words, "--wait"
        )
        assert status == 0, written
        assert "━" in written
        assert "completed" in written
        assert ("running 1" in written) or ("[bold]counting" in written)
        assert ("/15: [bold]counting" in written) is not bool(words)


def test_a_failed_run_is_one_line_and_status_1(running: Commands) -> None:
    done = running("tasks", "run", "toys.count", "fails=true", "--wait", status=1)
    assert re.fullmatch(r"genonaut: run \d+ failed: it was to fail \(on_demand\)\n", done.stderr)
    run_id = re.findall(r"\d+", done.stderr)[0]
    assert "it was to fail (on_demand)" in running("runs", "show", run_id).stdout
    again = json.loads(running("runs", "retry", run_id, "--json").stdout)
    assert again["retry_of"] == int(run_id)
    alone = running.refusal("runs", "retry", run_id, "--only-failed")
    assert alone.startswith("toys.count cannot try failed items alone")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("steps=many",), "params.steps: Input should be a valid integer"),
        (("steps=0",), "params.steps: Input should be greater than or equal to 1"),
        (("mood=sad",), "params.mood: Input should be 'calm'"),
        (("nope=1",), "params.nope: Extra inputs are not permitted"),
    ],
)
def test_a_wrong_parameter_is_named(running: Commands, words: tuple[str, ...], said: str) -> None:
    assert running.refusal("tasks", "run", "toys.count", *words).startswith(said)


def test_what_cannot_be_is_said_in_a_line(running: Commands) -> None:
    assert running.refusal("runs", "show", "999999") == "there is no such run"
    said = running.refusal("tasks", "run", "content.refresh_stats", "--dry-run")
    assert said.endswith("content.refresh_stats has no dry run")
    running("users", "create", "anna")
    token = running("tokens", "create", "--user", "anna", "--quiet").stdout.strip()
    for words in (("tasks", "list"), ("runs", "list"), ("runs", "cancel", "1")):
        assert "role" in running.refusal(*words, GENONAUT_TOKEN=token)


def test_ctrl_c_lets_go_of_a_watched_run_which_goes_on_until_it_is_cancelled(
    running: Commands,
) -> None:
    watching = running.start(
        "tasks", "run", "toys.count", "steps=1000", "--wait", PYTHONUNBUFFERED="1"
    )

    def newest_is(status: str) -> Callable[[], bool]:
        def check() -> bool:
            rows = json.loads(
                running("runs", "list", "--task", "toys.count", "--json", "--limit", "1").stdout
            )
            return bool(rows[0]["params"]["steps"] == 1000 and rows[0]["status"] == status)

        return check

    assert processes.wait_until(newest_is("running"), 30)
    began = time.monotonic()
    assert watching.end(signal.SIGINT) == 130
    assert time.monotonic() - began < 5
    found = re.search(r"run (\d+) goes on; see: genonaut runs show \1 --env dev", watching.text)
    assert found, watching.text
    assert "is being cancelled" in running("runs", "cancel", found[1]).stdout
    assert processes.wait_until(newest_is("cancelled"), 30)
    assert running("runs", "cancel", found[1]).stdout == f"run {found[1]} is cancelled\n"


def test_what_a_lost_worker_had_is_mended_and_told(running: Commands) -> None:
    assert running("jobs", "stale").stdout.splitlines()[0] == "nothing is stuck"
    engine = create_engine(sqlalchemy_url(running.variables["DATABASE_URL_DEV"]))
    with engine.begin() as connection:
        run_id = connection.execute(text(LOST_RUN)).scalar_one()
    engine.dispose()
    assert processes.wait_until(lambda: row(running, run_id)["status"] == "completed", 60)
    told = running("jobs", "stale").stdout
    assert re.search(
        rf"^  \S+ \S+  run {run_id} → pending: worker gone@host lost, attempt 1 of 4$",
        told,
        re.MULTILINE,
    )
    done = json.loads(running("tasks", "run", "jobs.reap_stale", "--wait", "--json").stdout)
    assert done["status"] == "completed"
    report = json.loads(running("jobs", "stale", "--json").stdout)
    assert report["items"] == []
    assert report["recent"][0]["rule"] == "worker_lost"


def test_the_state_of_thumbnails_is_shown(running: Commands) -> None:
    shown = running("thumbnails", "status").stdout
    assert re.search(r"^usual +512, 256 as webp$", shown, re.MULTILINE)
    assert re.search(r"^missing +0$", shown, re.MULTILINE)
    assert json.loads(running("thumbnails", "status", "--json").stdout)["images"] == 0


def test_a_folder_of_pictures_is_brought_in_and_asked_again_adds_nothing(
    running: Commands, tmp_path: Path
) -> None:
    running("users", "create", "collector")
    for n in range(3):
        (tmp_path / f"{n}.png").write_bytes(encode(picture(size=(30 + n, 20)), "PNG"))
    brought = ("content", "import", str(tmp_path), "--creator", "collector")
    assert running(*brought).stdout.strip() == "3 imported, 0 known, 0 failed"
    (tmp_path / "bad.png").write_text("?")
    assert running.refusal(*brought).endswith("files not taken in: 1")
    done = running("tasks", "run", "thumbnails.backfill", "--wait").stdout
    assert '"made": 3' in done
    assert running.refusal("content", "import", str(tmp_path / "no"), "--creator", "collector")
