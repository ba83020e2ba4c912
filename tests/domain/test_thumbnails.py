"""Which pictures want thumbnails, and what is written down about them."""

import errno
import os
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from genonaut.clients import storage as module_of_storage
from genonaut.core.errors import RetryableError, StorageFullError, StoredFileError
from genonaut.core.thumbnails import ThumbSpec, thumbnails
from genonaut.db.models import ContentItem, TaskRun
from genonaut.domain import thumbnails as module
from genonaut.domain.thumbnails import (
    Only,
    Outcome,
    Scope,
    Source,
    entry_names,
    lately_per_s,
    make,
    next_batch,
    record,
    shards,
    standard,
    survey,
)

SPEC = ThumbSpec(sizes=(32, 16))
MADE = {"32": {"key": "a", "width": 1, "height": 1, "bytes": 10}}


def scope(**values):
    return Scope(**{"spec": SPEC, **values})


@pytest.fixture(autouse=True)
def haste(monkeypatch):
    """Read again at once what could not be read."""
    monkeypatch.setattr(module, "_MOMENT_S", 0)


def source_of(image):
    return Source(image.id, image.content_id, image.position, image.storage_key)


def found(database, wanted, **options):
    with database.transaction() as session:
        batch = next_batch(session, wanted, **{"after": 0, "limit": 100, **options})
        assert not options or survey(session, wanted).images >= len(batch)
        return [source.id for source in batch]


def test_every_picture_is_in_one_state_or_has_what_it_should_have(database, make_image):
    missing = make_image()
    outdated = make_image(thumb_spec="older")
    failed = [make_image(thumb_error="broken"), make_image(thumb_error="x", thumb_spec="older")]
    done = make_image(thumb_spec=SPEC.hash)
    assert found(database, scope()) == [missing.id]
    assert found(database, scope(only=Only.OUTDATED)) == [outdated.id]
    assert found(database, scope(only=Only.FAILED)) == [image.id for image in failed]
    everyone = [missing.id, outdated.id, *(image.id for image in failed), done.id]
    assert found(database, scope(only=Only.ALL)) == everyone


def test_a_picture_lacks_extra_thumbnails_until_it_has_all_of_them(database, make_image):
    extra = ThumbSpec(sizes=(64,), formats=("webp", "avif"))
    assert entry_names(extra) == ["64", "64.avif"]
    make_image(thumb_spec=SPEC.hash, thumbnails={"32": {}, "64": {}, "64.avif": {}})
    lacking = make_image(thumb_spec=SPEC.hash, thumbnails={"32": {}, "64": {}})
    assert found(database, scope(spec=extra, is_extra=True)) == [lacking.id]


def test_pictures_are_chosen_by_time_creator_and_id(database, make_image, make_user):
    ada = make_user("ada")
    images = [make_image(creator=ada), make_image(), make_image(creator=ada)]
    ids = [image.id for image in images]
    moment = images[0].created_at
    assert found(database, scope(creator="ada")) == [ids[0], ids[2]]
    assert found(database, scope(creator="nobody")) == []
    assert found(database, scope(first_id=ids[1])) == ids[1:]
    assert found(database, scope(last_id=ids[1])) == ids[:2]
    assert found(database, scope(created_before=moment)) == []
    assert found(database, scope(created_from=moment + timedelta(seconds=1))) == []
    assert found(database, scope(created_from=moment)) == ids


def test_batches_go_on_after_an_id(database, make_image):
    ids = [make_image().id for _ in range(5)]
    assert found(database, scope(), limit=2) == ids[:2]
    assert found(database, scope(), after=ids[1], limit=2) == ids[2:4]
    assert found(database, scope(), after=ids[4]) == []


