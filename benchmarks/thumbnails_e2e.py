"""Backfill files and rows with a real worker, against the bare rendering loop on as many cores.

The loop reads the same files and makes the same thumbnails, in processes of its own, and keeps
nothing: what ours takes longer is storing them safely, the rows, the checkpoints and the queue.
"""

import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageChops
from sqlalchemy import select, text

from benchmarks.harness.report import Goal, in_turns, note, tell
from benchmarks.harness.stage import Stage, stage
from genonaut.clients.storage import LocalStorage
from genonaut.core.thumbnails import ThumbSpec, thumbnails
from genonaut.db.models import ContentImage, ContentItem, TaskRun
from genonaut.domain import runs
from genonaut.domain.runs import Trigger
from genonaut.worker.dispatch import Dispatcher
from genonaut.worker.queue_app import celery, configuration
from genonaut.worker.tasks.thumbnails import backfill

GOAL = Goal("thumbnails_e2e", "pictures/s, files and rows", 0.85)
PICTURES = 400
CORES = 2
ROUNDS = 3
PATIENCE_S = 600.0
SIZE = (832, 1216)
_SPEC = ThumbSpec()


def pictures(count: int) -> list[bytes]:
    """Draw pictures about as hard to pack as those of a model, each its own, saved as ComfyUI does.

    Soft shapes with fine grain: 1.2 MB as a PNG of this size.
    """
    soft = Image.effect_noise((26, 38), 90).resize(SIZE, Image.Resampling.BICUBIC)
    grain = Image.effect_noise(SIZE, 6)
    bands = [ImageChops.overlay(ImageChops.offset(soft, n * 97, n * 31), grain) for n in range(3)]
    drawn = Image.merge("RGB", bands)

    def one(n: int) -> bytes:
        out = BytesIO()
        ImageChops.offset(drawn, n * 7, n * 13).save(out, "PNG", compress_level=4)
        return out.getvalue()

    with ThreadPoolExecutor(CORES) as pool:
        return list(pool.map(one, range(count)))


def fill(on: Stage) -> list[Path]:
    """Store the pictures and their rows; give their files."""
    storage = LocalStorage(on.settings.storage_path, min_free_bytes=0)
    (account,) = on.make_accounts(1)
    paths = []
    with on.database.transaction() as session:
        for data in pictures(PICTURES):
            key = storage.put(data, mime="image/png")
            paths.append(on.settings.storage_path / key)
            item = ContentItem(title="x", creator_id=account.user_id)
            session.add(item)
            session.flush()
            session.add(
                ContentImage(
                    content_id=item.id,
                    position=0,
                    storage_key=key,
                    sha256=Path(key).stem,
                    mime="image/png",
                    width=SIZE[0],
                    height=SIZE[1],
                    bytes=len(data),
                )
            )
    note(f"{PICTURES} pictures of {sum(p.stat().st_size for p in paths) / PICTURES / 1e6:.2f} MB")
    return paths


def loop(path: Path) -> int:
    """Make one picture's thumbnails and forget them."""
    return len(thumbnails(path.read_bytes(), _SPEC))


def bare(pool: ProcessPoolExecutor, paths: list[Path]) -> float:
    """Give the pictures a second of the bare loop."""
    began = time.perf_counter()
    for _ in pool.map(loop, paths, chunksize=4):
        pass
    return len(paths) / (time.perf_counter() - began)


def forget(on: Stage) -> None:
    """Take every thumbnail away, row and file."""
    storage = LocalStorage(on.settings.storage_path, min_free_bytes=0)
    with on.database.transaction() as session:
        for made in session.scalars(select(ContentImage.thumbnails)):
            for entry in made.values():
                storage.delete(entry["key"])
        session.execute(text("UPDATE content_images SET thumb_spec = NULL, thumbnails = '{}'"))


def ours(on: Stage) -> float:
    """Give the pictures a second of a whole run, from the request to its end."""
    forget(on)
    request = backfill.request(backfill.validate({"threads": CORES}), trigger=Trigger.CLI)
    began = time.perf_counter()
    with on.database.transaction() as session:
        run_id = runs.trigger(session, request).run.id
    while True:
        with on.database.transaction() as session:
            row = session.get_one(TaskRun, run_id)
        if row.status == "completed":
            break
        if row.status == "failed" or time.perf_counter() - began > PATIENCE_S:
            raise RuntimeError(f"the run is {row.status}: {row.error_message}")
        time.sleep(0.05)
    took_s = time.perf_counter() - began
    if row.result is None or row.result["made"] != PICTURES:
        raise RuntimeError(f"it made {row.result}")
    return PICTURES / took_s


def main() -> None:
    """Measure both in turns."""
    with stage(storage_min_free_mb=0) as on, ProcessPoolExecutor(CORES) as pool:
        celery.conf.update(configuration(on.settings))
        dispatcher = Dispatcher(on.database, on.settings)
        dispatcher.start()
        on.database.sinks.append(dispatcher.on_events)
        worker = ["-m", "celery", "--quiet", "--app=genonaut.worker.queue_app", "worker"]
        flags = ["--concurrency=2", "--without-gossip", "--without-mingle"]
        on.run(*worker, "--queues=maintenance", *flags)
        paths = fill(on)
        bare(pool, paths[:40])
        ours(on)
        pairs = in_turns(ROUNDS, lambda: ours(on), lambda: bare(pool, paths))
        dispatcher.stop()
    tell(GOAL, pairs)


if __name__ == "__main__":
    main()
