import struct

import pytest
from PIL import Image, ImageChops, ImageCms, ImageStat
from PIL.PngImagePlugin import PngInfo

from genonaut.core.imaging import ImageInfo, ThumbSpec, inspect, strip_metadata, thumbnails
from tests.core.pictures import (
    ANIMATED,
    ANIMATION,
    GRAPH,
    SECRET,
    STILL,
    TYPES,
    decode,
    difference,
    encode,
    exif,
    frames,
    picture,
    still,
)


@pytest.mark.parametrize(("kind", "mode"), STILL)
def test_every_format_and_mode_is_recognised_cleaned_and_made_small(kind, mode):
    data = still(kind, mode)
    mime, extension = TYPES[kind]
    info = inspect(data)
    assert info == ImageInfo(mime, 96, 64, 1, extension)

    clean = strip_metadata(data, info)
    before, after = decode(data), decode(clean)
    assert after.size == before.size
    if mode not in {"LAB", "I", "F"} and (kind, mode) != ("TIFF", "CMYK"):
        assert after.mode == before.mode
        assert after.tobytes() == before.tobytes()
        assert after.getpalette() == before.getpalette()
    assert strip_metadata(clean, inspect(clean)) == clean

    thumb = thumbnails(data, ThumbSpec(sizes=(48,)))[48, "webp"]
    small = decode(thumb.data)
    assert (thumb.width, thumb.height, thumb.mime) == (48, 32, "image/webp")
    assert (small.format, small.size) == (None, (48, 32))
    assert (small.mode == "RGBA") == (mode in {"LA", "RGBA"})
    if mode not in {"1", "I", "F"}:  # dithered, stretched
        expected = picture().convert("L").resize((48, 32))
        error = ImageChops.difference(small.convert("L"), expected)
        assert ImageStat.Stat(error).mean[0] < 6


@pytest.mark.parametrize("kind", ANIMATED)
def test_an_animation_keeps_its_frames_and_gives_its_first_as_thumbnail(kind):
    info = inspect(ANIMATED[kind])
    assert (info.frames, info.width, info.height) == (3, 40, 30)
    clean = strip_metadata(ANIMATED[kind], info)
    assert frames(clean) == frames(ANIMATED[kind])
    first = decode(thumbnails(ANIMATED[kind], ThumbSpec(quality=100))[512, "webp"].data)
    assert difference(first.convert("RGB"), ANIMATION[0]) < 130
    assert difference(first.convert("RGB"), ANIMATION[1]) > 130


def test_comfyuis_text_is_removed_from_a_png_and_its_pixels_and_colours_stay():
    text = PngInfo()
    text.add_text("prompt", GRAPH)
    text.add_text("workflow", GRAPH, zip=True)
    text.add_itxt("parameters", GRAPH, zip=False)
    text.add(b"tIME", b"\x07\xea\x01\x01\x00\x00\x00")
    text.add(b"gAMA", struct.pack(">I", 45455))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(picture(), "PNG", pnginfo=text, exif=exif(1), icc_profile=profile) + SECRET
    clean = strip_metadata(data, inspect(data))
    for trace in (b"prompt", b"workflow", b"parameters", b"tIME", b"eXIf", SECRET):
        assert trace in data
        assert trace not in clean
    after = decode(clean)
    assert after.tobytes() == picture().tobytes()
    assert after.info["icc_profile"] == profile
    assert b"gAMA" in clean
    assert not after.getexif()


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_what_describes_a_picture_is_removed_from_the_other_formats(kind):
    options = {
        "JPEG": {"exif": exif(1), "xmp": SECRET, "comment": SECRET, "progressive": True},
        "WEBP": {"exif": exif(1), "xmp": SECRET},
        "AVIF": {"exif": exif(1), "xmp": SECRET},
        "GIF": {"comment": SECRET},
        "TIFF": {"description": SECRET.decode()},
    }[kind]
    data = encode(picture(), kind, **options)
    assert SECRET in data
    info = inspect(data)
    clean = strip_metadata(data, info)
    assert SECRET not in clean
    after = inspect(clean)
    assert after.mime == (info.mime if kind in {"JPEG", "WEBP", "GIF"} else "image/png")
    assert decode(clean).convert("RGB").tobytes() == decode(data).convert("RGB").tobytes()


def test_the_second_picture_of_a_jpeg_is_dropped():
    data = encode(picture(), "MPO", save_all=True, append_images=[picture(size=(30, 20))])
    info = inspect(data)
    assert (info.mime, info.frames) == ("image/jpeg", 1)
    clean = strip_metadata(data, info)
    assert len(clean) < len(data)
    assert decode(clean).tobytes() == decode(data).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_turns_pixels_and_not_the_stored_type(kind, orientation):
    original = encode(picture(), kind, exif=exif(orientation))
    plain = decode(encode(picture(), kind)).convert("RGB")
    turns = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    upright = plain.transpose(turns[orientation]) if orientation > 1 else plain
    info = inspect(original)
    assert (info.width, info.height) == upright.size
    clean = strip_metadata(original, info)
    assert inspect(clean).width == upright.width
    assert SECRET not in clean
    assert decode(clean).convert("RGB").tobytes() == upright.tobytes()
    small = decode(thumbnails(original, ThumbSpec(quality=100))[512, "webp"].data)
    assert small.size == upright.size
    assert difference(small, upright) < 60


def test_an_oriented_animation_stays_one():
    data = encode(
        ANIMATION[0],
        "WEBP",
        save_all=True,
        append_images=ANIMATION[1:],
        duration=80,
        exif=exif(6),
    )
    info = inspect(data)
    assert (info.width, info.height, info.frames) == (30, 40, 3)
    after = inspect(strip_metadata(data, info))
    assert (after.mime, after.width, after.height, after.frames) == ("image/webp", 30, 40, 3)


def test_grey_of_sixteen_bits_is_scaled():
    for kind in ("PNG", "TIFF"):
        data = encode(Image.new("I;16", (8, 8), 0x8080), kind)
        assert decode(thumbnails(data, ThumbSpec())[256, "webp"].data).getpixel((4, 4))[0] in range(
            126, 131
        )
    big_endian = encode(Image.new("I;16B", (8, 8), 0x8080), "TIFF")
    clean = strip_metadata(big_endian, inspect(big_endian))
    assert decode(clean).getpixel((4, 4)) == 0x8080


def test_a_transparent_colour_becomes_alpha():
    for mode, colour in (("RGB", (9, 9, 9)), ("L", 9), ("1", 0)):
        data = encode(Image.new(mode, (9, 9), colour), "PNG", transparency=colour)
        assert decode(thumbnails(data, ThumbSpec())[256, "webp"].data).getpixel((4, 4))[3] == 0
        clean = strip_metadata(data, inspect(data))
        assert decode(clean).info["transparency"] == colour
