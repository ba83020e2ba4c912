"""``thumbnails.backfill`` from an operator's view; ``tests/domain`` has the rules."""

import hashlib
import itertools
import os
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import select, text

from genonaut.core.errors import ConflictError, InvalidInputError, StorageFullError
from genonaut.db.models import ContentImage, ContentItem, TaskRun
from genonaut.domain import content, run_attempts, run_history, runs
from genonaut.domain.thumbnails import Only, standard
from genonaut.worker import run
from genonaut.worker.sharing import _Shared
from genonaut.worker.tasks import thumbnails as module
from genonaut.worker.tasks.thumbnails import Params, Result, backfill, make_one
from tests.worker.conftest import work_on

USUAL = standard("512,256", "webp")


@pytest.fixture
def rows(database):
    def read():
        with database.transaction() as session:
            return list(session.scalars(select(ContentImage).order_by(ContentImage.id)))

    return read


@pytest.fixture
def tree(settings):
    """Give every stored file by its name, with what is in it and when it was written."""

    def read():
        root = Path(settings.storage_path)
        return {
            str(path.relative_to(root)): (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_mtime_ns,
            )
            for path in root.rglob("*")
            if path.is_file()
        }

    return read


def counts(result):
    return result.images, result.made, result.failed


def test_makes_what_is_missing_and_a_second_run_touches_no_file(run_task, make_image, rows, tree):
    for _ in range(3):
        make_image()
    make_image(thumb_spec=USUAL.hash)
    first, progress = run_task(backfill, batch_size=2)
    assert counts(first) == (3, 3, 0)
    assert first.made_bytes > 0
    assert first.read_bytes == sum(row.bytes for row in rows()[:3])
    assert progress == [(1, 3), (2, 3), (3, 3)]
    assert all(set(row.thumbnails) == {"512", "256"} for row in rows()[:3])
    assert {row.thumb_spec for row in rows()} == {USUAL.hash}
    before = tree()
    again, progress = run_task(backfill)
    assert again == Result(images=0)
    assert progress == []
    assert tree() == before


class Untouchable:
    """A store that nobody may use."""

    def __getattr__(self, name):
        raise AssertionError(name)


def test_with_nothing_to_do_the_store_is_not_even_asked(
    run_task, make_image, database, task_services
):
    image = make_image(thumb_spec=USUAL.hash)
    columns = "content_id, storage_key, sha256, mime, width, height, bytes, thumb_spec"
    with database.transaction() as session:
        session.execute(
            text(
                f"INSERT INTO content_images (position, {columns}) SELECT n, {columns}"
                " FROM content_images, generate_series(1, 199) AS n WHERE id = :id"
            ),
            {"id": image.id},
        )
    object.__setattr__(task_services, "storage", Untouchable())
    for params in ({}, {"only": "outdated"}, {"only": "failed"}, {"parallelism": 4}):
        result, _ = run_task(backfill, **params)
        assert counts(result) == (0, 0, 0)
    with pytest.raises(AssertionError):
        run_task(backfill, only="all")


def test_what_cannot_be_done_is_listed_and_tried_again_only_when_asked(
    run_task, start_run, make_image, rows, database
):
    good, bad = make_image(), make_image(data=b"\x89PNG\r\n\x1a\n rubbish")
    row = start_run(backfill)
    assert (row.status, row.failed_items) == ("completed", 1)
    with database.transaction() as session:
        [failure] = run_history.failures(session, row.id)
    assert failure.ref == f"content/{bad.content_id}/images/0"
    assert failure.error.endswith("(unreadable_image)")
    assert rows()[1].thumb_error == failure.error
    assert counts(run_task(backfill)[0]) == (0, 0, 0)
    assert counts(run_task(backfill, only="failed")[0]) == (1, 0, 1)
    with database.transaction() as session:
        session.get_one(ContentImage, bad.id).storage_key = good.storage_key
    assert counts(run_task(backfill, only="failed")[0]) == (1, 1, 0)
    assert [(row.thumb_spec, row.thumb_error) for row in rows()] == [(USUAL.hash, None)] * 2


