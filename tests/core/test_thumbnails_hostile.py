"""Thumbnails of files found in the wild: each right, or refused with a reason; nothing else."""

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genonaut.core.errors import UnreadableImageError, UnsupportedImageError
from genonaut.core.thumbnails import ThumbSpec, thumbnails
from genonaut.worker.rendering import Renderer
from tests.core.pictures import ANIMATED, STILL, decode, difference, encode, exif, picture, still
from tests.core.test_imaging_hostile import HOSTILE, WHOLE, chunk

SPEC = ThumbSpec(sizes=(48, 24))
MOVING = ThumbSpec(
    sizes=(32, 16), formats=("webp", "avif", "jpeg"), fit="cover", animated=True, method=0
)


def right_or_refused(data, spec=SPEC):
    """Make thumbnails that decode and have the size they claim, or give the reason."""
    try:
        made = thumbnails(data, spec)
    except UnreadableImageError as error:
        return error
    for thumb in made.values():
        assert decode(thumb.data).size == (thumb.width, thumb.height)
    return None


@pytest.mark.parametrize(("kind", "mode"), STILL)
def test_a_file_cut_off_at_every_tenth_is_right_or_refused(kind, mode):
    data = still(kind, mode)
    for tenths in range(10):
        part = data[: len(data) * tenths // 10]
        error = right_or_refused(part)
        if kind not in {"TIFF", "BMP"}:  # whose padding may be cut without loss
            assert error
    assert right_or_refused(data) is None


@pytest.mark.parametrize("kind", ANIMATED)
def test_an_animation_cut_off_gives_its_first_frame_if_that_is_whole(kind):
    data = ANIMATED[kind]
    for tenths in range(1, 10):
        for spec in (SPEC, MOVING):
            right_or_refused(data[: len(data) * tenths // 10], spec)


def test_a_gif_whose_last_frame_is_broken_still_shows_its_first():
    data = bytearray(ANIMATED["GIF"])
    last = data.rindex(b"\x21\xf9\x04")
    data[last + 20 : last + 60] = b"\xff" * 40
    assert right_or_refused(bytes(data)) is None
    right_or_refused(bytes(data), MOVING)


def test_a_name_says_nothing_and_the_bytes_everything():
    jpeg_named_png = encode(picture(), "JPEG")
    assert right_or_refused(jpeg_named_png) is None
    for data in (b"", bytes(1000), b"GIF", b"%PDF-1.7", b"PK\3\4", b"\0" * 5 + b"ftypmp42"):
        assert right_or_refused(data)
    assert isinstance(right_or_refused(b"%PDF-1.7"), UnsupportedImageError)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_every_manner(name):
    for spec in (SPEC, MOVING):
        error = right_or_refused(HOSTILE[name], spec)
        assert error or name == "frames missing"
        assert error is None or str(error).endswith(".")


def test_sixteen_bits_with_alpha_are_scaled_and_the_alpha_kept():
    pixel = struct.pack(">4H", 0x8080, 0xFFFF, 0, 0x4040)
    rows = zlib.compress((b"\0" + pixel * 20) * 20)
    header = struct.pack(">IIBBBBB", 20, 20, 16, 6, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    )
    found = decode(thumbnails(data, ThumbSpec(quality=100))[256, "webp"].data).getpixel((9, 9))
    assert all(abs(a - b) <= 4 for a, b in zip(found, (0x80, 0xFF, 0, 0x40), strict=True))


def test_a_cmyk_jpeg_with_adobes_marker_has_its_colours():
    data = encode(Image.new("RGB", (40, 30), (220, 40, 60)).convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data
    found = decode(thumbnails(data, ThumbSpec(quality=100))[256, "webp"].data).getpixel((20, 15))
    assert all(abs(a - b) <= 8 for a, b in zip(found, (220, 40, 60), strict=True))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("spec", [SPEC, ThumbSpec(sizes=(48, 24), fit="cover")])
def test_every_orientation_ends_upright_also_when_drafted(orientation, spec):
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    original = picture(size=(960, 640))
    upright = original.transpose(turns[orientation]) if orientation > 1 else original
    data = encode(original, "JPEG", quality=95, exif=exif(orientation))
    plain = encode(upright, "JPEG", quality=95)
    for name, thumb in thumbnails(data, spec).items():
        expected = thumbnails(plain, spec)[name]
        assert (thumb.width, thumb.height) == (expected.width, expected.height)
        assert difference(decode(thumb.data), decode(expected.data)) < 60


@settings(max_examples=150, deadline=None)
@given(
    data=st.sampled_from(WHOLE),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4))
    ),
    spec=st.sampled_from([SPEC, MOVING]),
)
def test_files_changed_at_random_are_right_or_refused(data, changes, spec):
    damaged = bytearray(data)
    for share, new in changes:
        at = int(len(damaged) * share**2)
        damaged[at : at + len(new)] = new
    right_or_refused(bytes(damaged), spec)


def test_none_of_them_harms_a_child():
    files = [*HOSTILE.values(), *(data[: len(data) * 2 // 3] for data in WHOLE), *WHOLE]
    with Renderer(processes=1) as renderer:
        for data in files:
            refused = right_or_refused(data)
            if refused is None:
                assert renderer.render(data, SPEC) == thumbnails(data, SPEC)
            else:
                with pytest.raises(type(refused)):
                    renderer.render(data, SPEC)
        [child] = renderer._idle
        # It is still the first; of a large picture it is asked twice.
        assert child.asked >= len(files)
