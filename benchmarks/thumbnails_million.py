"""Look over a million pictures: dry run, first batch, counts, memory, runs that find nothing.

The rows share the files of a few real pictures. The bound is absolute: two seconds for a dry run.
"""

import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from PIL import Image
from sqlalchemy import Engine, text

from benchmarks.harness.report import Goal, note, tell
from benchmarks.harness.stage import Stage, stage
from genonaut.clients.storage import Storage
from genonaut.db.models import TaskRun
from genonaut.db.session import make_engine
from genonaut.domain import runs, thumbnail_counts
from genonaut.domain.runs import Trigger
from genonaut.domain.thumbnails import Scope, shards, standard
from genonaut.worker import run
from genonaut.worker.services import Services
from genonaut.worker.tasks.thumbnails import backfill

GOAL = Goal("thumbnails_million", "s, dry run over 1,000,000 rows", 1.0, better="lower")
ROWS = 1_000_000
BOUND_S = 2.0
FILES = 5
BATCHES = 5

_FILL = """
INSERT INTO users (id, username) VALUES (gen_random_uuid(), 'bench');
INSERT INTO content_items (title, creator_id)
SELECT 'x', users.id FROM users, generate_series(1, {rows});
INSERT INTO content_images
    (content_id, position, storage_key, sha256, mime, width, height, bytes)
SELECT id, 0, keys[1 + id % {files}], encode(sha256(id::text::bytea), 'hex'),
    'image/png', 832, 1216, 1300000
FROM content_items, (SELECT ARRAY[{keys}] AS keys);
"""


def patient(on: Stage) -> Engine:
    """Connect without a limit on how long an answer takes."""
    return make_engine(on.settings.database_url, pool_size=1)


def fill(on: Stage, keys: list[str]) -> None:
    """Make a million rows that name a few files."""
    quoted = ", ".join(f"'{key}'" for key in keys)
    with patient(on).begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        for statement in _FILL.format(rows=ROWS, files=FILES, keys=quoted).split(";"):
            if statement.strip():
                connection.execute(text(statement))
    vacuum(on)


def vacuum(on: Stage) -> None:
    """Do what autovacuum has done by the time a collection is that large."""
    with patient(on).connect() as connection:
        settled = connection.execution_options(isolation_level="AUTOCOMMIT")
        settled.execute(text("SET statement_timeout = 0"))
        settled.execute(text("VACUUM ANALYZE content_items, content_images"))


class Counted:
    """Count the calls of a store."""

    def __init__(self, storage: Storage) -> None:
        self.calls = 0
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        """Give what the store has, and count it."""
        self.calls += 1
        return getattr(self._storage, name)


def tree(root: Path) -> dict[str, tuple[int, int]]:
    """Give every stored file with its inode and when it was last changed in any way."""
    return {str(path): (path.stat().st_ino, path.stat().st_ctime_ns) for path in root.rglob("*")}


def find_nothing(on: Stage, services: Services) -> None:
    """Run with nothing to do, and see that no file is touched nor even asked for.

    Raises: RuntimeError: one is, or something is found.
    """
    store = Counted(services.storage)
    idle = replace(services, storage=cast(Storage, store))
    before = tree(on.settings.storage_path)
    for only in ("missing", "outdated", "failed"):
        took_s, row = go(idle, only=only)
        found = row.result["images"]
        note(f"{only}, with nothing to do: {took_s:.2f} s, {found} found, {store.calls} calls")
        if found or store.calls or tree(on.settings.storage_path) != before:
            raise RuntimeError(f"{only}: {found} found, {store.calls} calls of the store")


def go(services: Services, *, dry_run: bool = False, **params: Any) -> tuple[float, TaskRun]:
    """Work on a run in this process; give its time and its row."""
    request = backfill.request(backfill.validate(params), trigger=Trigger.CLI, dry_run=dry_run)
    with services.database.transaction() as session:
        run_id = runs.trigger(session, request).run.id
    began = time.perf_counter()
    run.run(services, backfill, run_id, worker="bench")
    took_s = time.perf_counter() - began
    with services.database.transaction() as session:
        row = session.get_one(TaskRun, run_id)
    if row.status != "completed":
        raise RuntimeError(f"{row.error_code}: {row.error_message}")
    return took_s, row


def main() -> None:
    """Measure each thing a few times and tell the worst."""
    with stage() as on:
        services = Services.connect(on.settings)
        pictures = [Image.effect_noise((832, 1216), 20 + n).convert("RGB") for n in range(FILES)]
        keys = []
        for picture in pictures:
            path = Path(on.settings.var_dir) / "one.png"
            picture.resize((208, 304)).resize(picture.size).save(path)
            keys.append(services.storage.put(path.read_bytes(), mime="image/png"))
        began = time.perf_counter()
        fill(on, keys)
        note(f"filled in {time.perf_counter() - began:.0f} s")
        usual = standard(on.settings.thumbnail_sizes, on.settings.thumbnail_formats)

        dry = [go(services, dry_run=True) for _ in range(3)]
        note(f"dry run: {[round(s, 2) for s, _ in dry]} s, {dry[0][1].result}")
        shared, _ = go(services, dry_run=True, only="outdated")
        note(f"dry run of outdated: {shared:.2f} s")

        with on.database.transaction() as session:
            began = time.perf_counter()
            ranges = shards(session, Scope(usual), 16)
            note(f"cut into {len(ranges)} shards in {time.perf_counter() - began:.2f} s")

        first_s, _ = go(services, limit=1, batch_size=1)
        note(f"start to the end of a first batch of one: {first_s:.2f} s")
        go(services, limit=200)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took_s, row = go(services, limit=100 * BATCHES)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        note(f"{row.result['made']} pictures in {took_s:.0f} s; memory grew by {grown} MiB")

        with on.database.transaction() as session:
            began = time.perf_counter()
            found = thumbnail_counts.count(session, usual).public()
            note(f"counts: {time.perf_counter() - began:.2f} s, {found['missing']} missing")
        with patient(on).begin() as connection:
            connection.execute(text("SET LOCAL statement_timeout = 0"))
            connection.execute(
                text("UPDATE content_images SET thumb_spec = :spec"), {"spec": usual.hash}
            )
        with on.database.transaction() as session:
            began = time.perf_counter()
            found = thumbnail_counts.count(session, usual).public()
            note(f"counts before a vacuum: {time.perf_counter() - began:.2f} s")
        vacuum(on)
        with on.database.transaction() as session:
            began = time.perf_counter()
            found = thumbnail_counts.count(session, usual).public()
            note(f"counts: {time.perf_counter() - began:.2f} s, {found['current']} current")
        find_nothing(on, services)
        services.database.close()
        services.events.close()
    tell(GOAL, [(seconds, BOUND_S) for seconds, _ in dry])


if __name__ == "__main__":
    main()
