"""Read the texts that a picture carries beside its pixels, from the bytes alone.

Of a hostile file nothing is inflated or copied beyond a bound, and what is broken is left out.
"""

import struct
import zlib
from collections.abc import Iterator

from genonaut.core import image_containers
from genonaut.core.errors import UnreadableImageError

_EXIF = b"Exif\0\0"
_MODEL, _MAKE, _DESCRIPTION = 0x0110, 0x010F, 0x010E
_TEXT_TYPES = frozenset((1, 2, 7))
"""Bytes, ASCII and undefined, all of one byte each."""

_MAX_ENTRIES = 1_000
_MAX_RATIO = 1032
"""Deflate makes no more of a byte."""


def text(data: bytes, keyword: str, *, max_bytes: int) -> str | None:
    """Give the first text of a picture that stands under a keyword; None of a file without one.

    Of a PNG: tEXt, zTXt, iTXt, and comf, which ComfyUI writes into animations. Of JPEG, WebP and
    TIFF: what stands as ``keyword:text`` in EXIF's Model, Make and ImageDescription, where ComfyUI
    and its nodes leave it, in upper or lower case. A text of more than ``max_bytes`` is left out,
    and of a whole file no more than that is inflated, however many texts it has.
    """
    try:
        return next(_all(data, keyword, max_bytes), None)  # what comes behind it may be broken
    except (UnreadableImageError, struct.error):
        return None


def _all(data: bytes, keyword: str, max_bytes: int) -> Iterator[str]:
    if data.startswith(image_containers.PNG_SIGNATURE):
        yield from _png(data, keyword, max_bytes)
        return
    for tag in _exif(_exif_block(data), max_bytes):
        named, colon, found = tag.partition(":")
        if colon and named.strip().lower() == keyword:
            yield found


def _png(data: bytes, keyword: str, max_bytes: int) -> Iterator[str]:
    left = max_bytes
    for name, chunk in image_containers.png_chunks(data):
        if name not in {b"tEXt", b"zTXt", b"iTXt", b"comf"} or len(chunk) > max_bytes + 12:
            continue
        named, _, body = chunk[8:-4].partition(b"\0")
        if named.decode("latin-1") != keyword:
            continue
        is_compressed = name == b"zTXt"
        if name == b"zTXt":
            body = body[1:]
        elif name == b"iTXt":
            is_compressed = body[:1] != b"\0"
            body = body[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind the languages
        if is_compressed:
            inflated = _inflated(body, left)
            if inflated is None:
                left -= min(left, _MAX_RATIO * len(body))
                continue
            body = inflated
        yield body.decode("utf-8" if name == b"iTXt" else "latin-1", "replace")


def _inflated(body: bytes, max_bytes: int) -> bytes | None:
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(body, max_bytes + 1)
    except zlib.error:
        return None
    return inflated if stream.eof and len(inflated) <= max_bytes else None


def _exif_block(data: bytes) -> bytes:
    """Give the TIFF structure that holds EXIF's tags; nothing if there is none."""
    if data.startswith(b"\xff\xd8"):
        for marker, body, _ in image_containers.jpeg_segments(data):
            if marker == 0xE1 and body.startswith(_EXIF):
                return body.removeprefix(_EXIF)
            if marker == image_containers.JPEG_SCAN:
                return b""
    if data.startswith(b"RIFF"):
        for name, body in image_containers.webp_chunks(data):
            if name == b"EXIF":
                return body.removeprefix(_EXIF)
    return data if data.startswith((b"II*\0", b"MM\0*")) else b""


def _exif(block: bytes, max_bytes: int) -> Iterator[str]:
    """Give the texts of the first directory's tags that may hold one, Model first."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return
    (at,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, at)
    found = {}
    for n in range(min(count, _MAX_ENTRIES)):
        entry = at + 2 + 12 * n
        tag, kind, length = struct.unpack_from(f"{order}HHI", block, entry)
        if tag in {_MODEL, _MAKE, _DESCRIPTION} and kind in _TEXT_TYPES and length <= max_bytes:
            (start,) = struct.unpack_from(f"{order}I", block, entry + 8)
            start = entry + 8 if length <= 4 else start
            found[tag] = block[start : start + length]
    for tag in sorted(found, reverse=True):
        yield found[tag].rstrip(b"\0").decode(errors="replace")
