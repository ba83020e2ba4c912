"""What every store keeps to, and what only an object store does."""

import hashlib
import os
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from anyio import CapacityLimiter
from starlette.testclient import TestClient

from genonaut.api import files
from genonaut.api.config import ConfigError, Settings
from genonaut.api.files import Picture, Shelf
from genonaut.clients import object_storage
from genonaut.clients.object_storage import Bucket, ObjectStorage
from genonaut.clients.storage import LocalStorage, open_storage
from genonaut.core.errors import (
    InvalidInputError,
    NotFoundError,
    RetryableError,
    StoredFileError,
)
from tests.clients.test_storage import DATA, DIGEST, KEY, NO_KEYS
from tests.support.objects import BUCKET, OPTIONS, object_server


@pytest.fixture(scope="module")
def server():
    with object_server() as url:
        yield url


@pytest.fixture
def bucket(server):
    return Bucket(f"s3://{BUCKET}/{secrets.token_hex(4)}/deep", {**OPTIONS, "endpoint": server})


@pytest.fixture(params=["disk", "objects"])
def store(request, tmp_path):
    if request.param == "disk":
        return LocalStorage(tmp_path / "storage", min_free_bytes=0)
    return ObjectStorage(request.getfixturevalue("bucket"))


class TestEveryStore:
    def test_what_was_put_is_read_under_the_hash_of_its_bytes(self, store):
        before = datetime.now(UTC) - timedelta(seconds=1)
        assert store.put(DATA, mime="image/png") == KEY
        assert store.read(KEY) == DATA
        assert store.exists(KEY)
        found = store.stat(KEY)
        assert found.size == len(DATA)
        assert before < found.modified_at < datetime.now(UTC) + timedelta(seconds=2)

    def test_an_open_file_is_read_from_any_place_on(self, store):
        data = os.urandom(3 * 2**20)
        opened = store.open(store.put(data, mime="image/png"))
        with opened.file as file:
            assert opened.size == len(data)
            assert file.read(10) == data[:10]
            file.seek(2_000_000)
            assert file.read(700_000) == data[2_000_000:2_700_000]
            file.seek(len(data) - 5)
            assert (file.read(100), file.read(100)) == (data[-5:], b"")

    def test_pictures_of_one_name_but_other_bytes_never_meet(self, store):
        one, other = store.put(b"one", mime="image/png"), store.put(b"other", mime="image/png")
        again = store.put(b"one", mime="image/jpeg")
        assert len({one, other, again}) == 3
        assert (store.read(one), store.read(other), store.read(again)) == (
            b"one",
            b"other",
            b"one",
        )

    def test_the_type_decides_the_extension(self, store):
        assert store.put(DATA, mime="image/jpeg") == KEY.removesuffix("png") + "jpg"
        with pytest.raises(InvalidInputError) as caught:
            store.put(DATA, mime="text/html")
        assert caught.value.field == "mime"

    def test_the_same_bytes_again_count_as_new(self, store):
        store.put(DATA, mime="image/png")
        first = store.stat(KEY)
        assert store.put(DATA, mime="image/png") == KEY
        assert store.stat(KEY).modified_at >= first.modified_at
        assert store.stat(KEY).modified_at >= datetime.now(UTC) - timedelta(seconds=1)

    def test_deleting_twice_is_fine_and_putting_again_too(self, store):
        store.put(DATA, mime="image/png")
        store.delete(KEY)
        store.delete(KEY)
        assert not store.exists(KEY)
        for call in (store.read, store.open, store.stat):
            with pytest.raises(NotFoundError):
                call(KEY)
        store.put(DATA, mime="image/png")
        assert store.read(KEY) == DATA

    @pytest.mark.parametrize("key", NO_KEYS)
    def test_anything_but_a_key_is_not_found(self, store, key):
        store.put(DATA, mime="image/png")
        assert not store.exists(key)
        for call in (store.read, store.open, store.stat, store.delete):
            with pytest.raises(NotFoundError):
                call(key)
        assert store.exists(KEY)

    def test_every_stored_file_is_listed_in_order(self, store):
        assert list(store.list_files()) == []
        with ThreadPoolExecutor(8) as pool:
            keys = sorted(pool.map(lambda n: store.put(b"%d" % n, mime="image/png"), range(60)))
        listed = list(store.list_files())
        assert [file.key for file in listed] == keys
        assert all(file.size in {1, 2} for file in listed)
        assert [file.modified_at for file in listed[:3]] == [
            store.stat(file.key).modified_at for file in listed[:3]
        ]

    def test_many_writers_of_the_same_bytes_agree(self, store):
        data = os.urandom(50_000)
        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(lambda _: store.put(data, mime="image/png"), range(8)))) == 1
        assert len(list(store.list_files())) == 1

    def test_a_guard_is_held_while_bytes_are_put(self, store):
        seen = []

        class Held:
            def __enter__(self):
                seen.append(store.exists(KEY))

            def __exit__(self, *_):
                seen.append(store.exists(KEY))

        store._guard = lambda digest: seen.append(digest) or Held()
        store.put(DATA, mime="image/png")
        assert seen == [DIGEST, False, True]

    def test_a_store_that_answers_is_well(self, store):
        store.check()

    def test_says_how_much_room_there_is_if_that_can_be_said(self, store):
        free = store.free_bytes()
        assert free is None or free > 0

    def test_a_picture_is_sent_whole_and_in_parts(self, store):
        data = os.urandom(1_500_000)
        picture = Picture(store.put(data, mime="image/png"), "etag", "image/png", "name", True)
        shelf = Shelf(store, CapacityLimiter(1))

        async def app(scope, receive, send):
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            await files.respond(shelf, picture, headers, scope["method"])(scope, receive, send)

        client = TestClient(app)
        assert client.get("/").content == data
        part = client.get("/", headers={"range": "bytes=700000-1400000"})
        assert (part.status_code, part.content) == (206, data[700_000:1_400_001])
        assert client.get("/", headers={"if-none-match": '"etag"'}).status_code == 304


