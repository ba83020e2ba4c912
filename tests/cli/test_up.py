"""Starting and stopping: what is in the way is one line, and nothing is left running."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import redis

from genonaut.api.config import ROOT
from genonaut.local import processes
from tests.cli.conftest import Commands
from tests.support.servers import RunningValkey, server_dir


def redis_of(commands: Commands, env: str) -> "redis.Redis":
    url = commands.variables[f"REDIS_URL_{env.upper()}"]
    return redis.Redis.from_url(url, decode_responses=True)


def test_a_redis_that_evicts_is_refused(commands: Commands, valkey: RunningValkey) -> None:
    with redis_of(commands, "dev") as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            said = commands.refusal("up")
            doctor = commands("doctor", status=1).stdout
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert "allkeys-lru" in said
    assert "set it to noeviction" in said
    assert "✗ Redis" in doctor
    assert commands.left_running() == []


def test_a_flush_keeps_out_of_what_is_not_ours(commands: Commands) -> None:
    with redis_of(commands, "test") as client:
        ours = f"{commands.variables['REDIS_NS_TEST']}:x"
        client.set(ours, 1)
        said = commands.refusal("redis", "flush", "--env", "test", status=2)
        assert "--yes" in said
        client.set("someone", 1)
        said = commands.refusal("redis", "flush", "--env", "test", "--yes")
        assert "keys of others (such as 'someone')" in said
        assert client.exists(ours, "someone") == 2
        client.delete("someone")
        assert "dropped 1 keys" in commands("redis", "flush", "--env", "test", "--yes").stdout
        assert client.dbsize() == 0
    with redis_of(commands, "dev") as client:
        client.set(f"{commands.variables['REDIS_NS_DEV']}:x", 1)
        commands("redis", "flush")  # dev needs no confirmation
        assert client.dbsize() == 0


@pytest.mark.slow
def test_a_database_that_is_behind_is_told_and_upgraded(commands: Commands) -> None:
    assert commands.refusal("db", "check", "--env", "test") == "run: genonaut db upgrade --env test"
    commands("db", "upgrade", "--env", "test")
    assert "is_current   True" in commands("db", "check", "--env", "test").stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
@pytest.mark.slow
def test_a_full_disk_is_one_line(commands: Commands) -> None:
    with server_dir() as folder:
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no tmpfs here")
        try:
            commands("db", "upgrade")
            (folder / "var").mkdir()
            (folder / "var" / "filler").write_bytes(b"x" * (4 * 2**20 - 40_000))
            said = commands.refusal("db", "backup", VAR_DIR=str(folder / "var"))
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=False)
    assert "No space left" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
@pytest.mark.slow
def test_a_folder_of_somebody_else_is_one_line(commands: Commands, tmp_path: Path) -> None:
    if not os.access(sys.executable, os.X_OK) or "/root" in str(Path(sys.executable).resolve()):
        pytest.skip("the interpreter is root's own")
    done = subprocess.run(
        [sys.executable, "-m", "genonaut", "up"],
        env={**commands.variables, "VAR_DIR": str(tmp_path / "closed")},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        user="nobody",
    )
    assert done.returncode == 1
    assert "Permission denied" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_in_the_middle_of_the_start_leaves_nothing(
    commands: Commands, number: signal.Signals
) -> None:
    started = commands.start("up", PYTHONUNBUFFERED="1")
    started.until("will be at")
    assert started.end(number) in {0, 130}  # drained, or interrupted before there was anything
    assert commands.left_running() == []


@pytest.mark.slow
def test_a_killed_supervisor_leaves_what_the_next_start_ends(commands: Commands) -> None:
    first = commands.start("up")
    commands.until_ready(first)
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    orphans = set(commands.left_running())
    assert orphans
    second = commands.start("up", PYTHONUNBUFFERED="1")
    second.until("ended api, left by an earlier run that was killed")
    commands.until_ready(second)
    assert not orphans & set(commands.left_running())
    assert second.end(signal.SIGTERM) == 0
    assert commands.left_running() == []


@pytest.mark.slow
def test_flower_can_be_left_out_and_the_api_reloads(commands: Commands) -> None:
    started = commands.start("up", "--reload", FLOWER_ACTIVE="false", PYTHONUNBUFFERED="1")
    commands.until_ready(started)
    assert "Started reloader process" in started.text
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{commands.variables['FLOWER_PORT']}/", trust_env=False)
    (ROOT / "genonaut" / "api" / "main.py").touch()
    started.until("Reloading...")
    commands.until_ready(started)
    assert started.end() == 0
    assert commands.left_running() == []


@pytest.mark.slow
def test_parts_start_alone_and_share_the_work(commands: Commands) -> None:
    api = commands.start("up", "--only", "api", "--only", "comfy")
    commands.until_ready(api)
    workers = commands.start("up", "--only", "workers")
    commands("jobs", "submit", "two supervisors", "--steps", "2", "--wait")
    assert workers.end() == 0
    assert api.end() == 0
    assert commands.left_running() == []


@pytest.mark.slow
def test_who_is_stopped_in_good_order_counts_as_gone_at_once(commands: Commands) -> None:
    started = commands.start("up", "--only", "beat", "--only", "workers")

    def found() -> dict[str, str]:
        told = json.loads(_doctor(commands))
        return {f["part"]: f["found"] for f in told if f["part"] in {"beat", "generation"}}

    assert processes.wait_until(
        lambda: [text.partition(",")[0] for text in found().values()] == ["1 alive"] * 2, 60, 0.5
    )
    assert started.end(signal.SIGTERM) == 0
    assert found() == {"generation": "not running", "beat": "not running"}


def _doctor(commands: Commands) -> str:
    return commands("doctor", "--json", status=1).stdout  # 1: there is no API


@pytest.mark.slow
def test_a_port_in_use_is_named(commands: Commands) -> None:
    listener = subprocess.Popen(
        [sys.executable, "-m", "http.server", commands.variables["FLOWER_PORT"]],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{commands.variables['FLOWER_PORT']}/"
        assert processes.wait_until(lambda: _answers(url), 20, 0.1)
        said = commands.refusal("up")
    finally:
        listener.kill()
        listener.wait()
    port = commands.variables["FLOWER_PORT"]
    assert said == f"port {port} is taken by another program; stop it, or set FLOWER_PORT"


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False
