"""Files without rows go, unless somebody stores them at that moment."""

import threading
from datetime import timedelta
from pathlib import PurePosixPath

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from genonaut.clients.storage import LocalStorage
from genonaut.core.clock import utcnow
from genonaut.core.errors import NotFoundError, RetryableError
from genonaut.db.models import ContentImage, ContentItem
from genonaut.domain.orphans import (
    keep,
    last_named,
    named,
    next_named,
    remove,
    still_there,
    storing,
    want_again,
)

SOON = timedelta(minutes=1)


def thumbnail(key):
    return {"key": key, "width": 1, "height": 1, "bytes": 1}


def test_a_file_is_named_as_an_original_or_as_a_thumbnail(session, make_image, storage):
    keys = [storage.put(b"%d" % n, mime="image/webp") for n in range(4)]
    image = make_image(thumbnails={"256": thumbnail(keys[0]), "512.avif": thumbnail(keys[1])})
    make_image(thumbnails={"256": thumbnail(keys[0])})
    assert named(session, {*keys, image.storage_key}) == {keys[0], keys[1], image.storage_key}
    assert named(session, []) == set()


def test_who_names_a_thumbnail_an_index_tells(session, make_image):
    make_image(thumbnails={"256": thumbnail("a")})
    session.execute(text("SET LOCAL enable_seqscan = off"))
    plan = session.scalars(
        text(
            "EXPLAIN SELECT id FROM content_images WHERE"
            " jsonb_path_query_array(content_images.thumbnails, '$.*.\"key\"'::jsonpath)"
            " ?| ARRAY['a']"
        )
    )
    assert "ix_content_images_thumbnail_keys" in "\n".join(plan)


def test_only_what_no_row_names_and_is_old_is_removed(session, make_image, storage):
    image = make_image()
    shared = storage.put(b"shared", mime="image/webp")
    make_image(thumbnails={"256": thumbnail(shared)})
    orphan = storage.put(b"orphan", mime="image/webp")
    gone = storage.put(b"gone", mime="image/webp")
    storage.delete(gone)
    keys = [image.storage_key, shared, orphan, gone]
    assert remove(session, storage, keys, not_after=utcnow() - SOON) == []
    assert remove(session, storage, keys, not_after=utcnow() + SOON) == [orphan]
    assert [storage.exists(key) for key in keys] == [True, True, False, False]
    assert remove(session, storage, [], not_after=utcnow()) == []


def test_storing_and_removing_exclude_each_other(committed_database, settings):
    """Whoever stores bytes anew finds them there afterwards, whatever is removed meanwhile."""
    guarded = LocalStorage(
        settings.storage_path, min_free_bytes=0, guard=storing(committed_database)
    )
    data = b"the same bytes"
    key = guarded.put(data, mime="image/webp")
    looked = threading.Event()
    stored = threading.Event()

    def put():
        looked.wait(5)
        guarded.put(data, mime="image/webp")
        stored.set()

    thread = threading.Thread(target=put)
    thread.start()
    with committed_database.transaction() as session:
        assert remove(session, guarded, [key], not_after=utcnow() + SOON) == [key]
        looked.set()
        assert not stored.wait(0.2), "the put waits until the removal is over"
    thread.join(5)
    assert guarded.read(key) == data


class SlowStorage:
    """Lose the connection that holds the locks while it is asked for a file's age."""

    def __init__(self, storage, database, pid):
        self.storage, self.database, self.pid = storage, database, pid

    def stat(self, key):
        with self.database.transaction() as session:
            ended = {"pid": self.pid}
            session.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), ended)
        return self.storage.stat(key)

    def delete(self, key):
        self.storage.delete(key)


def test_nothing_is_removed_once_the_locks_are_gone(committed_database, storage):
    key = storage.put(b"the same bytes", mime="image/webp")

    def clean():
        with committed_database.transaction() as session:
            pid = session.scalar(text("SELECT pg_backend_pid()"))
            slow = SlowStorage(storage, committed_database, pid)
            remove(session, slow, [key], not_after=utcnow() + SOON)

    with pytest.raises(OperationalError):
        clean()
    assert storage.exists(key)


def test_who_names_a_file_keeps_it_from_who_removes_it(committed_database, make_user, storage):
    """A row is never committed with an original that goes at that moment, or has gone before."""
    key, creator = storage.put(b"the same bytes", mime="image/png"), make_user().id
    removed = []

    def go():
        with committed_database.transaction() as session:
            removed.extend(remove(session, storage, [key], not_after=utcnow() + SOON))
        removed.append("done")

    def name(session):
        keep(session, storage, [key])
        item = ContentItem(title="x", prompt="x", creator_id=creator)
        image = {"storage_key": key, "sha256": PurePosixPath(key).stem, "mime": "image/png"}
        session.add(item)
        session.flush()
        session.add(
            ContentImage(content_id=item.id, position=0, width=1, height=1, bytes=1, **image)
        )

    thread = threading.Thread(target=go)
    with committed_database.transaction() as session:
        name(session)
        thread.start()
        thread.join(0.2)
        assert removed == [], "the removal waits until the row is committed"
    thread.join(5)
    assert (removed, storage.exists(key)) == (["done"], True)
    storage.delete(key)
    with (
        pytest.raises(RetryableError, match="try again"),
        committed_database.transaction() as session,
    ):
        name(session)


def test_two_may_store_the_same_bytes_at_once(committed_database):
    hold = storing(committed_database)
    with hold("ab" * 32), hold("ab" * 32), hold("ff" * 32):
        pass


def test_rows_are_looked_at_in_pages(session, make_image):
    assert last_named(session) == 0
    images = [make_image(thumbnails={"9": thumbnail("k")}) for _ in range(3)]
    page = next_named(session, after=0, limit=2)
    assert [row.image_id for row in page] == [image.id for image in images[:2]]
    assert page[0].ref == f"content/{images[0].content_id}/images/0"
    assert (page[0].original, page[0].thumbnails) == (images[0].storage_key, ("k",))
    assert next_named(session, after=images[2].id, limit=2) == []
    assert last_named(session) == images[2].id


def test_rows_that_went_meanwhile_are_left_out(database, make_image):
    images = [make_image() for _ in range(2)]
    with database.transaction() as session:
        rows = next_named(session, after=0, limit=9)
        session.delete(session.get_one(ContentItem, images[0].content_id))
        session.flush()
        assert still_there(session, rows) == rows[1:]
        assert still_there(session, []) == []


def test_lost_thumbnails_are_missing_again(database, make_image, reload):
    image = make_image(thumb_spec="x", thumb_error="broken", thumbnails={"9": thumbnail("k")})
    with database.transaction() as session:
        seen = session.get_one(ContentImage, image.id)
        want_again(session, [image.id])
        assert seen.thumb_error is None
    row = reload(image)
    assert (row.thumbnails, row.thumb_spec, row.thumb_error) == ({}, None, None)


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a" * 70])
def test_what_is_no_key_is_nobodys_file(session, storage, key):
    assert named(session, [key]) == set()
    with pytest.raises(NotFoundError):
        storage.stat(key)
    assert session.query(ContentImage).count() == 0
