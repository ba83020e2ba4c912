import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from genonaut.clients.storage import LocalStorage, Storage
from genonaut.core.errors import (
    InvalidInputError,
    NotFoundError,
    RetryableError,
    StorageFullError,
)

DATA = b"the bytes of a picture"
DIGEST = hashlib.sha256(DATA).hexdigest()
KEY = f"{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}.png"
NO_KEYS = [
    "",
    "../../etc/passwd",
    "/etc/passwd",
    "secret",
    f"../{KEY}",
    f"{KEY}/../../../secret",
    f"{KEY}\n",
    f"{KEY}\0",
    KEY.upper(),
    KEY.replace("/", "\\"),
    f"00/00/{DIGEST}.png",
    f"{KEY[:5]}/{DIGEST}.exe",
    f"{KEY[:5]}/{DIGEST}",
    f"{KEY[:5]}/{DIGEST[:-1]}.png",
    ".tmp/x",
]
OLD = datetime(2020, 1, 1, tzinfo=UTC)

WRITER = """
import os, random, sys
from pathlib import Path
from genonaut.clients.storage import LocalStorage
store = LocalStorage(Path(sys.argv[1]), min_free_bytes=0)
print("ready", flush=True)
while True:
    store.put(os.urandom(random.choice((10, 5_000, 300_000))), mime="image/png")
"""

KILLED_AT_EACH_LINE = """
import os, signal, sys
from pathlib import Path
import genonaut.clients.storage as module

def tracer(left):
    def trace(frame, event, arg):
        if frame.f_code.co_filename != module.__file__:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace
    return trace

for line in range(500):
    child = os.fork()
    if child == 0:
        sys.settrace(tracer([line]))
        module.LocalStorage(Path(sys.argv[1], str(line)), min_free_bytes=0).put(
            b"x" * 100_000, mime="image/png"
        )
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        print(line)
        break
"""


@pytest.fixture
def root(tmp_path):
    return tmp_path / "storage"


@pytest.fixture
def store(root) -> Storage:
    return LocalStorage(root, min_free_bytes=0)


def visible(root):
    """Check that every file outside ``.tmp`` is whole; give them."""
    files = [p for p in root.rglob("*") if p.is_file() and ".tmp" not in p.relative_to(root).parts]
    for path in files:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.stem
    return files


def stray(root):
    return list((root / ".tmp").iterdir()) if (root / ".tmp").exists() else []


def age(path, when=OLD):
    os.utime(path, (when.timestamp(), when.timestamp()))


def test_what_was_put_is_read_under_the_hash_of_its_bytes(store, root):
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert store.put(DATA, mime="image/png") == KEY
    assert store.read(KEY) == DATA
    assert store.exists(KEY)
    found = store.stat(KEY)
    assert found.size == len(DATA)
    assert before < found.modified_at < datetime.now(UTC) + timedelta(seconds=1)
    opened = store.open(KEY)
    with opened.file as file:
        assert (file.read(), opened.size, opened.modified_at) == (
            DATA,
            len(DATA),
            found.modified_at,
        )
    assert visible(root) == [root / KEY]
    assert stray(root) == []


def test_the_type_decides_the_extension(store):
    assert store.put(DATA, mime="image/jpeg") == KEY.removesuffix("png") + "jpg"
    with pytest.raises(InvalidInputError) as caught:
        store.put(DATA, mime="text/html")
    assert caught.value.field == "mime"


def test_files_and_folders_are_closed_to_others(store, root):
    old = os.umask(0)
    try:
        store.put(DATA, mime="image/png")
    finally:
        os.umask(old)
    for path in (root, *root.rglob("*")):
        expected = 0o640 if path.is_file() else 0o750
        assert stat.S_IMODE(path.stat().st_mode) == expected


def test_the_same_bytes_again_only_touch_the_file(store, root):
    store.put(DATA, mime="image/png")
    age(root / KEY)
    first = (root / KEY).stat()
    assert store.put(DATA, mime="image/png") == KEY
    second = (root / KEY).stat()
    assert second.st_ino == first.st_ino
    assert second.st_mtime > first.st_mtime + 10**6