def test_what_else_lies_in_the_bucket_is_left_alone(bucket, server):
    httpx.put(f"{server}/{BUCKET}/{bucket.prefix}/notes.txt", content=b"?").raise_for_status()
    store = ObjectStorage(bucket)
    store.put(DATA, mime="image/png")
    assert [file.key for file in store.list_files()] == [KEY]


def test_an_object_carries_its_type(bucket):
    store = ObjectStorage(bucket)
    store.put(DATA, mime="image/png")
    assert store._store.get(KEY).attributes["Content-Type"] == "image/png"


def test_a_large_picture_is_sent_in_one_piece_so_that_none_is_left_of_a_killed_sender(bucket):
    store, data = ObjectStorage(bucket), os.urandom(2 * object_storage._LARGE + 1)
    key = store.put(data, mime="image/png")
    assert store.read(key) == data
    assert store._store.head(key)["e_tag"] == f'"{hashlib.md5(data).hexdigest()}"'


class Slow(BaseHTTPRequestHandler):
    """Take every picture, a moment after it has come."""

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.5)
        with suppress(ConnectionError):
            self.send_response(200)
            self.send_header("ETag", '"x"')
            self.send_header("Content-Length", "0")
            self.end_headers()

    def log_message(self, *_):
        pass


def test_a_large_picture_has_longer_to_be_sent(monkeypatch):
    monkeypatch.setattr(object_storage, "_RETRIES", 0)
    monkeypatch.setattr(object_storage, "_TIMEOUT", "300ms")
    with serving(Slow) as endpoint:
        store = ObjectStorage(Bucket(f"s3://{BUCKET}", {**OPTIONS, "endpoint": endpoint}))
        with pytest.raises(RetryableError):
            store.put(DATA, mime="image/png")
        store.put(bytes(object_storage._LARGE + 1), mime="image/png")


@contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_nothing_seems_older_than_it_is(bucket):
    store = ObjectStorage(bucket)
    for n in range(5):
        began = datetime.now(UTC)
        assert store.stat(store.put(b"%d" % n, mime="image/png")).modified_at > began


@pytest.mark.parametrize("broken", ["port", "bucket"])
def test_a_store_that_does_not_answer_is_retryable_and_says_so_in_a_line(server, broken):
    options = {**OPTIONS, "endpoint": server if broken == "bucket" else "http://127.0.0.1:9"}
    store = ObjectStorage(Bucket("s3://nobody-made-this", options))
    calls = [lambda: store.put(DATA, mime="image/png"), lambda: list(store.list_files())]
    for call in (*calls, store.check):
        with pytest.raises(RetryableError, match="'nobody-made-this', does not answer") as caught:
            call()
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)


class Refusing(BaseHTTPRequestHandler):
    """Answer with a status."""

    status = 200

    def do_GET(self):
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "is_of_the_file"),
    [(400, True), (403, True), (404, None), (408, False), (429, False), (500, False), (503, False)],
)
def test_what_is_wrong_with_one_file_is_told_from_what_is_with_the_store(
    monkeypatch, status, is_of_the_file
):
    monkeypatch.setattr(object_storage, "_RETRIES", 0)
    monkeypatch.setattr(Refusing, "status", status)
    with serving(Refusing) as endpoint:
        store = ObjectStorage(Bucket(f"s3://{BUCKET}", {**OPTIONS, "endpoint": endpoint}))
        with pytest.raises(NotFoundError if is_of_the_file is None else RetryableError) as caught:
            store.read(KEY)
    assert isinstance(caught.value, StoredFileError) is bool(is_of_the_file)


FORKED = """
import os, sys
from genonaut.clients.object_storage import Bucket, ObjectStorage
endpoint, url = sys.argv[1:]
options = {"endpoint": endpoint, "access_key_id": "key", "secret_access_key": "secret"}
store = ObjectStorage(Bucket(url, options | {"region": "us-east-1"}))
pid = os.fork()
if pid == 0:
    os._exit(0 if store.read(store.put(b"x", mime="image/png")) == b"x" else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_forked_process_may_use_a_store_that_its_parent_only_made(bucket, server):
    subprocess.run([sys.executable, "-c", FORKED, server, bucket.url], check=True, timeout=60)


def test_the_settings_choose_the_store(tmp_path, server):
    disk = open_storage(Settings(storage_dir=tmp_path))
    assert disk.put(DATA, mime="image/png") == KEY
    assert (tmp_path / KEY).exists()
    settings = Settings(
        storage_url=f"s3://{BUCKET}/chosen/",
        aws_endpoint_url=server,
        aws_access_key_id="key",
        aws_secret_access_key="secret",
    )
    store = open_storage(settings)
    store.check()
    assert store.put(DATA, mime="image/png") == KEY
    chosen = Bucket(f"s3://{BUCKET}/chosen", {**OPTIONS, "endpoint": server})
    assert ObjectStorage(chosen).read(KEY) == DATA


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.delitem(sys.modules, "genonaut.clients.object_storage")
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    with pytest.raises(ConfigError, match=r"pip install 'genonaut\[s3\]'"):
        open_storage(Settings(storage_url="s3://pictures"))


@pytest.mark.parametrize("url", ["pictures", "http://pictures", "s3://", "s3://a b", "s3://A/b c"])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match="storage_url"):
        Settings(storage_url=url)
