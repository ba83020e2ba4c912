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


def texts(data: bytes, *, max_bytes: int) -> dict[str, str]:
    """Give the texts of a picture by keyword; none of a file that is no picture.

    Of a PNG: tEXt, zTXt, iTXt, and comf, which ComfyUI writes into animations. Of JPEG, WebP and
    TIFF: what stands as ``keyword:text`` in EXIF's Model, Make and ImageDescription, where ComfyUI
    and its nodes leave it; the keyword in lower case. A text of more than ``max_bytes`` is left
    out; of a keyword that comes twice the first counts.
    """
    found: dict[str, str] = {}
    try:
        for keyword, text in _all(data, max_bytes):
            found.setdefault(keyword, text)
    except (UnreadableImageError, struct.error):
        pass  # what came before is as good as it was
    return found


def _all(data: bytes, max_bytes: int) -> Iterator[tuple[str, str]]:
    if data.startswith(image_containers.PNG_SIGNATURE):
        yield from _png(data, max_bytes)
        return
    for tag in _exif(_exif_block(data), max_bytes):
        keyword, colon, text = tag.partition(":")
        if colon:
            yield keyword.strip().lower(), text


def _png(data: bytes, max_bytes: int) -> Iterator[tuple[str, str]]:
    for name, chunk in image_containers.png_chunks(data):
        if name not in {b"tEXt", b"zTXt", b"iTXt", b"comf"} or len(chunk) > max_bytes + 12:
            continue
        keyword, _, body = chunk[8:-4].partition(b"\0")
        is_compressed = name == b"zTXt"
        if name == b"zTXt":
            body = body[1:]
        elif name == b"iTXt":
            is_compressed = body[:1] != b"\0"
            body = body[2:].partition(b"\0")[2].partition(b"\0")[2]  # behind the languages
        inflated = _inflated(body, max_bytes) if is_compressed else body
        if inflated is not None:
            encoding = "utf-8" if name == b"iTXt" else "latin-1"
            yield keyword.decode("latin-1"), inflated.decode(encoding, "replace")


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