def test_what_one_run_could_not_do_is_tried_alone(run_task, start_run, make_image, rows, database):
    good, earlier = make_image(), make_image(data=b"rubbish")
    assert start_run(backfill).failed_items == 1
    later = make_image(data=b"rubbish")
    row = start_run(backfill, sizes=[64])
    assert row.failed_items == 1
    with database.transaction() as session:
        for bad in (earlier, later):
            session.get_one(ContentImage, bad.id).storage_key = good.storage_key
    params = backfill.validate_failed(row.params, row.id)
    assert counts(run_task(backfill, **params.model_dump(mode="json"))[0]) == (1, 1, 0)
    assert [image.thumb_error is None for image in rows()] == [True, False, True]
    assert set(rows()[2].thumbnails) == {"64"}
    with pytest.raises(InvalidInputError, match="failed_in goes with"):
        backfill.validate({"failed_in": row.id})
    with pytest.raises(ConflictError, match="alone"):
        make_one.validate_failed({"image_id": 1}, row.id)


def test_other_settings_make_what_there_is_outdated(
    run_task, make_image, rows, task_services, make_settings
):
    make_image()
    run_task(backfill)
    assert counts(run_task(backfill, only="outdated")[0]) == (0, 0, 0)
    object.__setattr__(task_services, "settings", make_settings(thumbnail_sizes="128,64"))
    assert counts(run_task(backfill)[0]) == (0, 0, 0)
    assert counts(run_task(backfill, only="outdated")[0]) == (1, 1, 0)
    assert counts(run_task(backfill, only="outdated")[0]) == (0, 0, 0)
    assert set(rows()[0].thumbnails) == {"128", "64"}


def test_sizes_and_formats_of_ones_own_are_added(run_task, make_image, rows):
    make_image()
    run_task(backfill)
    extra = {"sizes": [100], "formats": ["webp", "jpeg"]}
    assert counts(run_task(backfill, **extra)[0]) == (1, 1, 0)
    assert counts(run_task(backfill, **extra)[0]) == (0, 0, 0)
    [row] = rows()
    assert set(row.thumbnails) == {"512", "256", "100", "100.jpeg"}
    assert row.thumb_spec == USUAL.hash
    with pytest.raises(Exception, match="usual sizes"):
        Params(only=Only.OUTDATED, sizes=(100,))


@pytest.mark.parametrize("task_settings", [{"thumbnail_formats": "webp,jpeg"}])
def test_the_usual_ones_in_another_order_are_the_usual_ones(run_task, make_image, rows):
    make_image()
    same = {"sizes": [256, 512, 256], "formats": ["jpeg", "webp", "jpeg"]}
    assert counts(run_task(backfill, **same)[0]) == (1, 1, 0)
    assert rows()[0].thumb_spec == standard("512,256", "webp,jpeg").hash
    assert counts(run_task(backfill)[0]) == (0, 0, 0)


def test_all_makes_everything_anew(run_task, make_image, rows):
    make_image()
    run_task(backfill)
    before = rows()[0].thumbnails
    assert counts(run_task(backfill, only="all")[0]) == (1, 1, 0)
    assert rows()[0].thumbnails == before


def test_a_limit_ends_a_run_early(run_task, make_image):
    for _ in range(5):
        make_image()
    result, progress = run_task(backfill, limit=3, batch_size=2)
    assert counts(result) == (5, 3, 0)
    assert progress[-1] == (3, 3)
    assert counts(run_task(backfill)[0]) == (2, 2, 0)


def test_a_rate_is_kept(run_task, make_image):
    for _ in range(5):
        make_image()
    result, _ = run_task(backfill, rate=20)
    assert result.seconds >= 4 / 20


def test_a_slow_rate_makes_small_batches(
    committed_database, start_run, make_image, rows, monkeypatch
):
    for _ in range(4):
        make_image()
    monkeypatch.setattr(module, "TURN_S", 0)
    monkeypatch.setattr(module, "_BATCH_S", 0.1)
    row = start_run(backfill, rate=20)
    assert (row.status, row.checkpoint["made"]) == ("pending", 2)


