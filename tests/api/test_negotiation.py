"""``Accept`` is read as browsers write it, and rubbish does no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genonaut.api.negotiation import best

OFFERS = ("image/avif", "image/webp", "image/jpeg")
CHROME = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"
OLD_SAFARI = "image/png,image/svg+xml,image/*;q=0.8,video/*;q=0.8,*/*;q=0.5"


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (CHROME, "avif"),
        (OLD_SAFARI, "webp"),
        (None, "webp"),
        ("", "webp"),
        ("*/*", "webp"),
        ("image/*", "webp"),
        ("image/webp,*/*", "webp"),
        ("image/jpeg", "jpeg"),
        ("image/jpeg, */*", "jpeg"),
        ("image/avif;q=0.1, image/jpeg;q=0.2", "jpeg"),
        ("image/avif;q=0.5, image/webp;q=0.9, image/jpeg;q=0.5", "webp"),
        ("image/avif;q=0, image/*", "webp"),
        ("image/webp;q=0, image/avif;q=0, */*", "jpeg"),
        ("IMAGE/AVIF ; Q=1.0", "avif"),
        ("image/avif;v=b3;q=0.7,image/webp;q=0.8", "webp"),
        ("text/html", "webp"),
        ("*/*;q=0", "webp"),
        ("image/avif;q=nan, image/webp;q=rubbish", "avif"),
    ],
)
def test_the_best_liked_is_chosen(accept, chosen):
    assert best(accept, OFFERS, plain="image/webp") == f"image/{chosen}"


@given(st.text())
def test_anything_gets_something(accept):
    assert best(accept, OFFERS, plain="image/webp") in OFFERS
    assert best(accept, ["image/avif"], plain="image/avif") == "image/avif"
