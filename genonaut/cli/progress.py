"""Show jobs drawing, a bar each."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from genonaut.cli.output import console
from genonaut.cli.remote import Api

_WIDTH = 34
_PHASES = {
    "queued": "waiting for a worker",
    "submitting": "submitting",
    "queued_at_backend": "waiting for ComfyUI",
    "waiting_for_backend": "ComfyUI does not answer",
    "waiting_for_storage": "no room to store it",
    "waiting_to_retry": "will be tried again",
    "drawing": "drawing",
    "collecting": "collecting",
}
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow"}


def describe(job: dict[str, Any]) -> str:
    """Say in a few words where a job stands."""
    if job["status"] in _COLOURS:
        colour = _COLOURS[job["status"]]
        return f"[{colour}]{job['status']}[/{colour}]"
    progress = job.get("progress") or {}
    phase = _PHASES.get(progress.get("phase", ""), str(job["status"]))
    if progress.get("phase") == "queued_at_backend" and progress.get("position"):
        phase += f" ({progress['position']} in line)"
    if progress.get("steps"):
        phase += f" {progress['step']}/{progress['steps']}"
    return phase


@contextmanager
def _bars() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield progress


def watch(api: Api, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Show a progress bar for each job until all have ended; give their last rows."""
    with _bars() as progress, ThreadPoolExecutor(max(1, len(jobs))) as pool:
        tasks = [progress.add_task(_label(job), total=100, state=describe(job)) for job in jobs]
        return list(
            pool.map(lambda pair: _follow(api, progress, *pair), zip(jobs, tasks, strict=True))
        )


def _follow(api: Api, progress: Progress, job: dict[str, Any], task: TaskID) -> dict[str, Any]:
    for row in api.watch(job["id"]):
        percent = (row.get("progress") or {}).get("percent", 0)
        progress.update(task, completed=percent, state=describe(row))
        job = row
    progress.stop_task(task)
    return job


def _label(job: dict[str, Any]) -> str:
    prompt = " ".join(job["prompt"].split())
    shown = prompt if len(prompt) <= _WIDTH else prompt[: _WIDTH - 1] + "…"
    return escape(shown.ljust(_WIDTH))
