"""Keep pictures under the hash of their bytes: whole and durable, or not there."""

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat as file_modes
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO, Protocol

from genonaut.api.config import ConfigError, Settings
from genonaut.core.errors import (
    GenonautError,
    InvalidInputError,
    NotFoundError,
    RetryableError,
    StorageFullError,
    StoredFileError,
)
from genonaut.core.image_containers import EXTENSIONS

Guard = Callable[[str], AbstractContextManager[None]]
"""What is held while bytes of that hash are put."""

KEY = re.compile(
    rf"([0-9a-f]{{2}})/([0-9a-f]{{2}})/\1\2[0-9a-f]{{60}}\.({'|'.join(EXTENSIONS.values())})"
)
_SHARD = re.compile("[0-9a-f]{2}")
_TEMP_FOLDER = ".tmp"
_TEMP_LIFE = timedelta(days=1)
_FILE_MODE = 0o640
_FOLDER_MODE = 0o750
_FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
_PASSING = frozenset(
    (
        *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.EINTR),
        *(errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.ECONNRESET, errno.ECONNREFUSED),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    )
)
"""What says something of the machine or its network, and nothing of the file."""


@dataclass(frozen=True, slots=True)
class StoredStat:
    """Say how large a stored file is, bytes, and when it was last put."""

    size: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class ListedFile:
    """Name a stored file, with its size and when it was last put."""

    key: str
    size: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class StoredFile:
    """Hold an open file, to be closed by the caller, and what it was when opened."""

    file: BinaryIO
    size: int
    modified_at: datetime


class Storage(Protocol):
    """Keep bytes under keys of its own making.

    Every method raises RetryableError when the store does not answer, and NotFoundError for a key
    that it never made.
    """

    def put(self, data: bytes, *, mime: str) -> str:
        """Store the bytes and give their key; the same bytes give the same key, and count as new.

        Raises: StorageFullError: there is no room. InvalidInputError: ``mime`` is no picture's.
        """
        ...

    def open(self, key: str) -> StoredFile:
        """Open for reading. Raises: NotFoundError: it is not there."""
        ...

    def read(self, key: str) -> bytes:
        """Give all the bytes.

        Raises: NotFoundError: they are not there. StoredFileError: it is these that cannot be read.
        """
        ...

    def exists(self, key: str) -> bool:
        """Say whether something is stored under the key; false for what is no key."""
        ...

    def stat(self, key: str) -> StoredStat:
        """Give size and age. Raises: NotFoundError: it is not there."""
        ...

    def delete(self, key: str) -> None:
        """Remove what is stored under the key; nothing there is fine."""
        ...

    def list_files(self) -> Iterator[ListedFile]:
        """Give every stored file, by key; what comes or goes meanwhile may be left out."""
        ...

    def free_bytes(self) -> int | None:
        """Say how much room there is; None for a store without a limit."""
        ...

    def check(self) -> None:
        """See whether the store answers. Raises: RetryableError: it does not, and why."""
        ...


def open_storage(settings: Settings, *, guard: Guard | None = None) -> Storage:
    """Give the store that the settings name; nothing is contacted yet.

    Raises: ConfigError: it is an object store, and the package for that is missing.
    """
    guard = guard or unguarded
    if settings.storage_url is None:
        min_free_bytes = settings.storage_min_free_mb * 2**20
        return LocalStorage(settings.storage_path, min_free_bytes=min_free_bytes, guard=guard)
    try:
        from genonaut.clients.object_storage import Bucket, ObjectStorage
    except ModuleNotFoundError as error:
        raise ConfigError(
            "STORAGE_URL needs the package obstore: pip install 'genonaut[s3]'"
        ) from error
    return ObjectStorage(Bucket(settings.storage_url, settings.storage_options), guard=guard)


def unguarded(_: str) -> AbstractContextManager[None]:
    """Hold nothing."""
    return nullcontext()


def key_of(data: bytes, mime: str) -> tuple[str, str]:
    """Give the hash of a picture's bytes, and the key that they have in every store.

    Raises: InvalidInputError: ``mime`` is no picture's.
    """
    if mime not in EXTENSIONS:
        raise InvalidInputError(f"{mime!r} is not a picture's type.", field="mime")
    digest = hashlib.sha256(data).hexdigest()
    return digest, f"{digest[:2]}/{digest[2:4]}/{digest}.{EXTENSIONS[mime]}"


