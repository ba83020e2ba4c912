import io

import pytest
from PIL import Image, ImageCms

from genonaut.core.thumbnails import ThumbSpec, thumbnails
from tests.core.pictures import (
    ANIMATED,
    ANIMATION,
    decode,
    difference,
    encode,
    picture,
)


def test_profiles_are_obeyed_and_broken_ones_ignored():
    swapped = picture().convert("RGB")
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (lab, b"not a profile", lab[:200]):
        data = encode(swapped, "JPEG", quality=95, icc_profile=profile)
        small = decode(thumbnails(data, ThumbSpec(quality=100))[512, "webp"].data)
        assert "icc_profile" not in small.info
        assert difference(small, decode(data)) < 60
    grey = encode(picture("L"), "PNG", icc_profile=lab)  # made for other pixels
    assert decode(thumbnails(grey, ThumbSpec())[256, "webp"].data).size == (96, 64)


def test_a_wide_gamut_profile_changes_the_numbers():
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"  # red is green
    data = encode(Image.new("RGB", (8, 8), (250, 0, 0)), "PNG", icc_profile=bytes(profile))
    red, green, _ = decode(thumbnails(data, ThumbSpec())[256, "webp"].data).getpixel((4, 4))
    assert green > 200 > 60 > red


def test_thumbnails_fit_the_square_and_never_grow():
    data = encode(picture(size=(1200, 300)), "JPEG")
    made = thumbnails(data, ThumbSpec(sizes=(256, 512, 2000, 256)))
    assert {edge: (t.width, t.height) for (edge, _), t in made.items()} == {
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
    for (edge, _), thumb in made.items():
        assert min(thumb.width, thumb.height) == 1
        assert max(thumb.width, thumb.height) <= edge


def test_shrinking_stays_close_to_a_plain_lanczos_resize():
    for kind in ("PNG", "JPEG"):
        data = encode(picture(size=(1500, 1100)), kind)
        plain = decode(data).resize((512, 375), Image.Resampling.LANCZOS)
        small = decode(thumbnails(data, ThumbSpec(quality=100))[512, "webp"].data)
        assert difference(small, plain) < 30


def test_a_spec_has_a_stable_name():
    assert ThumbSpec().hash == ThumbSpec(sizes=(256, 512)).hash == "6630e35d6394"
    assert len({ThumbSpec().hash, ThumbSpec(quality=81).hash, ThumbSpec(sizes=(512,)).hash}) == 3
    others = [ThumbSpec(formats=("webp", "avif")), ThumbSpec(fit="cover"), ThumbSpec(animated=True)]
    assert len({spec.hash for spec in (ThumbSpec(), *others)}) == 4


@pytest.mark.parametrize(
    "wrong",
    [{"sizes": ()}, {"sizes": (0,)}, {"formats": ("gif",)}, {"quality": 101}, {"method": 7}],
)
def test_a_spec_that_cannot_be_made_is_refused(wrong):
    with pytest.raises(ValueError):
        ThumbSpec(**wrong)


def test_a_thumbnail_is_named_by_its_edge_and_if_it_is_not_the_first_its_format():
    spec = ThumbSpec(formats=("webp", "avif", "jpeg"))
    assert [spec.entry(512, form) for form in spec.formats] == ["512", "512.avif", "512.jpeg"]


def test_every_size_is_made_in_every_format():
    data = encode(picture(size=(300, 200)), "PNG")
    made = thumbnails(data, ThumbSpec(sizes=(128, 64), formats=("webp", "avif", "jpeg")))
    assert list(made) == [(e, f) for e in (128, 64) for f in ("webp", "avif", "jpeg")]
    webp = decode(made[128, "webp"].data)
    for (edge, form), thumb in made.items():
        assert thumb.mime == f"image/{form}"
        assert decode(thumb.data).size == (thumb.width, thumb.height) == (edge, round(edge * 2 / 3))
        if edge == 128:
            assert difference(decode(thumb.data), webp) < 60


def test_behind_what_is_transparent_a_jpeg_is_white():
    data = encode(Image.new("RGBA", (30, 20), (200, 0, 0, 0)), "PNG")
    made = thumbnails(data, ThumbSpec(formats=("jpeg", "webp", "avif")))
    assert min(decode(made[256, "jpeg"].data).getpixel((9, 9))) > 250
    for form in ("webp", "avif"):
        assert decode(made[256, form].data).getpixel((9, 9))[3] == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("size", [(1200, 300), (300, 1201), (90, 70), (65000, 1), (256, 256)])
def test_a_cover_is_the_square_middle(kind, size):
    image = Image.new("RGB", size, "red")
    side = min(size)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    image.paste("blue", (left, top, left + side, top + side))
    made = thumbnails(encode(image, kind, quality=95), ThumbSpec(fit="cover", quality=100))
    for (edge, _), thumb in made.items():
        assert thumb.width == thumb.height == min(side, edge)
        if side > 1:
            small = decode(thumb.data)
            middle, corner = small.getpixel((thumb.width // 2,) * 2), small.getpixel((2, 2))
            assert max(abs(a - b) for a, b in zip(middle, (0, 0, 255), strict=True)) < 12
            assert max(abs(a - b) for a, b in zip(corner, (0, 0, 255), strict=True)) < 40


@pytest.mark.parametrize("kind", ANIMATED)
def test_an_animation_moves_when_asked_to_and_only_as_webp(kind):
    spec = ThumbSpec(sizes=(32, 16), formats=("webp", "jpeg"), animated=True, quality=100)
    made = thumbnails(ANIMATED[kind], spec)
    for edge in spec.sizes:
        with Image.open(io.BytesIO(made[edge, "webp"].data)) as moving:
            assert (moving.n_frames, moving.size) == (3, (edge, edge * 3 // 4))
            for number, original in enumerate(ANIMATION):
                moving.seek(number)
                moving.load()
                assert round(moving.info["duration"]) == 80
                expected = original.resize(moving.size, Image.Resampling.LANCZOS)
                assert difference(moving.convert("RGB"), expected) < 90
        assert getattr(decode(made[edge, "jpeg"].data), "n_frames", 1) == 1
    still = thumbnails(ANIMATED[kind], ThumbSpec(sizes=(32,)))
    with Image.open(io.BytesIO(still[32, "webp"].data)) as image:
        assert image.n_frames == 1
