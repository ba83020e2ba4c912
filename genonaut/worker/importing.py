"""Walk a folder of pictures and take them in; what is in it may be hostile.

No link is followed, be it the folder, one on the way or a file, and nothing but a plain file is
read. Folders are opened one inside the other, so one that is swapped meanwhile leads nowhere.
"""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from genonaut.clients.storage import Storage
from genonaut.core import embedded_graph, imaging
from genonaut.core.errors import InvalidInputError, RetryableError, UnreadableImageError
from genonaut.core.text import is_unprinted
from genonaut.domain.importing import Imported
from genonaut.worker.rendering import Renderer

SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".avif", ".gif", ".tif", ".tiff", ".bmp")
)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_SHORT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN))

_DEEPEST = 100
"""Folders inside one another; each that is walked is held open."""

Place = tuple[tuple[int, str], ...]
"""Names from the folder down, each after 0 for a file or 1 for a folder.

A name is the Latin-1 text of its bytes: file systems promise no encoding, a checkpoint wants one.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A file with the name of a picture, and its place in the order.

    Or a folder that cannot be walked: then ``error`` says why.
    """

    place: Place
    error: str | None = None

    @property
    def path(self) -> str:
        """Its path below the folder, fit to be shown: what cannot be printed is escaped."""
        return "/".join(_shown(name) for _, name in self.place) or "."


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is not taken in, and why."""

    path: str
    error: str


@contextmanager
def opened(root: Path, below: str = "") -> Iterator[int]:
    """Open a folder by its path below ``root``; give its descriptor.

    Raises: InvalidInputError: there is no such folder, or a link is on the way.
    """
    parts = PurePosixPath(below).parts
    if PurePosixPath(below).is_absolute() or ".." in parts or "\0" in below:
        raise InvalidInputError("folder: must be a path below the root", field="folder")
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInputError("the folder cannot be opened", field="folder") from error
    try:
        for part in parts:
            try:
                inner = os.open(part, _FOLDER, dir_fd=folder)
            except OSError as error:
                raise InvalidInputError(
                    "folder: there is no such folder, or it is a link", field="folder"
                ) from error
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def walk(folder: int, above: Place = ()) -> Iterator[Found]:
    """Give the files that are named like pictures, in an order that does not change.

    A folder's files come first, then its folders; one that cannot be read is given itself.
    """
    folders = []
    try:
        with os.scandir(folder) as entries:
            found = sorted((_name(entry), entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError as error:
        yield Found(above, f"The folder cannot be read: {_reason(error)}.")
        return
    for name, is_folder in found:
        if is_folder:
            folders.append(name)
        elif PurePosixPath(name).suffix.lower() in SUFFIXES:
            yield Found((*above, (0, name)))
    for name in folders:
        yield from _walk_inner(folder, (*above, (1, name)))


def _walk_inner(outer: int, place: Place) -> Iterator[Found]:
    if len(place) > _DEEPEST:
        yield Found(place, f"The folder is left out: it is more than {_DEEPEST} folders down.")
        return
    try:
        folder = os.open(_bytes(place[-1][1]), _FOLDER, dir_fd=outer)
    except OSError as error:
        yield Found(place, f"The folder cannot be read: {_reason(error)}.")
        return
    try:
        yield from walk(folder, place)
    finally:
        os.close(folder)


def take(folder: int, found: Found, storage: Storage, renderer: Renderer) -> Imported | Refused:
    """Read, check, clean and store one file; of one that changes meanwhile, what was read counts.

    Raises: RetryableError: it cannot be read, decoded or stored now.
    """
    if found.error is not None:
        return Refused(found.path, found.error)
    try:
        data = _read(folder, found)
        clean, info = renderer.clean(data)
    except UnreadableImageError as error:
        return Refused(found.path, f"{error} ({error.code})")
    except OSError as error:
        return Refused(found.path, f"The file cannot be read: {_reason(error)}.")
    return Imported(
        storage_key=storage.put(clean, mime=info.mime),
        mime=info.mime,
        width=info.width,
        height=info.height,
        bytes=len(clean),
        made=embedded_graph.read(data),
        path=found.path,
    )


def _read(folder: int, found: Found) -> bytes:
    *above, (_, name) = found.place
    with _inside(folder, [part for _, part in above]) as inner:
        file = os.open(_bytes(name), _FILE, dir_fd=inner)
    with os.fdopen(file, "rb") as source:
        if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
            raise UnreadableImageError("It is not a plain file.")
        return source.read(imaging.MAX_BYTES + 1)


@contextmanager
def _inside(folder: int, parts: Sequence[str]) -> Iterator[int]:
    inner = os.dup(folder)
    try:
        for part in parts:
            deeper = os.open(_bytes(part), _FOLDER, dir_fd=inner)
            os.close(inner)
            inner = deeper
        yield inner
    finally:
        os.close(inner)


def _name(entry: os.DirEntry[str]) -> str:
    return os.fsencode(entry.name).decode("latin-1")


def _bytes(name: str) -> bytes:
    return name.encode("latin-1")


def _shown(name: str) -> str:
    words = _bytes(name).decode(errors="backslashreplace")
    return "".join(ascii(char)[1:-1] if is_unprinted(char) else char for char in words)


def _reason(error: OSError) -> str:
    """Say why something cannot be read.

    Raises: RetryableError: the machine is short of something, and the file or folder may be good.
    """
    if error.errno in _SHORT:
        raise RetryableError(f"The folder cannot be read now: {os.strerror(error.errno)}.")
    return os.strerror(error.errno) if error.errno else type(error).__name__
