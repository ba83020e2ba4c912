"""Every picture is counted once, by its state."""

from genonaut.core.thumbnails import ThumbSpec
from genonaut.domain.thumbnail_counts import count

USUAL = ThumbSpec()


def test_every_picture_is_counted_once(session, make_image):
    assert count(session, USUAL).public()["images"] == 0
    for values in (
        {},
        {"thumb_error": "broken"},
        {"thumb_error": "broken", "thumb_spec": "older"},
        *[{"thumb_spec": USUAL.hash}] * 3,
        *[{"thumb_spec": "older"}] * 2,
        {"thumb_spec": "oldest"},
    ):
        make_image(**values)
    assert count(session, USUAL).public() == {
        "usual": {"spec": USUAL.hash, "sizes": [512, 256], "formats": ["webp"]},
        "images": 9,
        "current": 3,
        "outdated": 3,
        "missing": 1,
        "failed": 2,
        "specs": [
            {"spec": USUAL.hash, "images": 3, "is_usual": True},
            {"spec": "older", "images": 2, "is_usual": False},
            {"spec": "oldest", "images": 1, "is_usual": False},
        ],
    }
