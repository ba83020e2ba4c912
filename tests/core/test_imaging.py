import io
import json
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops, ImageCms, ImageSequence, ImageStat
from PIL.PngImagePlugin import PngInfo

from genonaut.core.errors import UnreadableImageError
from genonaut.core.imaging import ImageInfo, ThumbSpec, inspect, strip_metadata, thumbnails

SECRET = b"secret graph"
GRAPH = json.dumps({"3": {"class_type": "KSampler", "inputs": {"text": SECRET.decode()}}})


def picture(mode="RGB", size=(96, 64)):
    ramp = Image.linear_gradient("L").resize(size)
    colours = Image.merge("RGB", (ramp, ramp.rotate(180), Image.radial_gradient("L").resize(size)))
    if mode == "I;16":
        return colours.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    if mode in {"RGBA", "LA"}:
        colours.putalpha(ramp)
    return colours.convert(mode)


def encode(image, target, **options):
    out = io.BytesIO()
    image.save(out, target, **options)
    return out.getvalue()


def decode(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.copy()


def frames(data):
    with Image.open(io.BytesIO(data)) as image:
        return [frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(image)]


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


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = SECRET.decode()
    return tags


def difference(one, other):
    return max(high for _, high in ImageChops.difference(one, other).convert("RGB").getextrema())


ANIMATION = [picture(size=(40, 30)).rotate(angle) for angle in (0, 90, 180)]
ANIMATED = {
    kind: encode(ANIMATION[0], kind, save_all=True, append_images=ANIMATION[1:], duration=80)
    for kind in ("PNG", "WEBP", "GIF", "AVIF")
}
STILL = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("AVIF", mode) for mode in ("RGB", "RGBA")),
    *(("GIF", mode) for mode in ("L", "P")),
    *(("TIFF", mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
]
TYPES = {
    "PNG": ("image/png", "png"),
    "JPEG": ("image/jpeg", "jpg"),
    "WEBP": ("image/webp", "webp"),
    "AVIF": ("image/avif", "avif"),
    "GIF": ("image/gif", "gif"),
    "TIFF": ("image/tiff", "tiff"),
    "BMP": ("image/bmp", "bmp"),
}


def still(kind, mode):
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return encode(ImageCms.profileToProfile(picture(), *profiles, outputMode="LAB"), kind)
    return encode(picture(mode), kind)


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

    thumb = thumbnails(data, ThumbSpec(sizes=(48,)))[48]
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
    first = decode(thumbnails(ANIMATED[kind], ThumbSpec(quality=100))[512].data)
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
    small = decode(thumbnails(original, ThumbSpec(quality=100))[512].data)
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


def test_profiles_are_obeyed_and_broken_ones_ignored():
    swapped = picture().convert("RGB")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (lab, b"not a profile", lab[:200]):
        data = encode(swapped, "JPEG", quality=95, icc_profile=profile)
        small = decode(thumbnails(data, ThumbSpec(quality=100))[512].data)
        assert "icc_profile" not in small.info
        assert difference(small, decode(data)) < 60
    grey = encode(picture("L"), "PNG", icc_profile=lab)  # made for other pixels
    assert decode(thumbnails(grey, ThumbSpec())[256].data).size == (96, 64)


def test_a_wide_gamut_profile_changes_the_numbers():
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"  # red is green
    data = encode(Image.new("RGB", (8, 8), (250, 0, 0)), "PNG", icc_profile=bytes(profile))
    red, green, _ = decode(thumbnails(data, ThumbSpec())[256].data).getpixel((4, 4))
    assert green > 200 > 60 > red


def test_grey_of_sixteen_bits_is_scaled():
    for kind in ("PNG", "TIFF"):
        data = encode(Image.new("I;16", (8, 8), 0x8080), kind)
        assert decode(thumbnails(data, ThumbSpec())[256].data).getpixel((4, 4))[0] in range(
            126, 131
        )
    big_endian = encode(Image.new("I;16B", (8, 8), 0x8080), "TIFF")
    clean = strip_metadata(big_endian, inspect(big_endian))
    assert decode(clean).getpixel((4, 4)) == 0x8080


def test_a_transparent_colour_becomes_alpha():
    for mode, colour in (("RGB", (9, 9, 9)), ("L", 9), ("1", 0)):
        data = encode(Image.new(mode, (9, 9), colour), "PNG", transparency=colour)
        assert decode(thumbnails(data, ThumbSpec())[256].data).getpixel((4, 4))[3] == 0
        clean = strip_metadata(data, inspect(data))
        assert decode(clean).info["transparency"] == colour


def test_thumbnails_fit_the_square_and_never_grow():
    data = encode(picture(size=(1200, 300)), "JPEG")
    made = thumbnails(data, ThumbSpec(sizes=(256, 512, 2000, 256)))
    assert {edge: (t.width, t.height) for edge, t in made.items()} == {
        2000: (1200, 300),
        512: (512, 128),
        256: (256, 64),
    }
    for thumb in made.values():
        assert decode(thumb.data).size == (thumb.width, thumb.height)


@pytest.mark.parametrize("size", [(65000, 1), (1, 65000), (1, 1), (40000, 3)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_extreme_shapes_keep_at_least_a_pixel(size, kind):
    made = thumbnails(encode(Image.new("RGB", size), kind), ThumbSpec())
    for edge, thumb in made.items():
        assert min(thumb.width, thumb.height) == 1
        assert max(thumb.width, thumb.height) <= edge


def test_shrinking_stays_close_to_a_plain_lanczos_resize():
    for kind in ("PNG", "JPEG"):
        data = encode(picture(size=(1500, 1100)), kind)
        plain = decode(data).resize((512, 375), Image.Resampling.LANCZOS)
        small = decode(thumbnails(data, ThumbSpec(quality=100))[512].data)
        assert difference(small, plain) < 30


def test_a_spec_has_a_stable_name():
    assert ThumbSpec().hash == ThumbSpec(sizes=(256, 512)).hash == "62e7ad93e420"
    assert len({ThumbSpec().hash, ThumbSpec(quality=81).hash, ThumbSpec(sizes=(512,)).hash}) == 3


@pytest.mark.parametrize(
    "wrong", [{"sizes": ()}, {"sizes": (0,)}, {"format": "gif"}, {"quality": 101}, {"method": 7}]
)
def test_a_spec_that_cannot_be_made_is_refused(wrong):
    with pytest.raises(ValueError):
        ThumbSpec(**wrong)


def apng_lying_about_frames():
    return png(before_idat=chunk(b"acTL", struct.pack(">II", 9, 0)))


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
