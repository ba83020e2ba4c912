import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genonaut.core.errors import UnreadableImageError
from genonaut.core.image_containers import png_chunks
from genonaut.core.image_opening import DECODER_ERRORS
from genonaut.core.png_decoding import decoded
from genonaut.core.thumbnails import ThumbSpec, thumbnails
from tests.core.pictures import SECRET, decode, encode, exif, picture
from tests.core.test_imaging_hostile import chunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunks(data):
    return list(png_chunks(data))


def filtered(pixels, size, kinds):
    """Write an RGB PNG whose rows have the filters ``kinds``, whatever they make of ``pixels``."""
    width, height = size
    rows = [
        bytes((kinds[n % len(kinds)],)) + pixels[n * width * 3 :][: width * 3]
        for n in range(height)
    ]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"".join(rows))
    return SIGNATURE + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (97, 65), (1, 300), (30_000, 1), (512, 512)])
def test_the_usual_png_is_decoded_as_pillow_does(mode, size):
    for level in (0, 4, 9):
        data = encode(picture(mode, size), "PNG", compress_level=level)
        ours, pillows = decoded(chunks(data)), decode(data)
        assert (ours.mode, ours.size) == (pillows.mode, pillows.size)
        assert ours.tobytes() == pillows.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    kinds=st.lists(st.integers(0, 4), min_size=1, max_size=9),
    seed=st.randoms(use_true_random=False),
)
def test_every_filter_is_undone(size, kinds, seed):
    data = filtered(seed.randbytes(size[0] * size[1] * 3), size, kinds)
    assert decoded(chunks(data)).tobytes() == decode(data).tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "I;16"])
def test_other_kinds_are_left_to_pillow(mode):
    assert decoded(chunks(encode(picture(mode), "PNG"))) is None


def test_what_changes_how_the_pixels_look_is_left_to_pillow():
    frames = {"save_all": True, "append_images": [picture().rotate(90)]}
    for options in ({"exif": exif(6)}, {"transparency": (1, 2, 3)}, frames):
        assert decoded(chunks(encode(picture(), "PNG", **options))) is None


def test_a_picture_whose_data_is_short_long_or_wrong_is_left_to_pillow():
    good = filtered(bytes(300), (10, 10), [1])
    header, idat, end = (one for _, one in chunks(good))
    raw = zlib.decompress(idat[8:-4])
    assert decoded(chunks(good))
    bodies = {
        "short": zlib.compress(raw[:-1]),
        "long": zlib.compress(raw + b"\0"),
        "no filter": zlib.compress(b"\x09" + raw[1:]),
        "cut off": zlib.compress(raw)[:-6],
        "wrong sum": zlib.compress(raw)[:-1] + b"\0",
        "not zlib": b"\0" * 50,
        "bomb": zlib.compress(bytes(2**24)),
        "nothing": b"",
    }
    for name, body in bodies.items():
        data = SIGNATURE + header + chunk(b"IDAT", body) + end
        assert decoded(chunks(data)) is None, name
    assert decoded([]) is None
    assert decoded([(b"IHDR", b"")]) is None


def test_pixels_with_another_chunk_among_them_are_left_to_pillow():
    header, idat, end = (one for _, one in chunks(filtered(bytes(300), (10, 10), [1])))
    body = idat[8:-4]
    halves = [chunk(b"IDAT", part) for part in (body[:9], b"", body[9:])]
    gamma = chunk(b"gAMA", struct.pack(">I", 45455))
    assert decoded(chunks(SIGNATURE + header + gamma + b"".join(halves) + gamma + end))
    doubled = SIGNATURE + header + halves[0] + halves[2] + header + end
    assert decoded(chunks(doubled)) is None
    split = SIGNATURE + header + halves[0] + gamma + halves[2] + end
    assert decoded(chunks(split)) is None
    with pytest.raises(OSError, match="truncated"):
        decode(split)


WHOLE = [
    encode(picture(mode, (23, 17)), "PNG", compress_level=level)
    for mode in ("RGB", "RGBA", "P", "L")
    for level in (0, 9)
]


@settings(max_examples=250, deadline=None)
@given(
    data=st.sampled_from(WHOLE),
    what=st.sampled_from(["header", "stream", "pixels", "chunks"]),
    chance=st.randoms(use_true_random=False),
)
def test_whatever_is_changed_pixels_given_are_those_of_pillow(data, what, chance):
    """The checksums are right again, so that the change gets past them."""
    parts = [(name, one[8:-4]) for name, one in chunks(data)]
    place = {"header": 0, "chunks": chance.randrange(len(parts))}.get(what, len(parts) - 2)
    name, body = parts[place]
    if what == "pixels":
        body = zlib.compress(changed(zlib.decompress(body), chance))
    elif what == "chunks":
        parts.insert(chance.randrange(len(parts) + 1), (chance.choice(NAMES), chance.randbytes(6)))
    else:
        body = changed(body, chance)
    parts[place] = (name, body)
    damaged = SIGNATURE + b"".join(chunk(*part) for part in parts)
    try:
        found = decoded(chunks(damaged))
    except UnreadableImageError:  # the end is missing
        return
    if found is None:
        return
    try:
        expected = decode(damaged)
    except DECODER_ERRORS:  # of a chunk that is not about the pixels; then so is the thumbnail
        with pytest.raises(UnreadableImageError):
            thumbnails(damaged, ThumbSpec())
    else:
        assert (found.mode, found.size) == (expected.mode, expected.size)
        assert found.tobytes() == expected.tobytes()


NAMES = [b"PLTE", b"tRNS", b"gAMA", b"IDAT", b"IHDR", b"IEND", b"acTL", b"zzZz"]


def changed(body, chance):
    """Change, drop or add a few bytes."""
    at, new = chance.randrange(len(body)), chance.randbytes(chance.randrange(3))
    return body[:at] + new + body[at + chance.randrange(3) :]


def test_thumbnails_do_not_depend_on_the_way_taken():
    for mode in ("RGB", "RGBA"):
        plain = encode(picture(mode, (700, 500)), "PNG")
        marked = encode(picture(mode, (700, 500)), "PNG", exif=exif(1))
        assert decoded(chunks(plain))
        assert decoded(chunks(marked)) is None
        assert thumbnails(plain, ThumbSpec()) == thumbnails(marked, ThumbSpec())
        assert SECRET not in thumbnails(marked, ThumbSpec())[512, "webp"].data


def test_more_pixels_than_fit_several_times_are_left_to_pillow():
    out = io.BytesIO()
    Image.new("RGB", (4001, 4000)).save(out, "PNG")
    assert decoded(chunks(out.getvalue())) is None