def test_a_dry_run_counts_and_estimates_and_does_nothing(run_task, make_image, rows, tree):
    images = [make_image() for _ in range(4)]
    before = tree()
    wanted = sum(image.bytes for image in images)
    dry, _ = run_task(backfill, dry_run=True)
    assert dry == Result(images=4, read_bytes=wanted)
    assert tree() == before
    assert all(row.thumb_spec is None for row in rows())
    real, _ = run_task(backfill, limit=2)
    again, _ = run_task(backfill, dry_run=True)
    assert again.images == 2
    assert again.estimated_s == pytest.approx(real.seconds, abs=0.1)
    slowed, _ = run_task(backfill, dry_run=True, rate=0.5)
    assert slowed.estimated_s == pytest.approx(max(4, real.seconds), abs=0.1)
    assert run_task(backfill, dry_run=True, limit=1)[0].images == 1


def test_f37_pictures_of_one_name_in_different_folders_have_thumbnails_of_their_own(
    run_task, make_image, rows
):
    make_image()
    make_image()
    run_task(backfill)
    one, two = (row.thumbnails["512"]["key"] for row in rows())
    assert one != two


def test_a_run_that_is_cancelled_keeps_whole_batches(
    committed_database, start_run, make_image, rows, task_services, monkeypatch
):
    for _ in range(6):
        make_image()
    make, made = module.thumbnails.make, itertools.count(1)

    def make_and_cancel(*args):
        if next(made) == 4:
            with task_services.database.transaction() as session:
                [run] = session.scalars(select(TaskRun))
                runs.request_cancel(session, run.id)
        return make(*args)

    monkeypatch.setattr(module.thumbnails, "make", make_and_cancel)
    row = start_run(backfill, batch_size=2, threads=1)
    assert row.status == "cancelled"
    done = [row.id for row in rows() if row.thumb_spec]
    assert len(done) in {2, 4}
    assert row.checkpoint["after"] == done[-1]


def test_f40_pictures_that_come_and_go_meanwhile_do_not_disturb(
    run_task, make_image, rows, database, monkeypatch
):
    images = [make_image() for _ in range(4)]
    record = module.thumbnails.record

    def record_and_change(session, *args):
        if session.get(ContentItem, images[3].content_id) is not None:
            session.delete(session.get_one(ContentItem, images[3].content_id))
            session.flush()
            session.add(ContentItem(title="x", creator_id=_creator(session, images[0])))
            session.flush()
        return record(session, *args)

    monkeypatch.setattr(module.thumbnails, "record", record_and_change)
    result, progress = run_task(backfill, batch_size=2)
    assert counts(result) == (4, 3, 0)
    assert progress == [(1, 4), (2, 4), (3, 4)]


@pytest.fixture
def delete_early(storage, monkeypatch):
    """Have an item deleted whole, as the API does, when the batch with its picture was read."""
    next_batch = module.thumbnails.next_batch

    def choose(image):
        def read_and_delete(session, *args, **bounds):
            batch = next_batch(session, *args, **bounds)
            if image.id in [source.id for source in batch]:
                creator_id = _creator(session, image)
                for unused in content.delete_own(session, creator_id, image.content_id):
                    storage.delete(unused.storage_key)
            return batch

        monkeypatch.setattr(module.thumbnails, "next_batch", read_and_delete)

    return choose


def test_pictures_deleted_before_their_turn_are_no_failures(
    start_run, make_image, delete_early, database
):
    _, bad, gone = make_image(), make_image(data=b"rubbish"), make_image()
    delete_early(gone)
    row = start_run(backfill)
    assert (row.result["made"], row.result["failed"], row.failed_items) == (1, 1, 1)
    with database.transaction() as session:
        [failure] = run_history.failures(session, row.id)
    assert failure.ref == f"content/{bad.content_id}/images/0"
    delete_early(one := make_image())
    row = start_run(make_one, image_id=one.id)
    assert (row.result["images"], row.result["failed"], row.failed_items) == (0, 0, 0)


