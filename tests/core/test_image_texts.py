"""Texts beside the pixels: found where they are, bounded, and harmless whatever they are."""

import io
import struct
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genonaut.core.image_texts import text
from tests.core.pictures import encode, exif, picture
from tests.core.test_imaging_hostile import WHOLE, chunk, png

KEYWORDS = (
    *("first", "plain", "packed", "old", "prompt", "workflow", "other", "good", "\0b"),
    *"abcdef",
)


def texts(data, *, max_bytes):
    found = {one: text(data, one, max_bytes=max_bytes) for one in KEYWORDS}
    return {keyword: words for keyword, words in found.items() if words is not None}


def told(*chunks, max_bytes=1000):
    return texts(png(before_idat=b"".join(chunks)), max_bytes=max_bytes)


def test_each_kind_of_text_in_a_png_is_found():
    assert told(
        chunk(b"tEXt", b"first\0gr\xfcn"),
        chunk(b"tEXt", b"first\0again"),
        chunk(b"iTXt", "plain\0\0\0de\0einfach\0grün".encode()),
        chunk(b"iTXt", b"packed\0\x01\0\0\0" + zlib.compress("grün".encode())),
        chunk(b"zTXt", b"old\0\0" + zlib.compress(b"gr\xfcn")),
        chunk(b"comf", b"prompt\0{}"),
        chunk(b"teXt", b"other\0x"),
    ) == {"first": "grün", "plain": "grün", "packed": "grün", "old": "grün", "prompt": "{}"}


@pytest.mark.parametrize("length", [2000, 10**7])
def test_what_is_too_large_or_broken_is_left_out(length):
    packed = zlib.compress(b"x" * length)
    assert told(
        chunk(b"zTXt", b"a\0\0" + packed),
        chunk(b"iTXt", b"b\0\x01\0\0\0" + packed),
        chunk(b"tEXt", b"c\0" + b"x" * 2000),
        chunk(b"zTXt", b"d\0\0" + packed[:-1]),
        chunk(b"zTXt", b"e\0\0rubbish"),
        chunk(b"iTXt", b"f"),
        chunk(b"tEXt", b"good\0yes"),
    ) == {"good": "yes"}


@pytest.mark.parametrize("ending", [b"", b"x"])
def test_many_bombs_cost_no_more_than_one(ending):
    """Whatever their keywords, and whether or not what they inflate to is whole."""
    max_bytes = 2**20
    packed = zlib.compress(b"x" * (max_bytes - 1))
    bomb = packed if not ending else packed[:-4]
    others = [chunk(b"zTXt", b"k%d\0\0" % n + packed) for n in range(500)]
    wanted = [chunk(b"zTXt", b"prompt\0\0" + bomb + ending) for _ in range(500)]
    data = png(before_idat=b"".join([*others, *wanted, chunk(b"tEXt", b"prompt\0late")]))
    tracemalloc.start()
    began = time.thread_time()
    found = text(data, "prompt", max_bytes=max_bytes)
    spent_s = time.thread_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == ("late" if ending else "x" * (max_bytes - 1))
    assert peak < 8 * max_bytes
    assert spent_s < 0.5


def test_what_comes_before_damage_counts():
    data = png(before_idat=chunk(b"tEXt", b"a\0b"))
    assert texts(data[:-5], max_bytes=9) == {"a": "b"}


def tagged(order, *entries):
    """Make a TIFF structure of entries: tag, type, count, offset or value."""
    head = struct.pack(f"{order}HII", 42, 8, 0)[:6]
    body = b"".join(struct.pack(f"{order}HHII", *entry) for entry in entries)
    return (b"II" if order == "<" else b"MM") + head + struct.pack(f"{order}H", len(entries)) + body


@pytest.mark.parametrize("order", "<>")
def test_a_directory_that_lies_tells_what_is_within_bounds(order):
    words = b"prompt:yes\0"
    at = 10 + 12 * 4
    data = tagged(
        order,
        (0x0110, 2, len(words), at),
        (0x010F, 2, 2**32 - 1, at),
        (0x010E, 12, len(words), at),
        (0x010D, 2, len(words), at),
    )
    assert texts(data + words, max_bytes=100) == {"prompt": "yes"}
    assert texts(data + words, max_bytes=5) == {}
    assert texts(tagged(order, (0x0110, 2, 50, 2**32 - 1)), max_bytes=100) == {}
    inline = tagged(order, (0x0110, 2, 4, int.from_bytes(b"a:b\0", "little")))
    assert texts(inline, max_bytes=100) == ({"a": "b"} if order == "<" else {"\0b": "a"})


def test_the_model_comes_before_the_make():
    tags = Image.Exif()
    tags[0x010F], tags[0x0110], tags[0x010E] = "prompt:2", "prompt:1", "Workflow:3"
    for kind in ("JPEG", "WEBP", "TIFF"):
        found = texts(encode(picture(), kind, exif=tags), max_bytes=100)
        assert found == {"prompt": "1", "workflow": "3"}


def test_pictures_of_cameras_tell_nothing():
    for data in (encode(picture(), "JPEG", exif=exif(6)), b"", b"RIFF", b"II*\0", b"\xff\xd8"):
        assert texts(data, max_bytes=100) == {}


@settings(max_examples=300, deadline=None)
@given(st.sampled_from((b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08")), st.binary(max_size=300))
def test_any_directory_is_survived_and_nothing_grows(head, body):
    found = texts(head + body, max_bytes=100)
    assert all(len(words) <= 100 for words in found.values())
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "WEBP", exif=head + body)
    assert texts(out.getvalue(), max_bytes=100) == found


@settings(deadline=None)
@given(st.sampled_from((b"tEXt", b"zTXt", b"iTXt", b"comf")), st.binary(max_size=200))
def test_any_chunk_is_survived(name, body):
    told(chunk(name, b"prompt\0" + body))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(WHOLE), st.floats(0, 1), st.binary(min_size=1, max_size=8))
def test_any_damage_is_survived(data, share, new):
    at = int(len(data) * share**2)
    texts(data[:at] + new + data[at + len(new) :], max_bytes=100)
    texts(data[:at], max_bytes=100)
