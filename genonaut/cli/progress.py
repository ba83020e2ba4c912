"""Show jobs and runs at work, a bar each."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from genonaut.cli.output import console, errors
from genonaut.cli.remote import FINAL, JOB, Api, Kind

_WIDTH = 34
_PHASES = {
    "queued": "waiting for a worker",
    "submitting": "submitting",
    "queued_at_backend": "waiting for ComfyUI",
    "waiting_for_backend": "ComfyUI does not answer",
    "waiting_for_storage": "no room to store it",
    "waiting_to_retry": "will be tried again",
    "waiting_for_children": "waiting for the runs it started",
    "paused": "paused",
    "drawing": "drawing",
    "collecting": "collecting",
}
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "skipped": "yellow"}


def describe(row: dict[str, Any]) -> str:
    """Say in a few words where a job or run stands."""
    if row["status"] in _COLOURS:
        colour = _COLOURS[row["status"]]
        return f"[{colour}]{row['status']}[/{colour}]"
    progress = row.get("progress") or {}
    phase = _PHASES.get(progress.get("phase", ""), str(row["status"]))
    if row.get("held_back"):
        phase = "waiting for another run"
    if progress.get("phase") == "queued_at_backend" and progress.get("position"):
        phase += f" ({progress['position']} in line)"
    if progress.get("steps"):
        phase += f" {progress['step']}/{progress['steps']}"
    if "done" in progress:
        phase += f" {counted(progress)}"
    is_at_work = row["status"] == "running" or progress.get("phase") == "waiting_for_children"
    if is_at_work and progress.get("message"):
        phase += escape(f": {progress['message']}")
    return phase


def counted(progress: dict[str, Any]) -> str:
    """Say how many of how many a run has done; empty if it does not say."""
    total = f"/{progress['total']}" if "total" in progress else ""
    return f"{progress['done']}{total}" if "done" in progress else ""


def ending(row: dict[str, Any], kind: Kind = JOB) -> str:
    """Say in a line how a job or run ended, and why."""
    error = row.get("error") or {}
    return f"{kind.name} {row['id']} {row['status']}" + (
        f": {error['message']} ({error['code']})" if error else ""
    )


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


def wait(
    api: Api, row: dict[str, Any], *, env: str, with_bar: bool, kind: Kind = JOB
) -> dict[str, Any]:
    """Follow a job or run to its end and give its last row; Ctrl-C says that it goes on."""
    try:
        if with_bar:
            [row] = watch(api, [row], kind)
        else:
            *_, row = api.watch(row["id"], kind)
    except KeyboardInterrupt:
        name = f"{kind.name} {row['id']}"
        errors.print(f"{name} goes on; see: genonaut {kind.name}s show {row['id']} --env {env}")
        raise
    return row


def watch(api: Api, rows: list[dict[str, Any]], kind: Kind = JOB) -> list[dict[str, Any]]:
    """Show a progress bar for each job or run until all have ended; give their last rows.

    Each is followed by a thread that ends with the process, so Ctrl-C need not wait for it. A run
    that does not say how much there is to do has a bar that only shows that it is alive.
    """
    rows = list(rows)
    news: SimpleQueue[tuple[int, dict[str, Any] | Exception]] = SimpleQueue()
    with _bars() as progress:
        # None stays None in an update, a number becomes the total.
        first = None if kind.may_have_no_end else 100
        tasks = [progress.add_task(_label(row), total=first, state=describe(row)) for row in rows]
        for place, row in enumerate(rows):
            threading.Thread(
                target=_follow, args=(api, kind, row["id"], place, news), daemon=True
            ).start()
        unfinished = set(range(len(rows)))
        while unfinished:
            place, found = news.get()
            if isinstance(found, Exception):
                raise found
            rows[place] = found
            percent = (found.get("progress") or {}).get("percent")
            has_ended = found["status"] in FINAL
            total = first if percent is None and not has_ended else 100
            progress.update(
                tasks[place], completed=percent or 0, total=total, state=describe(found)
            )
            if has_ended:
                progress.stop_task(tasks[place])
                unfinished.remove(place)
    return rows


def _follow(
    api: Api,
    kind: Kind,
    row_id: int,
    place: int,
    news: SimpleQueue[tuple[int, dict[str, Any] | Exception]],
) -> None:
    try:
        for row in api.watch(row_id, kind):
            news.put((place, row))
    except Exception as error:  # noqa: BLE001 - raised again by the thread that shows the bars
        news.put((place, error))


def _label(row: dict[str, Any]) -> str:
    words = " ".join(str(row.get("prompt") or row.get("task")).split())
    shown = words if len(words) <= _WIDTH else words[: _WIDTH - 1] + "…"
    return escape(shown.ljust(_WIDTH))
