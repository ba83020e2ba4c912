"""``storage.sweep_orphans`` from an operator's view; ``tests/domain`` has the rules."""

import os
import time
from pathlib import Path

import pytest

from genonaut.db.models import ContentImage, ContentItem
from genonaut.domain import content, run_history, runs
from genonaut.worker.tasks import storage as module
from genonaut.worker.tasks.storage import Result, sweep_orphans
from genonaut.worker.tasks.thumbnails import backfill
from tests.worker.conftest import work_on

DAY_S = 86_400


@pytest.fixture
def age(settings):
    """Make stored files look as if they were stored so many hours ago."""

    def make_old(*keys, hours=25):
        for key in keys:
            path = Path(settings.storage_path) / key
            moment = time.time() - hours * 3600
            os.utime(path, (moment, moment))

    return make_old


def test_old_files_without_a_row_go_and_all_others_stay(run_task, make_image, storage, age):
    image = make_image()
    run_task(backfill)
    old, young = (storage.put(name, mime="image/webp") for name in (b"old", b"young"))
    everything = [file.key for file in storage.list_files()]
    age(*set(everything) - {young})
    dry, _ = run_task(sweep_orphans, dry_run=True)
    assert dry == Result(files=4, orphans=1, orphan_bytes=3, rows=1)
    assert [file.key for file in storage.list_files()] == everything
    swept, _ = run_task(sweep_orphans)
    assert swept == Result(files=4, orphans=1, orphan_bytes=3, removed=1, removed_bytes=3, rows=1)
    assert [file.key for file in storage.list_files()] == sorted(set(everything) - {old})
    assert storage.exists(image.storage_key)
    again, _ = run_task(sweep_orphans)
    assert (again.orphans, again.removed) == (0, 0)


def test_what_killed_writers_left_goes_too(run_task, settings, age):
    folder = Path(settings.storage_path) / ".tmp"
    folder.mkdir(parents=True)
    for name in ("old", "young"):
        (folder / name).write_bytes(b"?")
    age(".tmp/old")
    run_task(sweep_orphans, dry_run=True)
    assert len(list(folder.iterdir())) == 2
    run_task(sweep_orphans)
    assert [path.name for path in folder.iterdir()] == ["young"]


def test_rows_without_files_are_listed_and_lost_thumbnails_made_anew(
    run_task, start_run, make_image, storage, reload, database
):
    images = [make_image() for _ in range(3)]
    run_task(backfill)
    storage.delete(reload(images[0]).storage_key)
    storage.delete(reload(images[1]).thumbnails["256"]["key"])
    dry = start_run(sweep_orphans, dry_run=True)
    assert (dry.result["lost"], dry.result["queued_again"], dry.failed_items) == (1, 1, 1)
    assert reload(images[1]).thumb_spec is not None
    row = start_run(sweep_orphans)
    assert (row.result["lost"], row.result["queued_again"], row.result["rows"]) == (1, 1, 3)
    with database.transaction() as session:
        [failure] = run_history.failures(session, row.id)
    assert failure.ref == f"content/{images[0].content_id}/images/0"
    result, _ = run_task(backfill)
    assert result.made == 1
    assert storage.exists(reload(images[1]).thumbnails["256"]["key"])
    assert run_task(sweep_orphans, look_at_rows=False)[0].rows == 0


def test_rows_deleted_while_they_are_looked_at_are_not_listed(
    start_run, make_image, storage, database, monkeypatch
):
    lost, gone = make_image(), make_image()
    storage.delete(lost.storage_key)
    next_named = module.orphans.next_named

    def read_and_delete(session, **bounds):
        page = next_named(session, **bounds)
        if page:
            creator_id = session.get_one(ContentItem, gone.content_id).creator_id
            for unused in content.delete_own(session, creator_id, gone.content_id):
                storage.delete(unused.storage_key)
        return page

    monkeypatch.setattr(module.orphans, "next_named", read_and_delete)
    row = start_run(sweep_orphans)
    assert (row.result["rows"], row.result["lost"], row.failed_items) == (2, 1, 1)
    with database.transaction() as session:
        [failure] = run_history.failures(session, row.id)
    assert failure.ref == f"content/{lost.content_id}/images/0"


def test_thumbnails_lost_after_a_try_that_failed_are_made_anew_too(
    run_task, make_image, storage, reload, database
):
    image = make_image()
    run_task(backfill)
    with database.transaction() as session:
        session.get_one(ContentImage, image.id).thumb_error = "the renderer died"
    storage.delete(reload(image).thumbnails["256"]["key"])
    assert run_task(sweep_orphans)[0].queued_again == 1
    assert run_task(backfill)[0].made == 1
    assert storage.exists(reload(image).thumbnails["256"]["key"])


def test_too_many_orphans_are_left_alone(start_run, storage, age, monkeypatch):
    monkeypatch.setattr(module, "_FEW", 2)
    keys = [storage.put(b"%d" % n, mime="image/webp") for n in range(3)]
    age(*keys)
    row = start_run(sweep_orphans)
    assert (row.status, row.error_code) == ("failed", "too_many_orphans")
    assert all(map(storage.exists, keys))
    row = start_run(sweep_orphans, max_share=1, limit=2)
    assert (row.status, row.result["removed"], row.result["orphans"]) == ("completed", 2, 3)


def test_a_sweep_goes_on_with_the_rows_it_had_not_come_to(
    start_run, make_image, task_services, storage, monkeypatch
):
    for _ in range(5):
        storage.delete(make_image().storage_key)
    monkeypatch.setattr(module, "_PAGE", 2)
    want_again, calls = module.orphans.want_again, []

    def stop_at_second(session, ids):
        calls.append(ids)
        if len(calls) == 2:
            run_id = calls_run[0]
            runs.request_cancel(session, run_id)
        want_again(session, ids)

    calls_run = []
    progress = module.orphans.last_named

    def note(session):
        calls_run.append(_running(session))
        return progress(session)

    monkeypatch.setattr(module.orphans, "last_named", note)
    monkeypatch.setattr(module.orphans, "want_again", stop_at_second)
    row = start_run(sweep_orphans)
    assert (row.status, row.checkpoint["rows"]) == ("cancelled", 4)
    with task_services.database.transaction() as session:
        request = sweep_orphans.request(sweep_orphans.validate({}), trigger="api")
        again = runs.again(session, row.id, request).run
    again = work_on(task_services, sweep_orphans, again.id)
    assert (again.result["rows"], again.result["lost"]) == (5, 5)


def test_after_its_turn_a_sweep_queues_again_and_comes_to_the_later_rows(
    start_run, run_task, make_image, task_services, storage, monkeypatch
):
    for _ in range(5):
        storage.delete(make_image().storage_key)
    monkeypatch.setattr(module, "_PAGE", 2)
    monkeypatch.setattr(module, "TURN_S", 0)
    row = start_run(sweep_orphans)
    for rows in (2, 4, 5):
        assert (row.status, row.attempt, row.checkpoint["rows"]) == ("pending", 0, rows)
        row = work_on(task_services, sweep_orphans, row.id)
    assert (row.status, row.result["rows"], row.result["lost"]) == ("completed", 5, 5)
    assert run_task(sweep_orphans, dry_run=True)[0].rows == 5, "it has no place to go on from"


def _running(session):
    [run] = runs.list_runs(session, statuses=["running"])
    return run.id
