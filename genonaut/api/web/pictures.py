"""Choose which file of a picture a page loads."""

from typing import Any

THUMBNAIL_EDGE = 256


def tile(item: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """Give what a grid shows of an image: the smallest thumbnail large enough, or itself.

    ``item`` and ``image`` are as the API answers them.
    """
    sizes = {int(size): made for size, made in image["thumbnails"].items()}
    large_enough = [size for size in sorted(sizes) if size >= THUMBNAIL_EDGE]
    small = sizes[large_enough[0]] if large_enough else image
    return {
        "id": item["id"],
        "title": item["title"],
        "private": item["is_private"],
        "url": image["url"],
        "source": small["url"],
        "width": small["width"],
        "height": small["height"],
    }