def _creator(session, image):
    return session.get_one(ContentItem, image.content_id).creator_id


def test_a_short_disk_pauses_the_run_and_costs_no_attempt(
    start_run, make_image, rows, task_services, monkeypatch
):
    make_image()
    storage = task_services.storage
    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "free_bytes", lambda _: -1)
        row = start_run(backfill)
    assert (row.status, row.attempt, row.progress["phase"]) == ("pending", 0, "paused")
    assert row.progress["reason"] == "the disk is short"

    def full(*_, **__):
        raise StorageFullError

    with monkeypatch.context() as patch:
        patch.setattr(type(storage), "put", full)
        row = work_again(task_services, row)
    assert (row.status, row.attempt, row.progress["phase"]) == ("pending", 0, "paused")
    assert rows()[0].thumb_error is None
    row = work_again(task_services, row)
    assert (row.status, row.result["made"]) == ("completed", 1)


def work_again(services, row):
    with services.database.transaction() as session:
        runs.RUNS.note(session, row.id, (), available_at=row.created_at)
    return work_on(services, backfill, row.id)


def test_after_its_turn_a_run_queues_again(start_run, make_image, task_services, monkeypatch):
    for _ in range(3):
        make_image()
    monkeypatch.setattr(module, "TURN_S", 0)
    row = start_run(backfill, batch_size=2)
    assert (row.status, row.attempt, row.progress["done"]) == ("pending", 0, 2)
    row = work_on(task_services, backfill, row.id)
    row = work_on(task_services, backfill, row.id) if row.status == "pending" else row
    assert (row.status, row.result["images"], row.result["made"]) == ("completed", 3, 3)


def test_it_yields_to_jobs_when_told_to(
    start_run, make_image, make_job, task_services, make_settings, database
):
    import socket

    from genonaut.core.clock import utcnow
    from genonaut.domain import heartbeats

    make_image()
    make_job()
    with database.transaction() as session:
        heartbeats.beat(
            session,
            f"generation@{socket.gethostname()}",
            kind="worker",
            started_at=utcnow(),
            info={"queues": ["generation"]},
        )
    settings = make_settings(backfill_yields=True, storage_min_free_mb=0)
    object.__setattr__(task_services, "settings", settings)
    row = start_run(backfill)
    assert (row.status, row.progress["reason"]) == ("pending", "jobs wait on this machine")


def test_shared_work_needs_one_slot_is_summed_up_and_lists_its_failures(
    start_run, make_image, rows, task_services
):
    for n in range(7):
        make_image(data=b"rubbish" if n == 5 else None)
    row = start_run(backfill, parallelism=3, limit=7)
    assert (row.status, row.progress["phase"]) == ("pending", "waiting_for_children")
    children = _Shared.model_validate(row.checkpoint).run_ids
    assert len(children) == 3
    for run_id in children:
        child = work_on(task_services, backfill, run_id)
        assert (child.status, child.parent_id) == ("completed", row.id)
    row = work_on(task_services, backfill, row.id)
    assert (row.status, row.attempt, row.failed_items) == ("completed", 1, 1)
    assert counts(Result.model_validate(row.result)) == (7, 6, 1)
    assert (row.progress["done"], row.progress["total"]) == (7, 7)
    assert sum(image.thumb_spec == USUAL.hash for image in rows()) == 6


def test_nothing_to_share_is_done_at_once(run_task):
    result, _ = run_task(backfill, parallelism=4)
    assert result == Result(images=0)


def test_a_retry_repeats_the_shards_that_failed_and_no_others(
    start_run, make_image, rows, task_services, database
):
    for _ in range(4):
        make_image()
    row = start_run(backfill, parallelism=2)
    one, two = _Shared.model_validate(row.checkpoint).run_ids
    with database.transaction() as session:
        runs.request_cancel(session, one)
    work_on(task_services, backfill, two)
    row = work_on(task_services, backfill, row.id)
    assert (row.status, row.error_code) == ("failed", "parts_failed")
    assert str(one) in row.error_message
    with database.transaction() as session:
        request = backfill.request(backfill.validate(row.params), trigger="api")
        again = runs.again(session, row.id, request).run
    again = work_on(task_services, backfill, again.id)
    repeated, kept = _Shared.model_validate(again.checkpoint).run_ids
    assert (kept, again.status) == (two, "pending")
    work_on(task_services, backfill, repeated)
    again = work_on(task_services, backfill, again.id)
    assert counts(Result.model_validate(again.result)) == (4, 4, 0)
    assert all(image.thumb_spec == USUAL.hash for image in rows())


