"""Keep pictures in an object store: Amazon's S3, or what speaks like it."""

import io
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.exceptions import NotFoundError as AbsentError
from obstore.store import S3Store

from genonaut.clients.storage import (
    KEY,
    Guard,
    ListedFile,
    StoredFile,
    StoredStat,
    key_of,
    unguarded,
)
from genonaut.core.errors import GenonautError, NotFoundError, RetryableError, StoredFileError

_CONNECT_TIMEOUT = "5s"
_TIMEOUT = "60s"
_LARGE = 5 * 2**20
_LARGE_TIMEOUT = "180s"
_RETRIES = 3
_RETRY_TIMEOUT = timedelta(seconds=30)
_PAGE = 1000
_STEP = 512 * 1024
"""So much is fetched at once while a file is sent."""

_A_SECOND = timedelta(seconds=1)

_REFUSED = re.compile("status code: 4(?!08|29)")
"""How obstore tells of an answer that says no, for the like of which it has no error of its own."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """Say where: ``url`` is ``s3://bucket/prefix``, ``options`` are obstore's S3 settings."""

    url: str
    options: Mapping[str, str]

    @property
    def name(self) -> str:
        """The bucket."""
        return urlsplit(self.url).netloc

    @property
    def prefix(self) -> str | None:
        """What every key in the bucket begins with."""
        return urlsplit(self.url).path.strip("/") or None


class ObjectStorage:
    """Keep objects named ``prefix/ab/cd/<sha256>.<extension>`` in a bucket that is there.

    An object appears whole or not at all, so nothing unfinished is ever seen. It is sent in one
    piece, however large: of several, a killed sender would leave some that no listing shows. The
    same bytes put again are sent again, which is how the object counts as new. The store tells
    times in whole seconds; they are rounded up, so that nothing seems older than it is. There is no
    limit of room to watch. The store is contacted when first used, not before: its threads do not
    survive a fork.
    """

    def __init__(self, bucket: Bucket, *, guard: Guard = unguarded) -> None:
        self._bucket = bucket
        self._guard = guard
        self._lock = threading.Lock()
        self._opened: dict[str, S3Store] = {}

    def put(self, data: bytes, *, mime: str) -> str:
        """Store the bytes and give their key."""
        digest, key = key_of(data, mime)
        timeout = _TIMEOUT if len(data) <= _LARGE else _LARGE_TIMEOUT
        with self._guard(digest), self._own_errors():
            store = self._open(timeout)
            store.put(key, data, attributes={"Content-Type": mime}, use_multipart=False)
        return key

    def open(self, key: str) -> StoredFile:
        """Open for reading; parts are fetched as they are read."""
        found = self.stat(key)
        file = io.BufferedReader(_Reader(self, key, found.size), _STEP)
        return StoredFile(cast(BinaryIO, file), found.size, found.modified_at)

    def read(self, key: str) -> bytes:
        """Give all the bytes."""
        with self._own_errors(absent=NotFoundError, broken=StoredFileError):
            return bytes(self._store.get(_checked(key)).bytes())

    def read_part(self, key: str, start: int, length: int) -> bytes:
        """Give ``length`` bytes from ``start`` on. Raises: NotFoundError: it is gone."""
        with self._own_errors(absent=NotFoundError):
            return bytes(self._store.get_range(_checked(key), start=start, length=length))

    def exists(self, key: str) -> bool:
        """Say whether something is stored under the key; false for what is no key."""
        try:
            self.stat(key)
        except NotFoundError:
            return False
        return True

    def stat(self, key: str) -> StoredStat:
        """Give size and age."""
        with self._own_errors(absent=NotFoundError):
            found = self._store.head(_checked(key))
        return StoredStat(found["size"], _rounded_up(found["last_modified"]))

    def delete(self, key: str) -> None:
        """Remove the object; none there is fine."""
        with self._own_errors(absent=None):
            self._store.delete(_checked(key))

    def list_files(self) -> Iterator[ListedFile]:
        """Give every stored file, by key, a page of the listing at a time."""
        with self._own_errors():
            pages = iter(self._store.list(chunk_size=_PAGE))
        while True:
            with self._own_errors():
                page = next(pages, None)
            if page is None:
                return
            for found in page:
                if KEY.fullmatch(found["path"]):
                    modified_at = _rounded_up(found["last_modified"])
                    yield ListedFile(found["path"], found["size"], modified_at)

    def free_bytes(self) -> None:
        """Say that there is no limit."""

    def check(self) -> None:
        """Ask the bucket for something. Raises: RetryableError: it does not answer, and why."""
        with self._own_errors():
            next(iter(self._store.list(chunk_size=1)), None)

    @property
    def _store(self) -> S3Store:
        return self._open(_TIMEOUT)

    def _open(self, timeout: str) -> S3Store:
        with self._lock:
            if timeout not in self._opened:
                self._opened[timeout] = S3Store(
                    self._bucket.name,
                    prefix=self._bucket.prefix,
                    config=dict(self._bucket.options),  # type: ignore[arg-type]
                    client_options={
                        "connect_timeout": _CONNECT_TIMEOUT,
                        "timeout": timeout,
                        "allow_http": True,
                    },
                    retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIMEOUT},
                )
            return self._opened[timeout]

    @contextmanager
    def _own_errors(
        self,
        *,
        absent: type[GenonautError] | None = RetryableError,
        broken: type[RetryableError] = RetryableError,
    ) -> Iterator[None]:
        """Turn obstore's errors into ours, without addresses, accounts and XML."""
        try:
            yield
        except (AbsentError, FileNotFoundError) as error:
            if absent is NotFoundError:
                raise NotFoundError("There is no such picture.") from error
            if absent is not None:
                raise self._silent("it is not there") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._silent("it refuses our credentials", broken) from error
        except (BaseError, OSError, ValueError) as error:
            kind = broken if _REFUSED.search(str(error)) else RetryableError
            raise self._silent("it is out of reach, or broken", kind) from error

    def _silent(self, reason: str, kind: type[RetryableError] = RetryableError) -> RetryableError:
        name = self._bucket.name
        return kind(f"The picture store, bucket '{name}', does not answer: {reason}.")


class _Reader(io.RawIOBase):
    """Read an object from any place on."""

    def __init__(self, storage: ObjectStorage, key: str, size: int) -> None:
        super().__init__()
        self._storage = storage
        self._key = key
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        part = self._storage.read_part(self._key, self._at, length)
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


def _checked(key: str) -> str:
    if not KEY.fullmatch(key):
        raise NotFoundError("There is no such picture.")
    return key


def _rounded_up(moment: datetime) -> datetime:
    whole = moment.astimezone(UTC).replace(microsecond=0)
    return whole + _A_SECOND