def test_a_file_of_another_size_is_replaced(store, root):
    store.put(DATA, mime="image/png")
    (root / KEY).write_bytes(DATA[:5])
    store.put(DATA, mime="image/png")
    assert store.read(KEY) == DATA


def test_deleting_twice_is_fine_and_putting_again_too(store):
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
def test_anything_but_a_key_is_not_found(store, root, key):
    store.put(DATA, mime="image/png")
    (root / "secret").write_text("secret")
    assert not store.exists(key)
    for call in (store.read, store.open, store.stat, store.delete):
        with pytest.raises(NotFoundError):
            call(key)
    assert (root / "secret").exists()


def test_too_little_free_space_is_refused_before_writing(root):
    store = LocalStorage(root, min_free_bytes=2**62)
    with pytest.raises(StorageFullError):
        store.put(DATA, mime="image/png")
    assert visible(root) == stray(root) == []


def test_reuse_needs_no_free_space(store, root):
    store.put(DATA, mime="image/png")
    assert LocalStorage(root, min_free_bytes=2**62).put(DATA, mime="image/png") == KEY


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, StorageFullError),
        (errno.EDQUOT, StorageFullError),
        (errno.EACCES, RetryableError),
        (errno.EIO, RetryableError),
        (errno.ENOENT, RetryableError),
    ],
)
def test_a_failed_write_leaves_nothing_and_names_no_path(
    store, root, monkeypatch, number, expected
):
    def fail(*_):
        raise OSError(number, os.strerror(number), str(root / "x"))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(expected) as caught:
            store.put(DATA, mime="image/png")
    assert type(caught.value) is expected
    assert str(root) not in str(caught.value)
    assert visible(root) == stray(root) == []
    store.put(DATA, mime="image/png")


def test_a_root_that_is_no_folder_is_retryable(tmp_path):
    (tmp_path / "file").touch()
    store = LocalStorage(tmp_path / "file", min_free_bytes=0)
    for call in (
        lambda: store.put(DATA, mime="image/png"),
        lambda: store.read(KEY),
        lambda: store.delete(KEY),
    ):
        with pytest.raises(RetryableError) as caught:
            call()
        assert str(tmp_path) not in str(caught.value)


