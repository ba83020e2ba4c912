"""The commands as a whole: help, wrong words, wrong settings."""

import json
from pathlib import Path

import pytest

from genonaut.api import triggering
from genonaut.cli import remote
from genonaut.cli.doctor import CHECKS
from genonaut.domain import lifecycle
from tests.cli.conftest import Commands
from tests.support.simulator import free_port, running_simulator

SUBCOMMANDS = {
    "up": (), "demo": (), "doctor": (), "version": (),
    "jobs": ("submit", "list", "show", "cancel", "retry"),
    "tasks": ("list", "show", "run"),
    "runs": ("list", "show", "cancel", "retry"),
    "schedules": ("list", "show", "preview", "pause", "resume", "run", "set", "remove"),
    "users": ("create", "list"),
    "tokens": ("create", "list", "revoke"),
    "redis": ("keys", "info", "flush"),
    "db": ("upgrade", "check", "backup", "restore"),
}  # fmt: skip


@pytest.fixture
def alone(tmp_path: Path) -> Commands:
    """Commands with no server in reach."""
    nowhere = "127.0.0.1:1"
    return Commands(
        tmp_path / "var",
        {
            "DATABASE_URL_DEV": f"postgresql://postgres@{nowhere}/genonaut_dev",
            "REDIS_URL_DEV": f"redis://{nowhere}/4",
            "API_PORT": "1",
            "SIMULATOR_PORT": "1",
        },
    )


def test_help_names_every_command_and_nothing_of_the_library(alone: Commands) -> None:
    told = alone("--help").stdout
    for command in SUBCOMMANDS:
        assert f" {command} " in told
    assert "completion" not in told


@pytest.mark.parametrize("command", ["jobs", "tasks", "runs", "schedules", "db"])
def test_a_group_names_its_commands(alone: Commands, command: str) -> None:
    told = alone(command, "--help").stdout
    for word in SUBCOMMANDS[command]:
        assert f" {word} " in told
    assert "completion" not in told


def test_help_shows_where_a_default_comes_from(alone: Commands) -> None:
    told = alone("up", "--help").stdout
    for default in ("APP_ENV", "API_HOST", "API_PORT"):
        assert f"[default: ({default})]" in told


@pytest.mark.parametrize(
    "words",
    [
        ("nonsense",),
        ("jobs", "show", "one"),
        ("jobs", "submit"),
        ("tasks", "run"),
        ("tasks", "run", "a.b", "word"),
        ("tasks", "run", "a.b", "=1"),
        ("tasks", "run", "a.b", "x=1", "x=2"),
        ("runs", "show", "one"),
    ],
)
def test_wrong_words_end_with_2(alone: Commands, words: tuple[str, ...]) -> None:
    assert "Usage: " in alone(*words, status=2).stderr


def test_an_environment_that_is_not_set_up_names_what_is_missing(alone: Commands) -> None:
    said = alone.refusal("doctor", "--env", "prod", status=2)
    assert said == (
        "environment 'prod' is not one of demo, test, dev, and these are not set: "
        "REDIS_URL_PROD, REDIS_NS_PROD, DATABASE_URL_PROD"
    )
    said = alone.refusal("doctor", APP_ENV="prod", REDIS_NS_PROD="p", status=2)
    assert said.endswith("not set: REDIS_URL_PROD, DATABASE_URL_PROD")


def test_a_wrong_setting_is_named(alone: Commands) -> None:
    assert alone.refusal("jobs", "list", API_PORT="many", status=2).startswith("API_PORT: ")


def test_without_a_token_it_says_how_to_get_one(alone: Commands) -> None:
    said = alone.refusal("jobs", "list")
    assert "genonaut tokens create" in said
    assert "genonaut up --env dev" in said


def test_servers_that_are_away_are_named(alone: Commands) -> None:
    assert alone.refusal("users", "list").startswith("cannot reach PostgreSQL at 127.0.0.1:1: ")
    assert alone.refusal("db", "check").startswith("cannot reach PostgreSQL at 127.0.0.1:1: ")
    assert alone.refusal("up").startswith("Redis does not answer ")
    assert alone.refusal("redis", "keys").startswith("Redis does not answer ")
    said = alone.refusal("jobs", "list", GENONAUT_TOKEN="gn_x")
    assert (
        said
        == "the API at http://127.0.0.1:1 does not answer; start it with: genonaut up --env dev"
    )


def test_the_doctor_says_what_is_wrong_and_what_to_do(alone: Commands) -> None:
    findings = {f["part"]: f for f in json.loads(alone("doctor", "--json", status=1).stdout)}
    assert [part for part, f in findings.items() if f["ok"]] == ["program", "storage"]
    for finding in findings.values():
        assert bool(finding["advice"]) is not finding["ok"]
    assert "http://127.0.0.1:1" in findings["ComfyUI"]["found"]
    assert "✗ PostgreSQL" in alone("doctor", status=1).stdout


def test_the_doctor_shows_no_login_of_comfyui(make_settings) -> None:
    [_, _, _, comfyui, *_] = CHECKS
    with running_simulator() as simulator:
        nowhere = f"http://127.0.0.1:{free_port()}"
        urls = [url.replace("//", "//anna:hidden@") for url in (nowhere, simulator.url)]
        away, there = comfyui(make_settings(comfyui_url=",".join(urls)))
    assert away.found == f"{nowhere}: ComfyUI does not answer (ConnectError)"
    assert (there.ok, f" at {simulator.url}: " in there.found) == (True, True)


def test_a_folder_that_cannot_be_used_is_one_line(alone: Commands, tmp_path: Path) -> None:
    blocked = tmp_path / "a file"
    blocked.touch()
    said = alone.refusal("up", VAR_DIR=str(blocked / "var"))
    assert said.startswith("cannot use ")
    assert said.endswith(": Not a directory")


def test_the_command_line_knows_the_final_states() -> None:
    assert set(remote.FINAL) == set(lifecycle.FINAL)


def test_the_api_knows_the_command_line_by_its_name() -> None:
    assert remote.AGENT.startswith(f"{triggering.CLI_AGENT}/")
