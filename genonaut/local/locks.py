"""Lock files that the kernel frees when their holder dies, however it dies."""

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from genonaut.local.errors import LocalError


class LockFile:
    """Hold a file's lock, alone or shared, until ``close`` or the end of the process.

    Programs we start do not inherit it. As a context manager it waits for the lock alone.
    """

    def __init__(self, path: Path, *, timeout_s: float = 90.0) -> None:
        self.path = path
        self.timeout_s = timeout_s
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LocalError(f"cannot use {path}: {error.strerror}") from error

    def try_lock(self, *, shared: bool = False) -> bool:
        """Take the lock if that is possible now, or change from alone to shared and back."""
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def lock(self, *, shared: bool = False) -> None:
        """Wait for the lock.

        Raises: LocalError: another process kept it for ``timeout_s``.
        """
        deadline = time.monotonic() + self.timeout_s
        while not self.try_lock(shared=shared):
            if time.monotonic() >= deadline:
                raise LocalError(f"another process has held {self.path} for {self.timeout_s:g} s")
            time.sleep(0.05)

    def read(self) -> str:
        """Give what the holder wrote."""
        return os.pread(self._fd, 4096, 0).decode(errors="replace")

    def write(self, text: str) -> None:
        """Leave a note for whoever finds the file locked."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def close(self) -> None:
        """Free the lock; the file stays, for removing it would split later holders in two."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        self.lock()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
