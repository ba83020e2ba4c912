"""Choose which file of a picture a page loads."""

from typing import Any

TILE_EDGE = 256


def tile(item: dict[str, Any], image: dict[str, Any]) -> dict[str, Any]:
    """Give what a grid shows of an image: the smallest thumbnail large enough, or itself.

    ``item`` and ``image`` are as the API answers them. ``sources`` is a ``srcset``.
    """
    made = sorted((one for one in image["thumbnails"].values()), key=lambda one: one["width"])
    large_enough = [one for one in made if max(one["width"], one["height"]) >= TILE_EDGE]
    small = large_enough[0] if large_enough else image
    return {
        "id": item["id"],
        "title": item["title"] or item["prompt"] or f"Picture {item['id']}",
        "private": item["is_private"],
        "liked": item["liked"],
        "rating": item["rating"],
        "source": small["url"],
        "sources": ", ".join(f"{one['url']} {one['width']}w" for one in large_enough),
        "width": image["width"],
        "height": image["height"],
        "count": len(item["images"]),
    }


def small(image: dict[str, Any]) -> dict[str, Any] | None:
    """Give the smallest thumbnail of an image as the API answers it, if there is one."""
    made = sorted(image["thumbnails"].values(), key=lambda one: one["width"])
    return made[0] if made else None


def tiles(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give one tile for each item that has an image."""
    return [tile(item, item["images"][0]) for item in items if item["images"]]
