"""A folder is walked in order, and nothing in it leads outside."""

import errno
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import chdir
from pathlib import Path

import pytest

from genonaut.core.errors import InvalidInputError, RetryableError
from genonaut.domain.importing import Imported
from genonaut.worker.importing import Refused, opened, take, walk
from genonaut.worker.rendering import Renderer
from tests.core.pictures import encode, picture
from tests.support.limits import few_descriptors


@pytest.fixture(scope="module")
def renderer():
    with Renderer() as made:
        yield made


@pytest.fixture
def root(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(encode(picture(), "PNG"))
    root = tmp_path / "root"
    root.mkdir()
    return root


def paths(root, below=""):
    with opened(root, below) as folder:
        return [found.path for found in walk(folder)]


def taken(root, storage, renderer):
    with opened(root) as folder:
        return {found.path: take(folder, found, storage, renderer) for found in walk(folder)}


def test_files_come_in_one_order_folders_after_files(root):
    for name in ("b.png", "z/a.JPG", "a/y.webp", "a/b/c.gif", "a.jpeg", "note.txt", "a/.x.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert paths(root) == ["a.jpeg", "b.png", "a/.x.png", "a/y.webp", "a/b/c.gif", "z/a.JPG"]
    assert paths(root, "a/b") == ["c.gif"]
    assert paths(root, ".") == paths(root)
    with opened(root) as folder:
        places = [found.place for found in walk(folder)]
    assert places == sorted(places)


def test_no_link_is_followed(root, tmp_path, storage, renderer):
    outside = tmp_path / "outside"
    (root / "link.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    (root / "loop").symlink_to(root)
    found = taken(root, storage, renderer)
    assert list(found) == ["link.png"]
    assert isinstance(found["link.png"], Refused)
    assert list(storage.list_files()) == []
    for below in ("folder", "../outside", "/etc", "folder/..", "nowhere", "a\0b", "link.png"):
        with pytest.raises(InvalidInputError):
            paths(root, below)
    with pytest.raises(InvalidInputError):
        paths(root / "nowhere")


def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(root, tmp_path, storage, renderer):
    (root / "inner").mkdir()
    (root / "inner" / "secret.png").touch()
    with opened(root) as folder:
        [found] = walk(folder)
        (root / "inner" / "secret.png").unlink()
        (root / "inner").rmdir()
        (root / "inner").symlink_to(tmp_path / "outside")
        assert isinstance(take(folder, found, storage, renderer), Refused)


def test_hostile_files_are_refused_with_a_reason_and_good_ones_taken(root, storage, renderer):
    good = encode(picture(), "PNG")
    (root / "good.png").write_bytes(good)
    (root / "really-a-png.jpg").write_bytes(good)
    (root / "empty.png").touch()
    (root / "cut.png").write_bytes(good[: len(good) // 2])
    (root / "text.png").write_text("hello")
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server, chdir(root):
        server.bind("socket.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    found = taken(root, storage, renderer)
    refused = {path for path, one in found.items() if isinstance(one, Refused)}
    odd = {"pipe.png", "socket.png", "loop.png"}
    assert refused == {"empty.png", "cut.png", "text.png"} | odd
    for path in refused:
        assert found[path].error
        assert str(root) not in found[path].error
    good_one, other = found["good.png"], found["really-a-png.jpg"]
    assert isinstance(good_one, Imported)
    assert (good_one.mime, good_one.storage_key) == ("image/png", other.storage_key)
    assert storage.stat(good_one.storage_key).size == good_one.bytes


@pytest.mark.parametrize("room", range(4))
def test_a_machine_short_of_descriptors_refuses_no_good_file(root, storage, room):
    """Too few to read it, or to start its decoder: it is tried again, not listed."""
    (root / "good.png").write_bytes(encode(picture(), "PNG"))
    with opened(root) as folder, Renderer() as renderer:
        [found] = walk(folder)
        with few_descriptors(room), pytest.raises(RetryableError):
            take(folder, found, storage, renderer)
        assert isinstance(take(folder, found, storage, renderer), Imported)
    with opened(root) as folder, few_descriptors(0), pytest.raises(RetryableError):
        list(walk(folder))


def test_names_in_any_encoding_are_taken_and_shown_as_one_line(root, storage, renderer):
    good = encode(picture(), "PNG")
    folder = os.fsencode(root)
    for name in (b"\xff\xfe.png", b"a\nb.png", b"\x1b[2Jc.png", "ż\u202eóß.png".encode()):
        (Path(os.fsdecode(folder + b"/" + name))).write_bytes(good)
    found = taken(root, storage, renderer)
    shown = ["\\x1b[2Jc.png", "a\\nb.png", "ż\\u202eóß.png", "\\xff\\xfe.png"]
    assert list(found) == shown
    assert all(isinstance(one, Imported) for one in found.values())


def test_folders_that_cannot_be_read_are_listed_in_their_place(
    root, storage, renderer, monkeypatch
):
    for name in ("a/x.png", "b/x.png", "c/x.png"):
        (root / name).parent.mkdir()
        (root / name).touch()
    really, closed = os.open, (b"b",)

    def refuse(path, flags, mode=0o777, *, dir_fd=None):  # root may open whatever is closed
        if path in closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return really(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", refuse)
    found = taken(root, storage, renderer)
    assert list(found) == ["a/x.png", "b", "c/x.png"]
    assert found["b"] == Refused("b", "The folder cannot be read: Permission denied.")


def test_a_tree_is_walked_only_so_far_down(root):
    root.joinpath(*"d" * 300).mkdir(parents=True)
    with opened(root) as folder:
        [found] = walk(folder)
    assert len(found.place) == 101
    assert "folders down" in found.error


def test_a_file_that_changes_while_it_is_read_is_whole_or_refused(root, storage, renderer):
    good = encode(picture(size=(900, 900)), "PNG")
    path = root / "x.png"
    path.write_bytes(good)
    is_over = threading.Event()

    def write():
        with path.open("r+b") as file:
            while not is_over.is_set():
                file.truncate(len(good) // 2)
                file.seek(0)
                file.write(good)
                file.flush()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(write)
        try:
            outcomes = [taken(root, storage, renderer)["x.png"] for _ in range(10)]
        finally:
            is_over.set()
    for one in outcomes:
        assert isinstance(one, Refused) or storage.stat(one.storage_key).size == one.bytes
    assert len({one.storage_key for one in outcomes if isinstance(one, Imported)}) <= 1


def test_no_descriptor_stays_open(root, storage, renderer):
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x.png").write_bytes(b"?")
    taken(root, storage, renderer)  # the renderer's child has started
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as the kernel lists them
    for _ in range(20):
        taken(root, storage, renderer)
        with pytest.raises(InvalidInputError):
            paths(root, "a/nowhere")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
