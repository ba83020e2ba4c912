"""What a user does while ``genonaut up`` runs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from genonaut.local import processes
from tests.cli.conftest import Commands, in_terminal

GRAPH = {
    "1": {
        "class_type": "CheckpointLoaderSimple",
        "inputs": {"ckpt_name": "aurelia-xl.safetensors"},
    },
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a fox", "clip": ["1", 1]}},
    "3": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
    "4": {
        "class_type": "KSampler",
        "inputs": {
            "model": ["1", 0],
            "positive": ["2", 0],
            "negative": ["2", 0],
            "latent_image": ["3", 0],
            "seed": 1,
            "steps": 2,
            "cfg": 7.0,
            "sampler_name": "euler",
            "scheduler": "normal",
            "denoise": 1.0,
        },
    },
    "5": {"class_type": "VAEDecode", "inputs": {"samples": ["4", 0], "vae": ["1", 2]}},
    "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
}
SMALL = ("--width", "64", "--height", "64", "--steps", "2")


def submitted(running: Commands, *words: str) -> dict[str, object]:
    job: dict[str, object] = json.loads(running("jobs", "submit", *words, "--json").stdout)
    return job


def test_a_job_is_submitted_watched_listed_and_shown(running: Commands) -> None:
    job = submitted(running, "a red boat", *SMALL, "--batch", "2", "--seed", "7", "--wait")
    assert job["status"] == "completed"
    item = running.get(f"/api/v1/content/{job['content_id']}").json()
    assert len(item["images"]) == 2

    listed = json.loads(running("jobs", "list", "--status", "completed", "--json").stdout)
    assert job["id"] in [row["id"] for row in listed]
    assert re.search(
        rf"^{job['id']} +completed .*a red boat$", running("jobs", "list").stdout, re.MULTILINE
    )

    shown = json.loads(running("jobs", "show", str(job["id"]), "--json").stdout)
    assert shown["timeline"][0]["event"] == "created"
    told = running("jobs", "show", str(job["id"])).stdout
    assert re.search(r"^seed +7$", told, re.MULTILINE)
    assert "The job completed." in told


def test_a_terminal_shows_a_bar_and_a_pipe_has_no_colours(running: Commands) -> None:
    status, written = in_terminal(running, "jobs", "submit", "a [bold]kite", *SMALL, "--wait")
    assert status == 0
    assert "\x1b[" in written
    assert "a [bold]kite" in written
    assert "━" in written
    assert "completed" in written
    piped = running("jobs", "submit", "a kite", *SMALL, "--wait").stdout
    assert "\x1b" not in piped
    assert "100%" in piped
    assert "\x1b" not in running("doctor").stdout


def test_a_workflow_and_a_lora(running: Commands, tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    graph.write_text(json.dumps(GRAPH))
    job = submitted(running, "a fox", "--workflow", str(graph), "--wait")
    assert (job["status"], job["has_workflow"]) == ("completed", True)
    job = submitted(running, "ink", *SMALL, "--lora", "riso-ink.safetensors:0.6", "--wait")
    assert job["status"] == "completed"
    assert job["lora_models"] == [
        {"name": "riso-ink.safetensors", "strength_model": 0.6, "strength_clip": 0.6}
    ]
    graph.write_text("{")
    said = running.refusal("jobs", "submit", "a fox", "--workflow", str(graph), status=2)
    assert said.startswith(f"{graph} is not JSON: ")
    graph.write_text('{"1": {"class_type": "KSampler", "inputs": {"cfg": NaN}}}')
    said = running.refusal("jobs", "submit", "a fox", "--workflow", str(graph), status=2)
    assert said == f"{graph} is not JSON: NaN is not JSON"


def test_a_refusal_names_each_wrong_field(running: Commands) -> None:
    said = running.refusal("jobs", "submit", "x", "--width", "100", "--batch", "9")
    assert "width: " in said
    assert "batch_size: " in said
    assert "None" not in said
    said = running.refusal("jobs", "submit", "x", "--model", "none")
    assert said.startswith("checkpoint_model: ")
    assert running.refusal("jobs", "show", "999999") == "there is no such job"
    assert "login" in running.refusal("jobs", "list", GENONAUT_TOKEN="gn_wrong")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("jobs", "submit", "x", "--lora", "ink:nan"), 2, "--lora ink:nan: "),
        (("jobs", "submit", "x", "--lora", "ink:1e999"), 2, "--lora ink:1e999: "),
        (("jobs", "submit", "\udcff"), 1, "what is to be sent is not UTF-8"),
        (("jobs", "list", "--url", "http://[::1"), 1, "http://[::1 is not a URL"),
        (("notifications", "preferences", "digest_hour=Infinity"), 1, "digest_hour: "),
        (("notifications", "preferences", "digest_hour=1e999"), 1, "what is to be sent is not"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    running: Commands, words: tuple[str, ...], status: int, said: str
) -> None:
    assert running.refusal(*words, status=status).startswith(said)


def test_a_token_cannot_be_valid_for_longer_than_there_are_years(running: Commands) -> None:
    said = running("tokens", "create", "--user", "me", "--days", "9999999999", status=2).stderr
    assert "'--days'" in said


def test_ctrl_c_lets_go_of_a_watched_job_which_goes_on(running: Commands) -> None:
    submitted(running, "before", "--steps", "150")  # ComfyUI draws one after the other
    watching = running.start(
        "jobs", "submit", "slow", "--steps", "150", "--wait", PYTHONUNBUFFERED="1"
    )

    def is_drawing() -> bool:
        rows = json.loads(running("jobs", "list", "--json", "--limit", "1").stdout)
        return bool(rows and rows[0]["prompt"] == "slow" and rows[0]["status"] == "running")

    assert processes.wait_until(is_drawing, 30)
    began = time.monotonic()
    assert watching.end(signal.SIGINT) == 130
    assert time.monotonic() - began < 5
    found = re.search(r"job (\d+) goes on; see: genonaut jobs show \1 --env dev", watching.text)
    assert found, watching.text
    assert "Traceback" not in watching.text
    assert f"job {found[1]} is" in running("jobs", "cancel", found[1]).stdout

    def is_cancelled() -> bool:
        row = json.loads(running("jobs", "show", found[1], "--json").stdout)
        return bool(row["status"] == "cancelled")

    assert processes.wait_until(is_cancelled, 30)
    again = json.loads(running("jobs", "retry", found[1], "--json").stdout)
    assert again["retry_of"] == int(found[1])
    running("jobs", "cancel", str(again["id"]))


def test_a_user_gets_a_token_that_can_be_revoked(running: Commands) -> None:
    assert running("users", "create", "anna").stdout == "created anna (user)\n"
    token = running("tokens", "create", "--user", "anna", "--quiet").stdout.strip()
    assert re.fullmatch(r"gn_[\w-]{40,}", token)
    assert running("jobs", "list", "--json", GENONAUT_TOKEN=token).stdout == "[]\n"
    told = running("tokens", "list", "--user", "anna", "--json").stdout
    assert token not in told
    [listed] = json.loads(told)
    assert "T" in listed["created_at"]
    running("tokens", "revoke", str(listed["id"]))
    running.refusal("jobs", "list", GENONAUT_TOKEN=token)


@pytest.mark.slow
def test_accounts_are_listed_and_names_are_checked(running: Commands) -> None:
    running("users", "create", "bea")
    assert "bea" in running.refusal("users", "create", "bea")
    assert running.refusal("tokens", "create", "--user", "bob") == "there is no user 'bob'"
    users = json.loads(running("users", "list", "--json").stdout)
    assert {"bea", "operator"} <= {user["username"] for user in users}
    assert running("users", "list").stdout.startswith("USER ")


def test_the_doctor_finds_everything_well(running: Commands) -> None:
    assert processes.wait_until(lambda: _is_well(running), 30)


def _is_well(running: Commands) -> bool:
    done = subprocess.run(
        [sys.executable, "-m", "genonaut", "doctor"],
        env=running.variables,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0


def test_a_second_start_names_the_first_and_another_environment_the_port(running: Commands) -> None:
    assert "'dev' is already running (process " in running.refusal("up")
    said = running.refusal("up", "--env", "test")
    assert said.endswith("is taken by another program; stop it, or set API_PORT")


def test_flower_is_for_looking_only_and_shows_no_prompt(running: Commands) -> None:
    port = int(running.variables["FLOWER_PORT"])
    secret = "an unmistakable walrus"
    job = submitted(running, secret, *SMALL, "--wait")
    flower = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)
    with flower:
        query = {"draw": 1, "start": 0, "length": 50, "search[value]": ""}
        query |= {"order[0][column]": 0, "order[0][dir]": "asc", "columns[0][data]": "name"}
        shown = ""

        def has_job() -> bool:
            nonlocal shown
            shown = flower.get("/tasks/datatable", params=query).text
            return str(job["celery_task_id"]) in shown

        assert processes.wait_until(has_job, 30, 0.2)
        pages = [flower.get(page).text for page in ("/", "/workers", "/tasks", "/broker")]
        assert secret not in shown + "".join(pages)
        refused = flower.post("/api/worker/shutdown/generation")
        assert refused.status_code in {401, 403, 405}
    assert _listens_on(port) == {"127.0.0.1"}


def _listens_on(port: int) -> set[str]:
    wanted = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    rows += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    listening = [row[1] for row in rows if row[3] == "0A" and row[1].endswith(wanted)]
    return {"127.0.0.1" if a.startswith("0100007F:") else a for a in listening}


def test_redis_tools_know_only_the_environments_keys(running: Commands) -> None:
    keys = json.loads(running("redis", "keys", "--json").stdout)
    assert keys
    assert {row["db"] for row in keys} == {4}
    assert all(row["key"].startswith("cli_shared_dev:") for row in keys)
    info = json.loads(running("redis", "info", "--json").stdout)
    assert info["maxmemory_policy"] == "noeviction"
    assert info["server"].startswith("valkey 9.")


@pytest.mark.slow
def test_a_backup_comes_back_in_another_environment(running: Commands, tmp_path: Path) -> None:
    job = submitted(running, "kept", *SMALL, "--seed", "3", "--wait")
    path = f"/api/v1/content/{job['content_id']}/images/0"
    picture = running.get(path).content
    file = tmp_path / "folder" / "dev.tar"
    assert running("db", "backup", "--to", str(file)).stdout.startswith("saved dev to ")
    assert file.stat().st_mode & 0o077 == 0
    assert [found.name for found in file.parent.iterdir()] == ["dev.tar"]

    assert "dev is running" in running.refusal("db", "restore", str(file))
    told = running("db", "restore", "--env", "test", str(file)).stdout
    assert told.startswith("restored test as dev was at ")
    assert running("db", "restore", "--env", "test", str(file)).stdout == told  # nobody is alive
    state = json.loads(running("db", "check", "--env", "test", "--json").stdout)
    assert state["is_current"]
    stored = {
        found.read_bytes()
        for found in (running.folder / "test/storage").rglob("*")
        if found.is_file()
    }
    assert picture in stored

    wrong = tmp_path / "wrong.tar"
    wrong.write_text("no archive")
    said = running.refusal("db", "restore", "--env", "test", str(wrong), status=2)
    assert "is not a backup of Genonaut" in said
    assert running.refusal("db", "backup", "--to", str(wrong / "x.tar")).startswith("cannot ")


@pytest.mark.slow
def test_a_job_waits_out_an_api_that_is_away_for_a_moment(running: Commands) -> None:
    watching = running.start("jobs", "submit", "patient", "--steps", "150", "--wait", "--json")
    assert processes.wait_until(
        lambda: "patient" in running("jobs", "list", "--status", "running").stdout, 30
    )
    children = json.loads((running.folder / "run" / "dev.json").read_text())["processes"]
    [api] = [child["pid"] for child in children if child["name"] == "api"]
    os.killpg(api, signal.SIGKILL)
    assert watching.popen.wait(60) == 0
    assert json.loads(watching.text)["status"] == "completed"


def test_notifications_are_read_and_asked_for_from_a_terminal(running: Commands) -> None:
    said = running("notifications", "announce", "Maintenance at six", "--body", "Half an hour.")
    assert said.stdout.endswith(" told\n")
    [row] = json.loads(
        running("notifications", "list", "--kind", "system", "--limit", "1", "--json").stdout
    )
    assert row["title"] == "Maintenance at six"
    assert "marked read" in running("notifications", "read", str(row["id"])).stdout
    unread = running("notifications", "list", "--unread", "--kind", "system", "--json").stdout
    assert row["id"] not in {one["id"] for one in json.loads(unread)}
    changed = running("notifications", "preferences", "job_failed.in_app=off", "digest_hour=6")
    assert re.search(r"job_failed +off", changed.stdout)
    assert "digest_hour     6" in changed.stdout
    assert "pigeon" in running.refusal("notifications", "preferences", "system.pigeon=on")
    assert "SMTP_HOST" in running("notifications", "channels").stdout
    refused = running.refusal("notifications", "set", "webhook", "http://127.0.0.1/hook")
    assert "not public" in refused
    assert "webhook" in running("notifications", "health").stdout
    assert json.loads(running("notifications", "deliveries", str(row["id"]), "--json").stdout) == []