def test_a_survey_counts_what_there_is(session, database, make_image):
    assert survey(session, scope()).images == 0
    images = [make_image(bytes=n) for n in (3, 4)]
    make_image(thumb_spec=SPEC.hash, bytes=100)
    seen = survey(session, scope())
    assert (seen.images, seen.bytes, seen.last_id) == (2, 7, images[1].id)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_shards_hold_every_picture_once_and_about_as_many_each(session, make_image, count):
    ids = [make_image().id for _ in range(7)]
    ranges = shards(session, scope(), count)
    held = [[i for i in ids if first <= i <= last] for first, last in ranges]
    assert [i for shard in held for i in shard] == ids
    assert len(ranges) == min(count, 7)
    assert max(map(len, held)) - min(map(len, held)) <= 1


def test_nothing_to_do_has_no_shards(session):
    assert shards(session, scope(), 4) == []


def test_a_made_thumbnail_is_stored_and_named(make_image, storage):
    image = make_image()
    source = source_of(image)
    spec = ThumbSpec(sizes=(32, 16), formats=("webp", "jpeg"))
    outcome = make(source, spec, storage, thumbnails)
    assert outcome.error is None
    assert {name: (e["width"], e["height"]) for name, e in outcome.thumbnails.items()} == {
        "32": (32, 24),
        "32.jpeg": (32, 24),
        "16": (16, 12),
        "16.jpeg": (16, 12),
    }
    for entry in outcome.thumbnails.values():
        assert storage.stat(entry["key"]).size == entry["bytes"]
    assert outcome.bytes == sum(entry["bytes"] for entry in outcome.thumbnails.values())
    assert make(source, spec, storage, thumbnails) == outcome


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.unlink(), "not_found"),
        (lambda path: path.write_bytes(b""), "unreadable_image"),
        (lambda path: path.write_bytes(path.read_bytes()[:80]), "unreadable_image"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a plain file"),
        (lambda path: (path.unlink(), path.symlink_to(path)), "cannot be read"),
        (lambda path: (path.unlink(), path.parent.rmdir(), path.parent.touch()), "cannot be read"),
    ],
    ids=["missing", "empty", "truncated", "a folder", "a pipe", "a loop", "in no folder"],
)
def test_a_picture_that_cannot_be_done_says_why(make_image, storage, settings, spoil, said):
    image = make_image()
    spoil(Path(settings.storage_path) / image.storage_key)
    outcome = make(source_of(image), SPEC, storage, thumbnails)
    assert outcome.thumbnails is None
    assert said in outcome.error
    assert str(settings.storage_path) not in outcome.error


class AwayStorage:
    def __init__(self, *, reads, check=None):
        self.reads, self.check_fails = iter(reads), check

    def read(self, _):
        raise next(self.reads)

    def check(self):
        if self.check_fails:
            raise self.check_fails


@pytest.mark.parametrize(
    "away",
    [
        AwayStorage(reads=[RetryableError("away")]),
        AwayStorage(reads=[StoredFileError("?")], check=RetryableError("away")),
        AwayStorage(reads=[StoredFileError("?"), RetryableError("away")]),
    ],
    ids=["at once", "when asked", "a moment later"],
)
def test_a_store_that_does_not_answer_is_not_the_pictures_fault(make_image, away):
    with pytest.raises(RetryableError, match="away"):
        make(source_of(make_image()), SPEC, away, thumbnails)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
def test_a_file_that_is_read_the_second_time_is_good(make_image, storage, monkeypatch, number):
    source = source_of(make_image())
    opened, failures = module_of_storage._opened, [number]

    def fail_once(path):
        if failures:
            raise OSError(failures.pop(), "?")
        return opened(path)

    monkeypatch.setattr(module_of_storage, "_opened", fail_once)
    if number in {errno.EMFILE, errno.ESTALE}:
        with pytest.raises(RetryableError):
            make(source, SPEC, storage, thumbnails)
    assert make(source, SPEC, storage, thumbnails).error is None


def test_a_store_without_room_is_not_the_pictures_fault(make_image, storage, monkeypatch):
    source = source_of(make_image())

    def full(data, *, mime):
        raise StorageFullError

    monkeypatch.setattr(storage, "put", full)
    with pytest.raises(StorageFullError):
        make(source, SPEC, storage, thumbnails)


