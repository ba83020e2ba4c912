import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genonaut.core.image_containers import png_chunks
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