class LocalStorage:
    """Keep files in sharded folders under ``root`` (``ab/cd/<sha256>.<extension>``).

    Bytes are written beside, flushed to disk, then renamed, so a process killed at any point leaves
    at worst a stray file in ``.tmp``, for ``sweep_temp``. Two processes may put the same bytes at
    once. ``put`` refuses to leave less than ``min_free_bytes`` free. It holds ``guard``, given the
    hash of the bytes: whoever removes files holds it too.
    """

    def __init__(self, root: Path, *, min_free_bytes: int, guard: Guard = unguarded) -> None:
        self._root = root
        self._min_free_bytes = min_free_bytes
        self._guard = guard

    def put(self, data: bytes, *, mime: str) -> str:
        """Store the bytes and give their key; a file that is there already is touched and kept."""
        digest, key = key_of(data, mime)
        path = self._root / key
        with self._guard(digest), _own_errors():
            if not _touch(path, len(data)):
                self._write(path, data)
            # Also for a file found here: who renamed it may not have come this far.
            for folder in (path.parent, path.parent.parent, self._root):
                _flush_folder(folder)
        return key

    def open(self, key: str) -> StoredFile:
        """Open for reading."""
        path = self._path(key)
        with _own_errors(absent=NotFoundError):
            file = os.fdopen(_opened(path), "rb")
            found = os.fstat(file.fileno())
        return StoredFile(file, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def read(self, key: str) -> bytes:
        """Give all the bytes."""
        path = self._path(key)
        with (
            _own_errors(absent=NotFoundError, broken=StoredFileError),
            os.fdopen(_opened(path), "rb") as file,
        ):
            return file.read()

    def exists(self, key: str) -> bool:
        """Say whether something is stored under the key; false for what is no key."""
        try:
            self.stat(key)
        except NotFoundError:
            return False
        return True

    def stat(self, key: str) -> StoredStat:
        """Give size and age."""
        path = self._path(key)
        with _own_errors(absent=NotFoundError):
            found = path.stat()
        return StoredStat(found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))

    def delete(self, key: str) -> None:
        """Remove the file; none there is fine. Folders stay, for a ``put`` may be using them."""
        path = self._path(key)
        with _own_errors():
            path.unlink(missing_ok=True)

    def list_files(self) -> Iterator[ListedFile]:
        """Give every stored file, by key; other folders, which may be another's, are not opened."""
        for name in filter(_SHARD.fullmatch, _names(self._root)):
            for below in filter(_SHARD.fullmatch, _names(self._root / name)):
                for file in _names(self._root / name / below):
                    key = f"{name}/{below}/{file}"
                    if KEY.fullmatch(key):
                        with suppress(NotFoundError):
                            found = self.stat(key)
                            yield ListedFile(key, found.size, found.modified_at)

    def free_bytes(self) -> int:
        """Say how much room the disk has; the folder need not have been made yet."""
        folder = self._root
        with _own_errors():
            while not folder.exists():
                folder = folder.parent
            return shutil.disk_usage(folder).free

    def check(self) -> None:
        """See whether the disk answers, and lets this process into the folder."""
        self.free_bytes()
        with _own_errors(), suppress(FileNotFoundError):
            (self._root / _TEMP_FOLDER).stat()

    def sweep_temp(self, now: datetime) -> int:
        """Remove what killed writers left more than a day before ``now``; give the number."""
        oldest = (now - _TEMP_LIFE).timestamp()
        removed = 0
        with _own_errors():
            folder = self._root / _TEMP_FOLDER
            for path in folder.iterdir() if folder.is_dir() else ():
                with suppress(FileNotFoundError):  # its writer, or another sweep, was quicker
                    if path.stat().st_mtime < oldest:
                        path.unlink()
                        removed += 1
        return removed

    def _path(self, key: str) -> Path:
        if not KEY.fullmatch(key):
            raise NotFoundError("There is no such picture.")
        return self._root / key

    def _write(self, path: Path, data: bytes) -> None:
        temp = self._root / _TEMP_FOLDER / f"{path.stem}.{secrets.token_hex(8)}"
        self._root.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        for folder in (temp.parent, path.parent.parent, path.parent):
            folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)
        self._check_room(len(data))
        try:
            with open(temp, "xb", opener=_create) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temp.replace(path)
        except BaseException:
            temp.unlink(missing_ok=True)
            raise

    def _check_room(self, size: int) -> None:
        volume = os.statvfs(self._root)
        if volume.f_bavail * volume.f_frsize - size < self._min_free_bytes:
            raise StorageFullError("The disk that keeps the pictures has no room.")


def _names(folder: Path) -> list[str]:
    """List a folder; what is no folder, or is gone, holds nothing."""
    with _own_errors():
        try:
            return sorted(path.name for path in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []


def _create(path: str, flags: int) -> int:
    return os.open(path, flags, _FILE_MODE)


def _opened(path: Path) -> int:
    """Open a plain file, and nothing else: of a pipe one would wait for ever."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not file_modes.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "not a plain file")
    return handle


def _touch(path: Path, size: int) -> bool:
    """Make a whole file at ``path`` look new; say whether there was one."""
    try:
        found = path.stat()
        if not file_modes.S_ISREG(found.st_mode) or found.st_size != size:
            return False
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _flush_folder(folder: Path) -> None:
    """Make the names in ``folder`` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _own_errors(
    *, absent: type[GenonautError] = RetryableError, broken: type[RetryableError] = RetryableError
) -> Iterator[None]:
    """Turn the system's errors into ours, without the server's paths."""
    try:
        yield
    except FileNotFoundError as error:
        raise absent("There is no such picture.") from error
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError("The disk that keeps the pictures has no room.") from error
        reason = error.strerror or type(error).__name__
        kind = RetryableError if error.errno in _PASSING else broken
        raise kind(f"The picture store failed: {reason}.") from error