@pytest.fixture
def small_disk(tmp_path):
    """Mount 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    place = tmp_path / "disk"
    place.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_keeps_what_it_has_and_takes_more_when_there_is_room(small_disk):
    root = small_disk / "storage"
    store = LocalStorage(root, min_free_bytes=-(2**40))  # so that the disk itself refuses
    kept = [store.put(bytes([n]) * 60_000, mime="image/png") for n in range(3)]
    with pytest.raises(StorageFullError) as caught:
        store.put(b"x" * 100_000, mime="image/png")
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert len(visible(root)) == 3
    assert stray(root) == []
    store.delete(kept[0])
    store.delete(kept[1])
    assert store.exists(store.put(b"x" * 100_000, mime="image/png"))


def test_old_strays_are_swept_and_young_ones_stay(store, root):
    assert store.sweep_temp(datetime.now(UTC)) == 0
    store.put(DATA, mime="image/png")
    now = datetime.now(UTC)
    for name, hours in (("old", 25), ("young", 23)):
        (root / ".tmp" / name).touch()
        age(root / ".tmp" / name, now - timedelta(hours=hours))
    age(root / KEY)
    assert store.sweep_temp(now) == 1
    assert [path.name for path in stray(root)] == ["young"]
    assert store.exists(KEY)


def test_many_writers_of_the_same_bytes_agree(root):
    stores = [LocalStorage(root, min_free_bytes=0) for _ in range(8)]
    for n in range(20):
        data, start = os.urandom(50_000), threading.Barrier(8)

        def put(store, data=data, start=start):
            start.wait()
            return store.put(data, mime="image/png")

        with ThreadPoolExecutor(8) as pool:
            assert len(set(pool.map(put, stores))) == 1
        assert len(visible(root)) == n + 1
    assert stray(root) == []


def test_processes_killed_while_writing_show_only_whole_files(root):
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout.readline() == b"ready\n"
            time.sleep(random.uniform(0.05, 0.25))
            os.kill(child.pid, signal.SIGKILL)
    assert visible(root)
    tomorrow = datetime.now(UTC) + timedelta(days=2)
    strays = len(stray(root))
    assert LocalStorage(root, min_free_bytes=0).sweep_temp(tomorrow) == strays


def test_a_writer_killed_at_any_line_leaves_all_or_nothing(tmp_path):
    run = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EACH_LINE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    lines = int(run.stdout)
    outcomes = []
    for line in range(lines + 1):
        root = Path(tmp_path, str(line))
        outcomes.append(len(visible(root)))
        again = LocalStorage(root, min_free_bytes=0)
        assert again.read(again.put(b"x" * 100_000, mime="image/png")) == b"x" * 100_000
    assert outcomes == sorted(outcomes)
    assert set(outcomes) == {0, 1}


def test_reading_while_the_same_bytes_are_put_never_sees_a_part(store, root):
    data = os.urandom(400_000)
    key = store.put(data, mime="image/png")
    done = threading.Event()

    def replace():
        while not done.is_set():
            with contextlib.suppress(FileNotFoundError):
                (root / key).unlink()
            store.put(data, mime="image/png")

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        for _ in range(100):
            with contextlib.suppress(NotFoundError):
                assert store.read(key) == data
    finally:
        done.set()
        writer.join()


def test_nobody_waits_for_what_is_no_plain_file(store, root):
    store.put(DATA, mime="image/png")
    (root / KEY).unlink()
    os.mkfifo(root / KEY)
    for read in (store.read, store.open):
        with pytest.raises(RetryableError, match="not a plain file"):
            read(KEY)
    store.put(DATA, mime="image/png")
    assert store.read(KEY) == DATA


def test_a_check_tells_a_store_that_fails_from_one_of_its_files(store, root, tmp_path):
    store.check()  # nothing was stored yet
    store.put(DATA, mime="image/png")
    (root / KEY).unlink()
    (root / KEY).symlink_to(root / KEY)
    with pytest.raises(RetryableError):
        store.read(KEY)
    store.check()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for broken in ("file", "loop"):
        with pytest.raises(RetryableError):
            LocalStorage(tmp_path / broken, min_free_bytes=0).check()


def test_says_how_much_room_there_is_before_anything_was_stored(tmp_path):
    storage = LocalStorage(tmp_path / "not" / "yet", min_free_bytes=0)
    assert 0 < storage.free_bytes() <= shutil.disk_usage(tmp_path).total
    assert not (tmp_path / "not").exists()


def test_a_folder_of_somebody_else_is_not_opened_and_one_of_ours_must_open(store, root):
    key = store.put(DATA, mime="image/png")
    # A link that leads to itself opens for nobody, root neither.
    for foreign in ("lost+found", "AB", f"{key[:2]}/lost+found"):
        (root / foreign).symlink_to(root / foreign)
    assert [file.key for file in store.list_files()] == [key]
    (root / "00").symlink_to(root / "00")
    with pytest.raises(RetryableError):
        list(store.list_files())


def test_every_stored_file_is_listed_and_nothing_else(tmp_path):
    store = LocalStorage(tmp_path / "store", min_free_bytes=0)
    assert list(store.list_files()) == []
    keys = sorted(store.put(b"%d" % n, mime="image/png") for n in range(20))
    for stray in ("README", "ab/x", "ab/cd/notes.txt", ".tmp/ab"):
        path = tmp_path / "store" / stray
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"?")
    listed = list(store.list_files())
    assert [file.key for file in listed] == keys
    assert all(file.size == store.stat(file.key).size for file in listed)
    assert all(file.modified_at == store.stat(file.key).modified_at for file in listed)


def test_a_guard_is_held_while_bytes_are_put(tmp_path):
    seen = []

    @contextlib.contextmanager
    def guard(digest):
        seen.append((digest, list(store.list_files())))
        yield
        seen.append(len(list(store.list_files())))

    store = LocalStorage(tmp_path, min_free_bytes=0, guard=guard)
    key = store.put(b"x", mime="image/png")
    assert seen == [(hashlib.sha256(b"x").hexdigest(), []), 1]
    assert store.exists(key)
