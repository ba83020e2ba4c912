"""Decode the PNGs that nearly every picture is, in two thirds of Pillow's time.

What ComfyUI saves has 8 bits, RGB or RGBA, and nothing unusual. For that ISA-L inflates, and
libspng undoes the filters of what then needs no inflating any more. Anything else, and whatever is
wrong with a file, is Pillow's.
"""

import struct
import zlib

import pyspng
from isal import isal_zlib
from isal.igzip_lib import IsalError
from PIL import Image

from genonaut.core.image_containers import PNG_SIGNATURE

MAX_PIXELS = 16_000_000
"""Larger ones are held more often on this way than memory allows."""

_PLAIN = frozenset(b"IHDR gAMA cHRM sRGB iCCP cICP IDAT IEND".split())
_MODES = {2: ("RGB", 3), 6: ("RGBA", 4)}
_BLOCK = 65_535


def decoded(chunks: list[tuple[bytes, bytes]]) -> Image.Image | None:
    """Give the pixels, as Pillow would, of a PNG's ``chunks`` (name, whole chunk); None if unsure.

    Checksums of chunks are taken as checked. Profile and metadata are not looked at.
    """
    names = [name for name, _ in chunks]
    if names[:1] != [b"IHDR"] or names.count(b"IHDR") > 1 or not _PLAIN.issuperset(names):
        return None
    header = chunks[0][1]
    if len(header) != 25:
        return None
    width, height, depth, kind, *rest = struct.unpack_from(">IIBBBBB", header, 8)
    if depth != 8 or kind not in _MODES or any(rest) or not 0 < width * height <= MAX_PIXELS:
        return None
    mode, channels = _MODES[kind]
    length = height * (1 + width * channels)
    parts = _in_one_piece(chunks)
    raw = _inflated(b"".join(parts), length) if parts else None
    if raw is None:
        return None
    try:
        pixels = pyspng.load(PNG_SIGNATURE + header + _stored(raw) + _END)
    except (RuntimeError, ValueError):
        return None
    image = Image.fromarray(pixels)
    return image if (image.mode, image.size) == (mode, (width, height)) else None


def _in_one_piece(chunks: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Give the compressed pixels; nothing if another chunk is among them, which Pillow refuses."""
    at = [n for n, (name, _) in enumerate(chunks) if name == b"IDAT"]
    is_whole = bool(at) and at[-1] - at[0] == len(at) - 1
    return [chunks[n][1][8:-4] for n in at] if is_whole else []


def _inflated(data: bytes, length: int) -> bytes | None:
    inflater = isal_zlib.decompressobj()
    try:
        raw: bytes = inflater.decompress(data, length + 1)
    except IsalError:  # type: ignore[misc]  # its stub hides that it is an exception
        return None
    return raw if len(raw) == length and inflater.eof else None


def _stored(raw: bytes) -> bytes:
    """Write an IDAT chunk whose zlib stream is not compressed."""
    view = memoryview(raw)
    parts: list[bytes | memoryview] = [b"\x78\x01"]
    for at in range(0, len(raw), _BLOCK):
        block = view[at : at + _BLOCK]
        size, is_last = len(block), at + _BLOCK >= len(raw)
        parts += (struct.pack("<BHH", is_last, size, size ^ 0xFFFF), block)
    parts.append(struct.pack(">I", isal_zlib.adler32(raw)))
    return _chunk(b"IDAT", b"".join(parts))


def _chunk(name: bytes, body: bytes) -> bytes:
    checksum = isal_zlib.crc32(body, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(body)), name, body, struct.pack(">I", checksum)))


_END = _chunk(b"IEND", b"")