def test_a_run_that_waits_for_anothers_part_looks_now_and_then_and_goes_on_when_it_ended(
    committed_database, start_run, make_image, task_services, monkeypatch
):
    def again(row):
        with committed_database.transaction() as session:
            request = backfill.request(backfill.validate(row.params), trigger="api")
            return runs.again(session, row.id, request).run

    def is_claimed(row):
        return run.run(task_services, backfill, row.id, worker="worker-1")

    monkeypatch.setattr(run_attempts, "LOOK_SOON_S", 0.3)
    for _ in range(4):
        make_image()
    row = start_run(backfill, parallelism=2)
    one, two = _Shared.model_validate(row.checkpoint).run_ids
    with committed_database.transaction() as session:
        cancelled = runs.request_cancel(session, one)
    work_on(task_services, backfill, two)
    row = work_on(task_services, backfill, row.id)
    part, parent = again(cancelled), again(row)
    began = time.monotonic()
    claims = sum(is_claimed(parent) for _ in range(20))
    assert 1 <= claims <= 1 + (time.monotonic() - began) / 0.3
    with committed_database.transaction() as session:
        waiting = runs.one(session, parent.id)
    assert _Shared.model_validate(waiting.checkpoint).run_ids == (part.id, two)
    assert (waiting.progress["phase"], waiting.attempt) == ("waiting_for_children", 0)
    work_on(task_services, backfill, part.id)
    ends_by = time.monotonic() + 10
    while not is_claimed(parent) and time.monotonic() < ends_by:
        time.sleep(0.05)
    with committed_database.transaction() as session:
        assert runs.one(session, parent.id).status == "completed"


def test_runs_about_the_same_are_one_whatever_their_pace(start_run, make_image, database):
    def request(**params):
        return backfill.request(backfill.validate(params), trigger="api")

    with database.transaction() as session:
        first = runs.trigger(session, request()).run
        assert runs.trigger(session, request()).run.id == first.id
        assert runs.trigger(session, request(only="failed")).run.id != first.id
        with pytest.raises(runs.AlreadyRunningError):
            runs.trigger(session, request(rate=1))


def test_two_runs_side_by_side_agree(committed_database, start_run, make_image, rows, tree):
    for _ in range(12):
        make_image()
    ended = []

    def go(**params):
        ended.append(start_run(backfill, batch_size=3, **params).status)

    threads = [
        threading.Thread(target=go, kwargs={"only": only, "first_id": first})
        for only, first in (("missing", None), ("all", 1), ("missing", 1))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert ended == ["completed"] * 3
    assert all(row.thumb_spec == USUAL.hash for row in rows())
    keys = {entry["key"] for row in rows() for entry in row.thumbnails.values()}
    keys |= {row.storage_key for row in rows()}
    assert set(tree()) == {key.replace("/", os.sep) for key in keys}


def test_one_picture_gets_what_it_lacks_and_a_failed_one_is_left(run_task, make_image, rows):
    missing = make_image()
    outdated = make_image(thumb_spec="older")
    failed = make_image(thumb_error="broken")
    for image, expected in ((missing, 1), (outdated, 1), (failed, 0), (missing, 0)):
        result, _ = run_task(make_one, image_id=image.id)
        assert counts(result) == (expected, expected, 0)
    assert [row.thumb_spec for row in rows()] == [USUAL.hash, USUAL.hash, None]
    broken = make_image(data=b"rubbish")
    assert counts(run_task(make_one, image_id=broken.id)[0]) == (1, 0, 1)
    assert counts(run_task(make_one, image_id=10**12)[0]) == (0, 0, 0)
