"""Walk the containers of PNG, JPEG, WebP and GIF, and leave out what is not pixels.

Nothing is decoded here: what is kept is kept byte for byte, so the pixels cannot change. Every walk
checks lengths (PNG: checksums too), refuses a file that ends early, and drops what follows the end.
"""

import re
import struct
from collections.abc import Iterator
from itertools import islice

from isal import isal_zlib

from genonaut.core.errors import UnreadableImageError

EXTENSIONS = {
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/webp": "webp",
    "image/avif": "avif",
    "image/gif": "gif",
    "image/tiff": "tiff",
    "image/bmp": "bmp",
}
"""The types that can be read, and the file extension of each."""

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_KEPT = frozenset(b"IHDR PLTE tRNS gAMA cHRM sRGB iCCP cICP IDAT acTL fcTL fdAT IEND".split())
_WEBP_KEPT = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP"))
_WEBP_METADATA_FLAGS = 0x08 | 0x04  # EXIF, XMP
_GIF_KEPT_APPLICATIONS = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")
JPEG_SCAN = 0xDA
"""The marker of a segment that compressed data follows."""

_JPEG_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
"""A marker inside compressed data: neither a stuffed byte nor a restart."""


def png_without_metadata(data: bytes, *, also_keep: frozenset[bytes] = frozenset()) -> bytes:
    """Keep the chunks that make the picture, and those named in ``also_keep``.

    Raises: UnreadableImageError: truncated, or a checksum is wrong.
    """
    kept = [PNG_SIGNATURE]
    for name, chunk in png_chunks(data):
        if name in PNG_KEPT or name in also_keep:
            kept.append(chunk)
    return b"".join(kept)


def jpeg_without_metadata(data: bytes) -> bytes:
    """Keep the tables, the scans, JFIF, Adobe's colour marker and the ICC profile.

    A second picture behind the first (MPO, gain maps) is dropped with its index.
    Raises: UnreadableImageError: truncated, or not a sequence of segments.
    """
    kept = [b"\xff\xd8"]
    for marker, body, whole in jpeg_segments(data):
        if _jpeg_keeps(marker, body):
            kept.append(whole)
    return b"".join((*kept, b"\xff\xd9"))


def jpeg_has_scans(data: bytes, count: int) -> bool:
    """Say whether a JPEG has so many scans: each costs a pass over all its pixels, however short.

    Raises: UnreadableImageError: truncated, or not a sequence of segments.
    """
    if data.count(b"\xff\xda") < count:  # of most files this is known without a walk
        return False
    scans = (marker for marker, _, _ in jpeg_segments(data) if marker == JPEG_SCAN)
    return next(islice(scans, count - 1, None), None) is not None


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Give marker, body and whole of each segment up to the end of the picture.

    What follows a scan's body is its compressed data, and part of its whole.
    Raises: UnreadableImageError: truncated, or not a sequence of segments.
    """
    at = 2
    while True:
        start = at
        while data[at : at + 1] == b"\xff":
            at += 1
        marker = data[at : at + 1]
        if at == start or not marker:
            raise UnreadableImageError("The JPEG is truncated or broken.")
        at += 1
        if marker == b"\xd9":
            return
        end = at + _unpack(">H", data, at)
        if end < at + 2 or end > len(data):
            raise UnreadableImageError("The JPEG is truncated or broken.")
        body = data[at + 2 : end]
        if marker[0] == JPEG_SCAN:
            scan_end = _JPEG_MARKER.search(data, end)
            if scan_end is None:
                raise UnreadableImageError("The JPEG is truncated.")
            end = scan_end.start()
        yield marker[0], body, b"\xff" + marker + data[at:end]
        at = end


def webp_without_metadata(data: bytes) -> bytes:
    """Keep the picture's, the animation's and the ICC profile's chunks.

    Raises: UnreadableImageError: truncated.
    """
    kept = []
    for name, body in webp_chunks(data):
        if name == b"VP8X":
            flags = _unpack("B", body, 0) & ~_WEBP_METADATA_FLAGS
            kept.append(_webp_chunk(name, bytes((flags,)) + body[1:]))
        elif name in _WEBP_KEPT:
            kept.append(_webp_chunk(name, body))
    payload = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(payload)) + payload


def webp_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the first chunk, before a decoder makes room for them.

    Raises: UnreadableImageError: truncated, or no picture chunk comes first.
    """
    name = data[12:16]
    if name == b"VP8X":
        size = _unpack("<I", data[24:27] + b"\0", 0) + 1, _unpack("<I", data[27:30] + b"\0", 0) + 1
    elif name == b"VP8L":
        bits = _unpack("<I", data, 21)
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif name == b"VP8 ":
        size = _unpack("<H", data, 26) & 0x3FFF, _unpack("<H", data, 28) & 0x3FFF
    else:
        raise UnreadableImageError("The WebP holds no picture.")
    return size


