"""Decode pictures of strangers in a process of its own, which nobody misses if they kill it.

Started by ``genonaut.worker.rendering``. A request on standard input is a header, JSON and the
picture's bytes; an answer on standard output is a header, JSON and the bytes made.
"""

import ctypes
import json
import math
import os
import queue
import resource
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from genonaut.core import image_opening, imaging
from genonaut.core.errors import UnreadableImageError
from genonaut.core.thumbnails import ThumbSpec, thumbnails

HEADER = struct.Struct("!II")
"""The lengths of the JSON and of the bytes behind it."""

READY = b"."
"""What a child says when it has started."""

_ARENA_MAX, _MMAP_THRESHOLD, _TRIM_THRESHOLD = -8, -3, -1
_MALLOC = {_ARENA_MAX: 1, _MMAP_THRESHOLD: 20 * 2**20, _TRIM_THRESHOLD: 96 * 2**20}
_RESIDENT_MAX = 120 * 2**20

Message = tuple[dict[str, Any], bytes]


def main() -> None:
    """Answer requests, one after the other, until standard input ends."""
    limits = json.loads(sys.argv[1])
    for ignored in (signal.SIGINT, signal.SIGTERM):  # meant for the parent, with whom this ends
        signal.signal(ignored, signal.SIG_IGN)
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    if taken := _address_space():
        _limit(resource.RLIMIT_AS, taken + limits["memory_bytes"])
    _limit(resource.RLIMIT_CORE, 0)
    _hush()
    _keep_freed_memory()
    threading.excepthook = _end_with
    threading.Thread(target=_answer_all, args=(requests, limits["cpu_s"]), daemon=True).start()
    os.write(sys.stdout.fileno(), READY)
    # Read while decoding too: so this ends with its parent, and not with a picture.
    source = sys.stdin.buffer
    while message := _received(source):
        requests.put(message)
    os._exit(0)


def answer(request: dict[str, Any], data: bytes) -> Message:
    """Do what is asked with the picture ``data``; an error of the picture's is an answer too."""
    try:
        return _CALLS[request["call"]](request, data)
    except UnreadableImageError as error:
        return {"error": error.code, "message": str(error)}, b""


def _thumbnails(request: dict[str, Any], data: bytes) -> Message:
    spec: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in request["spec"].items()
    }
    made = thumbnails(data, ThumbSpec(**spec), max_pixels=request["max_pixels"])
    listed = [
        {
            "edge": edge,
            "form": form,
            "width": one.width,
            "height": one.height,
            "mime": one.mime,
            "bytes": len(one.data),
        }
        for (edge, form), one in made.items()
    ]
    return {"thumbnails": listed}, b"".join(one.data for one in made.values())


def _clean(request: dict[str, Any], data: bytes) -> Message:
    with image_opening.opened(data, max_pixels=request["max_pixels"]):
        pass
    clean = imaging.strip_metadata(data, imaging.inspect(data))
    return {"info": asdict(imaging.inspect(clean))}, clean


_CALLS: dict[str, Callable[[dict[str, Any], bytes], Message]] = {
    "thumbnails": _thumbnails,
    "clean": _clean,
}


def _answer_all(requests: "queue.SimpleQueue[Message]", cpu_s: float) -> None:
    while True:
        request, data = requests.get()
        _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + cpu_s))
        said, made = answer(request, data)
        _give_back()  # before the parent hears of it and sends the next large one elsewhere
        text = json.dumps(said).encode()
        sys.stdout.buffer.write(HEADER.pack(len(text), len(made)) + text)
        sys.stdout.buffer.write(made)
        sys.stdout.buffer.flush()


def _received(source: BinaryIO) -> Message | None:
    header = source.read(HEADER.size)
    if len(header) < HEADER.size:
        return None
    text_length, data_length = HEADER.unpack(header)
    text, data = source.read(text_length), source.read(data_length)
    return (json.loads(text), data) if len(data) == data_length else None


def _limit(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(what, (value, hard))


def _address_space() -> int:
    return _memory(0)


def _resident() -> int:
    return _memory(1)


def _memory(column: int) -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[column])
    except OSError:  # no /proc: such systems do not keep the limit either
        return 0
    return pages * resource.getpagesize()


def _hush() -> None:
    """Keep from the log what C libraries say of broken files, line by line; Python may speak."""
    sys.stderr = os.fdopen(os.dup(sys.stderr.fileno()), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _keep_freed_memory() -> None:
    """Let the next picture have what the last one took: new pages cost a fifth of the time."""
    with suppress(OSError, AttributeError):  # where glibc is not
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _MALLOC.items():
            mallopt(option, value)


def _give_back() -> None:
    """Hold no more than the usual picture needs: a huge one's memory may be kept for thousands."""
    if _resident() > _RESIDENT_MAX:
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _end_with(args: threading.ExceptHookArgs) -> None:
    try:
        threading.__excepthook__(args)
        sys.stderr.flush()
    finally:
        os._exit(os.EX_SOFTWARE)


if __name__ == "__main__":
    main()
