import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from genonaut.core.errors import UnreadableImageError
from genonaut.core.imaging import ThumbSpec, inspect, strip_metadata, thumbnails
from tests.core.pictures import ANIMATED, STILL, encode, exif, picture, still


def chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width=4, height=4, *, before_idat=b"", pixels=None):
    rows = zlib.compress(pixels if pixels is not None else b"\0" * (height * (width + 1)))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before_idat
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


def apng_lying_about_frames():
    return png(before_idat=chunk(b"acTL", struct.pack(">II", 9, 0)))


def jpeg_of_scans(count, size=(64, 64)):
    """Make a progressive JPEG whose scans say nothing, in one bit for 32,767 blocks."""

    def segment(marker, body):
        return b"\xff" + bytes((marker,)) + struct.pack(">H", len(body) + 2) + body

    first_blocks = bytes(size[0] // 8 * size[1] // 64 + 1)
    skip = segment(0xDA, b"\1\1\0\1\x3f\0") + b"\x7f\xff"
    return b"".join(
        (
            b"\xff\xd8",
            segment(0xDB, b"\0" + b"\1" * 64),
            segment(0xC2, struct.pack(">BHHB", 8, *size, 1) + b"\1\x11\0"),
            segment(0xC4, b"\0\1" + bytes(15) + b"\0"),
            segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0"),
            segment(0xDA, b"\1\1\0\0\0\0") + first_blocks,
            skip.replace(b"\x7f\xff", b"\x7f\xff\0") * count,
            b"\xff\xd9",
        )
    )


HOSTILE = {
    "nothing": b"",
    "text": b"<html>502 Bad Gateway</html>" * 40,
    "other format": b"P6 1 1 255 \0\0\0",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "png bomb": png(60000, 60000, pixels=b"\0" * 1000),
    "png above the limit": png(10000, 10000, pixels=b"\0" * 1000),
    "png of no pixels": png(0, 10, pixels=b""),
    "bmp bomb": b"BM"
    + struct.pack("<IHHIIiiHHIIIIII", 99, 0, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
    "gif bomb": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";",
    "webp bomb": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x02\0\0\0\xff\x3f\0\xff\x3f\0",
    "webp of nothing": b"RIFF\x04\0\0\0WEBP",
    "bad checksum": png()[:-13] + bytes((png()[-13] ^ 1,)) + png()[-12:],
    "pixels missing": png(pixels=b"\0\0"),
    "frames missing": apng_lying_about_frames(),
    "profile bomb": png(before_idat=chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(2**22)))),
    "jpeg of nothing": b"\xff\xd8\xff\xe0\x00\x01\xff\xd9",
    "jpeg of scans": jpeg_of_scans(100_000),
    "tiff of nothing": b"II*\0\x08\0\0\0\0\0\0\0\0\0",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_every_function(name):
    for call in (inspect, lambda data: thumbnails(data, ThumbSpec())):
        if call is not inspect and name == "frames missing":
            continue  # its first frame is fine
        with pytest.raises(UnreadableImageError) as caught:
            call(HOSTILE[name])
        assert str(caught.value).endswith(".")


def test_a_text_bomb_in_a_png_is_never_inflated():
    bomb = chunk(b"zTXt", b"prompt\0\0" + zlib.compress(bytes(2**26), 9))
    data = png(before_idat=bomb)
    info = inspect(data)
    assert strip_metadata(data, info) == png()


def test_a_jpeg_may_have_some_scans_and_anything_behind_it():
    assert inspect(jpeg_of_scans(50)).width == 64
    usual = encode(picture(), "JPEG", progressive=True) + b"\xff\xda" * 1000
    assert len(thumbnails(usual, ThumbSpec())) == 2


def test_limits_are_the_callers():
    data = encode(picture(size=(100, 100)), "PNG")
    assert inspect(data, max_pixels=10_000).width == 100
    with pytest.raises(UnreadableImageError, match="100 x 100"):
        inspect(data, max_pixels=9_999)
    with pytest.raises(UnreadableImageError, match="MiB"):
        inspect(data, max_bytes=len(data) - 1)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF"])
def test_an_animation_has_a_limit_over_all_its_frames(kind):
    noise = [Image.effect_noise((20, 20), 90) for _ in range(6)]
    data = encode(noise[0], kind, save_all=True, append_images=noise[1:], duration=50)
    assert inspect(data).frames == 6
    with pytest.raises(UnreadableImageError, match="animation"):
        inspect(data, max_pixels=400)


def test_a_gif_frame_larger_than_its_screen_is_measured_too():
    big = encode(Image.new("P", (300, 300)), "GIF")
    liar = big[:6] + struct.pack("<HH", 2, 2) + big[10:]
    with pytest.raises(UnreadableImageError, match="too large"):
        inspect(liar, max_pixels=1000)


WHOLE = [
    *(still(kind, mode) for kind, mode in STILL),
    *ANIMATED.values(),
    encode(picture(), "JPEG", progressive=True, exif=exif(6)),
    encode(picture(), "TIFF", compression="tiff_lzw"),
    encode(picture("P"), "PNG", pnginfo=PngInfo()),
]


def pixels_or_refusal(data):
    """Run all three functions; each answers or says that it cannot."""
    try:
        info = inspect(data)
    except UnreadableImageError:
        info = None
    for call in (
        lambda: thumbnails(data, ThumbSpec(sizes=(32,))),
        lambda: strip_metadata(data, info) if info else None,
    ):
        try:
            call()
        except UnreadableImageError:
            continue
    return info


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "GIF", "BMP"])
@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_wherever_it_ends(kind, share):
    data = still(kind, "RGB" if kind != "GIF" else "P")
    with pytest.raises(UnreadableImageError):
        inspect(data[: int(len(data) * share)])


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "AVIF"])
@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_a_truncated_animation_is_refused_wherever_it_ends(kind, share):
    data = ANIMATED[kind]
    with pytest.raises(UnreadableImageError):
        inspect(data[: int(len(data) * share)])


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_else(data):
    assert pixels_or_refusal(data) is None


@settings(max_examples=200, deadline=None)
@given(
    prefix=st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\x40\0\0\0WEBPVP8X", b"GIF89a", b"BM",
         b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"\0\0\0 ftypavif\0\0\0\0avif"]
    ),
    rest=st.binary(max_size=200),
)  # fmt: skip
def test_arbitrary_bytes_behind_a_known_signature_raise_nothing_else(prefix, rest):
    pixels_or_refusal(prefix + rest)


@settings(max_examples=500, deadline=None)
@given(
    data=st.sampled_from(WHOLE),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=8),
    cut=st.floats(0.2, 1),
)
def test_damaged_files_are_read_or_refused(data, flips, cut):
    damaged = bytearray(data[: max(1, int(len(data) * cut))])
    for share, mask in flips:
        # most of what matters is at the front
        damaged[int(len(damaged) * share**3)] ^= mask
    pixels_or_refusal(bytes(damaged))