def gif_without_metadata(data: bytes) -> bytes:
    """Keep the frames, their timing, the loop count and the ICC profile.

    Raises: UnreadableImageError: truncated.
    """
    at = 13 + _gif_table(_unpack("B", data, 10))
    kept = [data[:at]]
    while True:
        start, kind = at, data[at : at + 1]
        if kind == b";":
            return b"".join((*kept, b";"))
        if kind == b",":
            at = _gif_blocks_end(data, at + 11 + _gif_table(_unpack("B", data, at + 9)))
            kept.append(data[start:at])
        elif kind == b"!":
            label = data[at + 1 : at + 2]
            at = _gif_blocks_end(data, at + 2)
            application = data[start + 3 : start + 14]
            if label == b"\xf9" or (label == b"\xff" and application in _GIF_KEPT_APPLICATIONS):
                kept.append(data[start:at])
        else:
            raise UnreadableImageError("The GIF is truncated or broken.")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give name and whole of each chunk up to IEND.

    Raises: UnreadableImageError: truncated, or a checksum is wrong.
    """
    if not data.startswith(PNG_SIGNATURE):
        raise UnreadableImageError("The file is not a PNG.")
    at = len(PNG_SIGNATURE)
    name = b""
    while name != b"IEND":
        length = _unpack(">I", data, at)
        name = data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise UnreadableImageError("The PNG is truncated.")
        if isal_zlib.crc32(memoryview(data)[at + 4 : end - 4]) != _unpack(">I", data, end - 4):
            raise UnreadableImageError("The PNG is damaged: a checksum does not match.")
        yield name, data[at:end]
        at = end


def _jpeg_keeps(marker: int, body: bytes) -> bool:
    if marker == 0xE0:
        return body.startswith(b"JFIF\0")
    if marker == 0xE2:
        return body.startswith(b"ICC_PROFILE\0")
    if marker == 0xEE:
        return body.startswith(b"Adobe")
    return not (0xE0 <= marker <= 0xEF or marker == 0xFE)


def webp_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Give name and body of each chunk.

    Raises: UnreadableImageError: truncated.
    """
    end = 8 + _unpack("<I", data, 4)
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or end > len(data):
        raise UnreadableImageError("The WebP is truncated.")
    at = 12
    while at < end:
        length = _unpack("<I", data, at + 4)
        body = data[at + 8 : at + 8 + length]
        if at + 8 + length > end:
            raise UnreadableImageError("The WebP is truncated.")
        yield data[at : at + 4], body
        at += 8 + length + length % 2


def _webp_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _gif_table(flags: int) -> int:
    """Give the length of the colour table that ``flags`` announces."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, at: int) -> int:
    while length := _unpack("B", data, at):
        at += 1 + length
    return at + 1


def _unpack(layout: str, data: bytes, at: int) -> int:
    try:
        value: int = struct.unpack_from(layout, data, at)[0]
    except struct.error as error:
        raise UnreadableImageError("The image is truncated.") from error
    return value
