"""One new file is a task: listed, run, watched, scheduled, cancelled, repeated and documented."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from genonaut.api.config import ROOT
from genonaut.local import processes
from tests.cli.conftest import Commands

GREET = '''
"""Greet people."""

import time

from pydantic import Field

from genonaut.worker.schedules import schedule
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task


class Params(TaskParams):
    """Whom to greet."""

    name: str = Field(default="you", min_length=1, description="Who is greeted.")
    times: int = Field(default=1, ge=1, le=10_000, description="How often.")


class Result(TaskResult):
    """What was said."""

    said: str


@task("shop.greet", title="Greet", overlap_key=lambda params: params.name)
def greet(ctx: TaskContext, params: Params) -> Result:
    """Say hello, as often as asked."""
    for n in range(params.times):
        if n:
            time.sleep(0.05)
        ctx.progress(n + 1, params.times)
    ctx.log.info("greeted", name=params.name)
    return Result(said=f"Hello {params.name}")


schedule("shop.greet.often", greet, every=2, params=Params(name="everyone"))
'''


@pytest.mark.slow
def test_a_file_in_a_package_of_ones_own_is_a_task(commands: Commands, tmp_path: Path) -> None:
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "greet.py").write_text(GREET)
    commands.variables |= {
        "TASK_PACKAGES": "shop",
        "PYTHONPATH": f"{tmp_path}:{ROOT}",
        "FLOWER_ACTIVE": "false",
    }
    started = commands.start("up")
    commands.until_ready(started)

    def as_json(*words: str) -> Any:
        return json.loads(commands(*words, "--json").stdout)

    # The catalogue, over HTTP and at the terminal.
    shown = commands.get("/api/v1/admin/tasks/shop.greet").json()
    assert shown["params_schema"]["properties"]["times"]["maximum"] == 10_000
    assert "Say hello, as often as asked." in commands("tasks", "show", "shop.greet").stdout

    # A run, and what is wrong with one.
    assert "Ada" in commands("tasks", "run", "shop.greet", "name=Ada", "--wait").stdout
    run = as_json("runs", "list", "--task", "shop.greet")[-1]
    assert commands.refusal("tasks", "run", "shop.greet", "times=no").startswith("params.times")
    assert commands.refusal("tasks", "run", "shop.greet", "whom=Ada").startswith("params.whom")
    assert run["trigger"] in {"cli", "schedule"}

    # The schedule: one run per due time.
    def scheduled() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = as_json("runs", "list", "--schedule", "shop.greet.often")
        return [row for row in rows if row["status"] == "completed"]

    assert processes.wait_until(lambda: len(scheduled()) >= 2, 60, 1)
    rows = scheduled()
    assert len({row["due_at"] for row in rows}) == len(rows)
    assert {row["result"]["said"] for row in rows} == {"Hello everyone"}
    assert {row["trigger"] for row in rows} == {"schedule"}

    # Cancelled within five seconds, and repeated.
    long = as_json("tasks", "run", "shop.greet", "name=Bob", "times=5000")["id"]

    def is_cancelled() -> bool:
        return bool(as_json("runs", "show", str(long))["status"] == "cancelled")

    assert processes.wait_until(
        lambda: as_json("runs", "show", str(long))["progress"].get("done", 0) > 0, 30, 0.5
    )
    commands("runs", "cancel", str(long))
    began = time.monotonic()
    assert processes.wait_until(is_cancelled, 10, 0.2)
    assert time.monotonic() - began < 5 + 2  # a command takes a second by itself
    again = as_json("runs", "retry", str(long))
    assert (again["retry_of"], again["params"]["name"]) == (long, "Bob")
    commands("runs", "cancel", str(again["id"]))

    # Its page.
    code = (
        "from genonaut.worker import discovery, handbook;"
        "print(handbook.page(discovery.catalogue().values()))"
    )
    page = subprocess.run(
        [sys.executable, "-c", code],
        env=commands.variables,
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "## shop.greet" in page
    assert "| `times` | `1` | How often. |" in page
    assert started.end() == 0
