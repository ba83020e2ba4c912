"""Backfills of thumbnails, with real workers that are killed at any point."""

import io
import os
import random
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select

from genonaut.clients.storage import LocalStorage
from genonaut.db.models import ContentImage, ContentItem, TaskRun
from genonaut.worker import discovery
from tests.core.test_imaging_hostile import HOSTILE, WHOLE, jpeg_of_scans
from tests.reliability.program import until
from tests.reliability.rig import MEASURED, Rig

BACKFILL = "thumbnails.backfill"
QUICK = {"LEASE_S": "1.6", "LEASE_RENEW_S": "0.5", "LEASE_GRACE_S": "0.2"}
SPREAD = [3, 91, 17, 60, 44, 8, 75, 29]


def png(n: int) -> bytes:
    ramp = Image.linear_gradient("L")
    turned = ramp.rotate(n % 4 * 90).point(lambda value: (value * SPREAD[n % 8] + n) % 256)
    out = io.BytesIO()
    Image.merge("RGB", (ramp, turned, ramp.rotate(180))).resize((600, 400)).save(out, "PNG")
    return out.getvalue()


def fill(rig: Rig, count: int, *, broken: int | None = None) -> None:
    """Store pictures without thumbnails; one of them is no picture."""
    store(rig, [b"no picture" if n == broken else png(n) for n in range(count)])


def store(rig: Rig, pictures: Iterable[bytes]) -> list[Path]:
    """Store files as pictures without thumbnails, whatever they are; give their paths."""
    discovery.load()
    root = rig.settings().storage_path
    storage = LocalStorage(root, min_free_bytes=0)
    paths = []
    with rig.database.transaction() as session:
        for data in pictures:
            key = storage.put(data, mime="image/png")
            item = ContentItem(title="x", creator_id=rig.user_id)
            session.add(item)
            session.flush()
            rig.brought.add(item.id)
            session.add(
                ContentImage(
                    content_id=item.id,
                    position=0,
                    storage_key=key,
                    sha256=Path(key).stem,
                    mime="image/png",
                    width=600,
                    height=400,
                    bytes=len(data),
                )
            )
            paths.append(root / key)
    return paths


def state(rig: Rig) -> tuple[list[tuple[Any, ...]], dict[str, bytes]]:
    """Give what the rows say of thumbnails, and every file."""
    with rig.database.transaction() as session:
        rows = session.execute(
            select(
                ContentImage.id,
                ContentImage.thumbnails,
                ContentImage.thumb_spec,
                ContentImage.thumb_error,
            ).order_by(ContentImage.id)
        )
        found = [tuple(row) for row in rows]
    root = rig.settings().storage_path
    files = {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".tmp" not in path.parts
    }
    return found, files


def shards(rig: Rig, parent_id: int) -> list[TaskRun]:
    with rig.database.transaction() as session:
        query = select(TaskRun).where(TaskRun.parent_id == parent_id).order_by(TaskRun.id)
        return list(session.scalars(query))


def of_one_colour(size: tuple[int, int], kind: str = "PNG", mode: str = "L") -> bytes:
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind)
    return out.getvalue()


