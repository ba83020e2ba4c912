"""The Makefile: every target is there, in the help, and does what its name says."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ("dev", "test", "demo")
PLAIN = (
    "help", "demo", "test", "test-reliability", "test-commands", "lint", "check", "bench", "clean",
    "docs", "screenshots", "setup", "soak",
)  # fmt: skip
COMMANDS = {
    "up": "up --env {env}",
    "api": "up --env {env} --host 0.0.0.0",
    "celery": "up --env {env} --only workers",
    "beat": "up --env {env} --only beat",
    "flower": "up --env {env} --only flower",
    "migrate": "db upgrade --env {env}",
    "redis-keys": "redis keys --env {env}",
    "redis-info": "redis info --env {env}",
    "redis-flush": "redis flush --env {env}",
    "backup": "db backup --env {env}",
    "restore": 'db restore --env {env} "some file.tar"',
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with a space in its name that looks as if set-up had been done."""
    folder = tmp_path / "check out"
    (folder / ".venv").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, folder)
    (folder / ".venv" / ".ready").touch()
    return folder


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    # What the make that runs these tests was given is not meant for this one.
    given = ("MAKEFLAGS", "MAKEOVERRIDES", "ARGS", "JOBS", "API_PORT")
    alone = ["env", *(f"--unset={name}" for name in given)]
    return subprocess.run(
        [*alone, "make", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )


def commands(folder: Path, *words: str) -> list[str]:
    result = make(folder, "-n", *words)
    assert result.returncode == 0, result.stderr
    return [line.strip() for line in result.stdout.splitlines()]


def test_alone_prints_the_help_with_every_target(checkout: Path) -> None:
    result = make(checkout)
    assert result.returncode == 0
    assert result.stderr == ""
    entries = [line for line in result.stdout.splitlines() if line.startswith("  ")]
    listed = {line.split()[0] for line in entries}
    assert listed == {*PLAIN, *(f"{command}-ENV" for command in COMMANDS)}
    assert max(map(len, entries)) <= 100


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_each_environment_has_each_command(checkout: Path, env: str) -> None:
    targets = [f"{command}-{env}" for command in COMMANDS]
    printed = commands(checkout, *targets, "FILE=some file.tar")
    reload = " --reload" if env == "dev" else ""
    for command, words in COMMANDS.items():
        line = f".venv/bin/python -m genonaut {words.format(env=env)}"
        assert line + (reload if command == "api" else "") in printed


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("demo",), ".venv/bin/python -m genonaut demo"),
        (("demo", "ONCE=1"), ".venv/bin/python -m genonaut demo --once"),
        (("redis-flush-test", "CONFIRM=yes"),
         ".venv/bin/python -m genonaut redis flush --env test --yes"),
        (("bench", "BENCH=create_job"), ".venv/bin/python benchmarks/run.py create_job"),
        (("test", "JOBS=3"), '.venv/bin/python -m pytest -m "not slow" -n 3 --dist loadfile'),
        (("test-reliability", "REPEAT=2", "JOBS=1"),
         ".venv/bin/python -m pytest tests/reliability -n 1 --dist worksteal  || exit 1; \\"),
        (("soak",), ".venv/bin/python -m tests.reliability.soak --minutes 5"),
        (("soak", "MINUTES=1", "SEED=7"),
         ".venv/bin/python -m tests.reliability.soak --minutes 1 --seed 7"),
        (("lint",), ".venv/bin/lint-imports"),
    ],
)  # fmt: skip
def test_variables_reach_the_command(checkout: Path, words: tuple[str, ...], expected: str) -> None:
    assert expected in commands(checkout, *words)


def test_an_environment_that_does_not_exist_has_no_targets(checkout: Path) -> None:
    assert make(checkout, "-n", "up-prod").returncode == 2


def test_a_restore_without_a_file_says_so(checkout: Path) -> None:
    result = make(checkout, "restore-dev")
    assert result.returncode == 2
    assert result.stderr.splitlines()[0] == "Say which: make restore-dev FILE=path"


def test_flower_is_on_unless_told_and_the_default_overrules_no_file(checkout: Path) -> None:
    text = (checkout / "Makefile").read_text()
    assert "FLOWER_ACTIVE ?= true" in text
    with (checkout / "Makefile").open("a") as file:
        file.write('\nprobe:\n\t@echo "[$$FLOWER_ACTIVE]"\n')
    assert make(checkout, "-s", "probe").stdout.strip() == "[]"
    assert make(checkout, "-s", "probe", "FLOWER_ACTIVE=false").stdout.strip() == "[false]"


def test_the_port_of_the_api_is_told_by_its_setting_alone(checkout: Path) -> None:
    python = checkout / ".venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "[$API_PORT] $*"\n')
    python.chmod(0o755)
    words = "-m genonaut up --env test --host 0.0.0.0"
    assert make(checkout, "-s", "api-test").stdout.strip() == f"[] {words}"
    assert make(checkout, "-s", "api-test", "API_PORT=8002").stdout.strip() == f"[8002] {words}"


def test_an_old_python_is_one_clear_line(checkout: Path) -> None:
    (checkout / ".venv" / ".ready").unlink()
    result = make(checkout, "setup", "PYTHON=false")
    assert result.returncode == 2
    assert result.stderr.splitlines()[0].startswith("Genonaut needs Python 3.11 or newer")


def test_nothing_ever_flushes_every_database() -> None:
    for path in (ROOT / "Makefile", ROOT / ".ci" / "run", *(ROOT / "genonaut").rglob("*.py")):
        assert "FLUSHALL" not in path.read_text().upper(), path


def test_continuous_integration_runs_the_two_targets() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert script.index("make check") < script.index("make test-reliability")
    assert "|| true" not in script


def test_of_the_two_targets_one_leaves_out_what_the_other_runs() -> None:
    quick = 'pytest -m "not slow"'
    assert quick in (ROOT / "Makefile").read_text()
    assert 'make test-reliability ARGS="-m slow"\n' in (ROOT / ".ci" / "run").read_text()