def outcome_of(image, **values):
    return Outcome(source_of(image), **values)


def test_what_became_of_pictures_is_written_down(database, make_image, reload):
    good = make_image(thumb_error="before")
    bad = make_image(thumb_spec="older", thumbnails={"8": {"key": "old"}})
    gone = make_image()
    with database.transaction() as session:
        session.delete(session.get_one(ContentItem, gone.content_id))
    outcomes = [
        outcome_of(good, thumbnails=MADE),
        outcome_of(bad, error="broken \0 " + "x" * 1000),
        outcome_of(gone, thumbnails=MADE),
    ]
    with database.transaction() as session:
        assert record(session, scope(), outcomes) == {good.id, bad.id}
        assert record(session, scope(), []) == set()
    row = reload(good)
    assert (row.thumbnails, row.thumb_spec, row.thumb_error) == (MADE, SPEC.hash, None)
    row = reload(bad)
    assert (row.thumbnails, row.thumb_spec) == ({"8": {"key": "old"}}, "older")
    assert row.thumb_error.startswith("broken")
    assert len(row.thumb_error) == 500


def test_usual_thumbnails_take_the_place_of_others_and_extra_ones_are_added(
    database, make_image, reload
):
    image = make_image(thumb_spec="older", thumbnails={"8": {}})
    with database.transaction() as session:
        record(session, scope(), [outcome_of(image, thumbnails=MADE)])
        extra = scope(spec=ThumbSpec(sizes=(64,)), is_extra=True)
        record(session, extra, [outcome_of(image, thumbnails={"64": {}})])
    row = reload(image)
    assert row.thumbnails == {**MADE, "64": {}}
    assert row.thumb_spec == SPEC.hash


def test_extra_thumbnails_stay_when_the_usual_ones_come_later(database, make_image, reload):
    image = make_image()
    with database.transaction() as session:
        extra = scope(spec=ThumbSpec(sizes=(64,)), is_extra=True)
        record(session, extra, [outcome_of(image, thumbnails={"64": {}, "32": {"key": "old"}})])
        record(session, scope(), [outcome_of(image, thumbnails=MADE)])
    row = reload(image)
    assert row.thumbnails == {**MADE, "64": {}}
    assert row.thumb_spec == SPEC.hash


def test_the_standard_is_what_the_settings_say():
    assert standard("512,256", "webp") == ThumbSpec()
    assert standard("64,64", "jpeg,webp,jpeg") == ThumbSpec(sizes=(64,), formats=("webp", "jpeg"))


def test_the_speed_is_that_of_the_last_runs_alone_and_at_their_own_pace(session):
    assert lately_per_s(session, "toys.count") is None
    rows = [
        ({"parallelism": 1}, {"made": 30, "seconds": 2.0}, False),
        ({"parallelism": 1, "rate": None}, {"made": 10, "seconds": 2.0}, False),
        ({"parallelism": 1, "rate": 1.0}, {"made": 1, "seconds": 9.0}, False),
        ({"parallelism": 2}, {"made": 1, "seconds": 9.0}, False),
        ({"parallelism": 1}, {"made": 1, "seconds": 9.0}, True),
        ({"parallelism": 1}, {"made": 0, "seconds": 0}, False),
        ({}, {"odd": True}, False),
    ]
    for params, result, dry_run in rows:
        session.add(
            TaskRun(
                task="toys.count",
                queue="default",
                trigger="api",
                celery_task_id="x",
                params=params,
                result=result,
                dry_run=dry_run,
                status="completed",
            )
        )
    session.flush()
    assert lately_per_s(session, "toys.count") == 10


def test_what_is_missing_is_found_by_its_own_index(session, make_image):
    for _ in range(3):
        make_image()
    session.execute(text("SET LOCAL enable_seqscan = off"))
    query = scope().pictures(text("id")).order_by(text("id"))
    plan = "\n".join(session.scalars(text(f"EXPLAIN {query.compile(session.connection())}")))
    assert "ix_content_images_thumb_missing" in plan
    assert "Sort" not in plan