def hostile() -> list[bytes]:
    """Give files found in the wild, and worse ones, each different from all others."""
    cut = [data[: len(data) * tenths // 10] for data in WHOLE for tenths in range(10)]
    odd = [
        *(of_one_colour(size, kind) for size in LONG for kind in ("PNG", "JPEG", "TIFF")),
        of_one_colour((6000, 6000), mode="RGB"),
        of_one_colour((4500, 4500), mode="RGBA"),
        jpeg_of_scans(1_000_000, (6000, 6000)),
        jpeg_of_scans(150, (6000, 6000)),
        bytes(2**20),
    ]
    return list(dict.fromkeys((*WHOLE, *cut, *HOSTILE.values(), *odd)))


LONG = [(65_000, 1), (1, 65_000)]
SPOILT: list[Callable[[Path], object]] = [
    Path.mkdir,
    Path.touch,
    os.mkfifo,
    lambda path: path.symlink_to(path),
    lambda path: path.symlink_to("/dev/zero"),
    lambda path: None,
]
"""What may be in a file's place."""


@pytest.mark.slow
def test_f35_hostile_files_are_listed_and_cost_neither_worker_nor_memory(rig: Rig) -> None:
    files = hostile()
    paths = store(rig, (*files, *(png(n) for n in range(len(SPOILT)))))
    for path, spoil in zip(paths[len(files) :], SPOILT, strict=True):
        path.unlink()
        spoil(path)
    worker = rig.runner(slots=1)
    crew, before = worker.children(), worker.memory()
    run_id = rig.trigger(BACKFILL)
    peak = 0

    def is_done() -> bool:
        nonlocal peak
        peak = max(peak, worker.memory())
        return rig.run_row(run_id).status not in {"pending", "running"}

    until(is_done, "the backfill is over", 120)
    run = rig.wait_for_run(run_id, "completed")
    assert run.result is not None
    assert (run.attempt, run.result["images"]) == (1, len(paths))
    assert run.result["made"] + run.result["failed"] == len(paths)
    assert run.failed_items == run.result["failed"]
    rows, _ = state(rig)
    assert all(bool(made) != bool(error) for _, made, _, error in rows)
    assert all(error for *_, error in rows[len(files) :])
    assert all(made for _, made, *_ in rows[: len(set(WHOLE))])
    assert set(crew) <= set(worker.children()), "no slot has died"
    decoders = set(worker.children()) - set(crew)
    assert len(decoders) <= 2
    until(lambda: not any(worker.is_busy(pid) for pid in decoders), "none hangs", 5)
    MEASURED.append(f"F35, memory over {len(paths)} files: +{(peak - before) / 2**20:.0f} MiB")
    assert peak - before < 300 * 2**20


def test_f38_a_killed_backfill_goes_on_from_its_checkpoint(rig: Rig) -> None:
    fill(rig, 40, broken=30)
    worker = rig.runner("one", **QUICK)
    run_id = rig.trigger(BACKFILL, batch_size=4, rate=30)
    until(lambda: rig.run_row(run_id).progress.get("done", 0) >= 16, "40 % are done")
    worker.kill9()
    checkpoint = rig.run_row(run_id).checkpoint
    assert checkpoint is not None
    assert checkpoint["made"] >= 12, "at most a batch is done again"
    rig.runner("two", **QUICK)
    run = rig.wait_for_run(run_id, "completed", 60)
    assert run.result is not None
    counts = {name: run.result[name] for name in ("images", "made", "failed")}
    assert counts == {"images": 40, "made": 39, "failed": 1}
    assert (run.attempt, run.failed_items, run.progress["percent"]) == (2, 1, 100)
    rows, _ = state(rig)
    assert [bool(error) for *_, error in rows].count(True) == 1
    again = rig.wait_for_run(rig.trigger(BACKFILL), "completed", 30)
    assert again.result is not None
    assert again.result["images"] == 0


@pytest.mark.slow
def test_shards_killed_at_random_points_leave_what_an_undisturbed_run_leaves(
    rig: Rig, tmp_path: Path
) -> None:
    calm = rig.neighbour(tmp_path / "calm")
    for one in (rig, calm):
        fill(one, 90, broken=50)
    calm.runner("calm")
    calm.wait_for_run(calm.trigger(BACKFILL), "completed", 60)
    calm.stop()

    worker = rig.runner("one", **QUICK)
    run_id = rig.trigger(BACKFILL, parallelism=2, batch_size=3, rate=12)
    chance = random.Random(20)

    def are_worked_on(attempt: int) -> bool:
        found = [(part.status, part.attempt) for part in shards(rig, run_id)]
        return found == [("running", attempt)] * 2

    for number in range(10):
        until(partial(are_worked_on, number + 1), "both shards are worked on", 30)
        time.sleep(chance.uniform(0, 0.8))
        if number == 4:
            worker.kill9()
            worker = rig.runner("two", **QUICK)
        else:
            worker.kill_children()
        assert rig.run_row(run_id).status == "pending", "who shared the work out holds no slot"
    run = rig.wait_for_run(run_id, "completed", 90)
    assert run.result is not None
    assert (run.result["images"], run.result["made"], run.result["failed"]) == (90, 89, 1)
    assert (run.progress["done"], run.progress["percent"], run.failed_items) == (90, 100, 1)
    assert max(part.attempt for part in shards(rig, run_id)) > 5
    assert state(rig) == state(calm)


@pytest.mark.slow
def test_one_slot_is_enough_for_a_shared_backfill_and_a_cancel_reaches_its_parts(rig: Rig) -> None:
    fill(rig, 30)
    rig.runner(slots=1)
    run_id = rig.trigger(BACKFILL, parallelism=3, batch_size=2, only="all")
    assert rig.wait_for_run(run_id, "completed", 60).result is not None
    slow = rig.trigger(BACKFILL, parallelism=3, batch_size=1, only="all", rate=1)
    until(lambda: any(part.status == "running" for part in shards(rig, slow)), "a part runs")
    rig.cancel_run(slow)
    until(lambda: {part.status for part in shards(rig, slow)} == {"cancelled"}, "all parts end", 20)
    assert rig.run_row(slow).status == "cancelled"


@pytest.mark.slow
def test_f41_a_job_begins_at_once_beside_a_backfill(rig: Rig) -> None:
    fill(rig, 100)
    rig.runner()
    rig.worker()
    run_id = rig.trigger(BACKFILL, only="all", parallelism=2, threads=1, rate=2)
    until(lambda: rig.run_row(run_id).progress.get("done", 0) > 0, "it makes thumbnails")
    began = time.monotonic()
    job_id = rig.submit()
    until(lambda: rig.job(job_id).status != "pending", "the job is begun", 2)
    rig.measure("F41, job to its claim beside a backfill", began)
    rig.wait_for(job_id, "completed")
    rig.cancel_run(run_id)
