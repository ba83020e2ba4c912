"""Make thumbnails of files found in the wild, whatever they do to a decoder.

Decoding happens in child processes that live on from picture to picture. One that takes too much
processor, time or memory, or that crashes, costs its picture and not the worker.
"""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Self

from genonaut.api.config import ROOT
from genonaut.core import errors
from genonaut.core.errors import (
    DecoderCrashError,
    ImageTimeoutError,
    ImageTooLargeError,
    RetryableError,
    UnreadableImageError,
)
from genonaut.core.imaging import MAX_PIXELS, ImageInfo
from genonaut.core.thumbnails import Thumbnail, Thumbnails, ThumbSpec
from genonaut.worker.rendering_child import HEADER, READY

_LIFE = 2_000
"""A child is replaced after so many pictures: what a decoder leaks ends with it."""

_LARGE_PIXELS = 4096 * 4096
"""Of larger pictures one at a time is decoded: it may take several hundred MiB."""

_START_S = 60
_LAST_WORDS_S = 5
_ANSWER_MAX = 512 * 2**20
_PIPE_BYTES = 2**20
_ERRORS = {
    kind.code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, UnreadableImageError)
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one picture may take; ``stall_s`` counts on when the machine has no time for it."""

    cpu_s: float = 20
    stall_s: float = 60
    memory_bytes: int = 2**30


class _ChildDiedError(Exception):
    """The process is gone; ``code`` is as Popen has it."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Renderer:
    """Do with pictures what ``genonaut.core`` does, at a safe distance.

    Up to ``processes`` at once (as many as there are processors), of large ones one, from any
    thread; children start when they are first needed and end with this process, however it ends.
    """

    def __init__(self, limits: Limits | None = None, *, processes: int | None = None) -> None:
        self._limits = limits or Limits()
        self._free = threading.BoundedSemaphore(processes or os.cpu_count() or 1)
        self._large = threading.Lock()
        self._idle: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def render(self, data: bytes, spec: ThumbSpec) -> Thumbnails:
        """Make thumbnails, as ``genonaut.core.thumbnails``.

        Raises:
            ImageTimeoutError: it took longer than it may.
            DecoderCrashError: a decoder died of it, twice.
            UnreadableImageError: unreadable, unsupported or too large.
            RetryableError: no child can be started.
        """
        said, made = self._ask({"call": "thumbnails", "spec": asdict(spec)}, data)
        found: Thumbnails = {}
        at = 0
        for one in said["thumbnails"]:
            part = made[at : at + one["bytes"]]
            found[one["edge"], one["form"]] = Thumbnail(
                part, one["width"], one["height"], one["mime"]
            )
            at += one["bytes"]
        return found

    def clean(self, data: bytes) -> tuple[bytes, ImageInfo]:
        """Check a picture and strip its metadata; give what is left and say what it is.

        Raises: as ``render``.
        """
        said, clean = self._ask({"call": "clean"}, data)
        return clean, ImageInfo(**said["info"])

    def close(self) -> None:
        """End the idle children; those at work end when they are done."""
        while self._idle:
            self._idle.pop().end()

    def after_fork(self) -> None:
        """Leave the children to the process that started them."""
        idle, self._idle = self._idle, []
        for child in idle:
            child.forget()

    def _ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        with self._free:
            said, made = self._tried({**request, "max_pixels": _LARGE_PIXELS}, data)
            if said.get("error") == ImageTooLargeError.code:  # so far it was only looked at
                with self._large:
                    said, made = self._tried({**request, "max_pixels": MAX_PIXELS}, data)
        if "error" in said:
            raise _ERRORS.get(said["error"], UnreadableImageError)(said["message"])
        return said, made

    def _tried(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        try:
            return self._answer(request, data)
        except _ChildDiedError:
            # Perhaps it was killed from outside; if the picture did it, it will again.
            try:
                return self._answer(request, data, anew=True)
            except _ChildDiedError as died:
                reason = _told(died.code)
                raise DecoderCrashError(f"The decoder died of it: {reason}.") from died

    def _answer(
        self, request: dict[str, Any], data: bytes, *, anew: bool = False
    ) -> tuple[dict[str, Any], bytes]:
        child = None if anew else self._taken()
        child = child or _Child(self._limits)
        try:
            if not child.asked:
                child.wait_until_ready()
            answered = child.ask(request, data)
        except BaseException:
            child.kill()
            raise
        if child.asked < _LIFE:
            self._idle.append(child)
        else:
            child.end()
        return answered

    def _taken(self) -> "_Child | None":
        try:
            return self._idle.pop()
        except IndexError:  # all are at work, or there was none yet
            return None


class _Child:
    """Talk to one process; after any error it must be killed.

    Raises: RetryableError: it cannot be started.
    """

    def __init__(self, limits: Limits) -> None:
        self.asked = 0
        self._limits = limits
        command = [sys.executable, "-m", "genonaut.worker.rendering_child"]
        try:
            self._process = subprocess.Popen(
                [*command, json.dumps(asdict(limits))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                cwd="/",
                env={"PYTHONPATH": str(ROOT)},  # no secret is within a decoder's reach
            )
        except OSError as error:  # no room for a process, or for its pipes
            raise RetryableError("No process that decodes pictures can be started.") from error
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both are pipes")
        self._in = self._process.stdin.fileno()
        self._out = self._process.stdout.fileno()
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)
            with suppress(OSError, AttributeError):  # a larger one only saves time
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def wait_until_ready(self) -> None:
        """Wait until it has started, so that no picture is charged for that.

        Raises: RetryableError: it does not start.
        """
        try:
            self._read(len(READY), time.monotonic() + _START_S)
        except (ImageTimeoutError, _ChildDiedError) as error:
            raise RetryableError("The process that decodes pictures does not start.") from error

    def ask(self, request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        """Send a request and wait for its answer.

        Raises: ImageTimeoutError, _ChildDiedError.
        """
        self.asked += 1
        until = time.monotonic() + self._limits.stall_s
        text = json.dumps(request).encode()
        self._write(HEADER.pack(len(text), len(data)) + text, until)
        self._write(data, until)
        text_length, data_length = HEADER.unpack(self._read(HEADER.size, until))
        if text_length + data_length > _ANSWER_MAX:
            raise _ChildDiedError(os.EX_PROTOCOL)
        return json.loads(self._read(text_length, until)), self._read(data_length, until)

    def end(self) -> None:
        """Let it end by itself, which it does at once."""
        self._close_pipes()
        self._process.wait()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self.end()

    def forget(self) -> None:
        """Close this process's copies of the pipes; the child is another process's."""
        self._close_pipes()
        self._process.returncode = 0  # or Popen would complain that it was not waited for

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _write(self, data: bytes, until: float) -> None:
        left = memoryview(data)
        while left:
            self._wait(self._in, select.POLLOUT, until)
            try:
                left = left[os.write(self._in, left) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self._died() from error

    def _read(self, length: int, until: float) -> bytes:
        parts = []
        while length:
            self._wait(self._out, select.POLLIN, until)
            part = os.read(self._out, length)
            if not part:
                raise self._died()
            parts.append(part)
            length -= len(part)
        return b"".join(parts)

    def _wait(self, pipe: int, event: int, until: float) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
            raise ImageTimeoutError(f"Decoding stood still for {self._limits.stall_s:g} s.")

    def _died(self) -> Exception:
        try:
            code = self._process.wait(_LAST_WORDS_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code == -signal.SIGXCPU:
            limit = f"{self._limits.cpu_s:g} s of the processor"
            return ImageTimeoutError(f"Decoding took more than {limit}.")
        return _ChildDiedError(code)


def _told(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"
