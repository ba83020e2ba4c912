import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from genonaut.core.image_resizing import resized
from tests.core.pictures import difference, picture

SIDES = st.tuples(st.integers(1, 300), st.integers(1, 300))
SHARES = st.tuples(*[st.floats(0, 0.4)] * 2, *[st.floats(0.6, 1)] * 2)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "CMYK", "LA", "LAB", "YCbCr"])
@settings(max_examples=30, deadline=None)
@given(size=SIDES, to=SIDES, part=SHARES)
def test_the_result_is_pillows_within_rounding(mode, size, to, part):
    image = picture("RGB" if mode == "LAB" else mode, size)
    if mode == "LAB":
        image = Image.merge("LAB", image.split())
    to = (min(to[0], size[0]), min(to[1], size[1]))
    box = tuple(share * side for share, side in zip(part, size * 2, strict=True))
    for whole in (None, box):
        ours, pillows = resized(image, to, whole), image.resize(to, Image.Resampling.LANCZOS, whole)
        assert (ours.mode, ours.size) == (mode, to)
        if mode == "RGBA":  # the colour of what is hardly seen is anyone's
            ours, pillows = ours.convert("RGBa"), pillows.convert("RGBa")
            ours = Image.merge("RGB", ours.split()[:3])
            pillows = Image.merge("RGB", pillows.split()[:3])
        if mode in {"LAB", "CMYK", "YCbCr"}:
            bands = zip(ours.split(), pillows.split(), strict=True)
            assert max(difference(one, other) for one, other in bands) <= 3
        else:
            assert difference(ours, pillows) <= 4


def test_nothing_to_do_gives_a_copy():
    image = picture()
    image.info["icc_profile"] = b"kept"
    same = resized(image, image.size)
    assert (same.tobytes(), same.info) == (image.tobytes(), image.info)
    assert same is not image
    assert resized(image, (9, 9)).info == image.info


@pytest.mark.parametrize("size", [(5_000_000, 1), (1, 5_000_000)])
def test_the_longest_strips_take_no_longer_than_squares(size):
    image = Image.new("RGB", size, (9, 200, 30))
    began = time.process_time()
    small = resized(image, (max(1, size[0] // 10_000), max(1, size[1] // 10_000)))
    assert time.process_time() - began < 1
    assert small.getextrema() == ((9, 9), (200, 200), (30, 30))
