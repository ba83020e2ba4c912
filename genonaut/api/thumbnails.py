"""Show the thumbnails of a picture, and choose the one to send."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from genonaut.api import negotiation
from genonaut.core.image_containers import EXTENSIONS
from genonaut.db.models import ContentImage
from genonaut.domain.content import ShownImage

_TYPES = {extension: mime for mime, extension in EXTENSIONS.items()}
_SMALLEST_FIRST = ("image/avif", "image/webp", "image/jpeg")
_PLAIN = "image/webp"

_PLACEHOLDER = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
    '<rect width="100%" height="100%" fill="#8884"/></svg>'
)


@dataclass(frozen=True, slots=True)
class Sized:
    """The thumbnails of one size: their entries by type. They are one picture in several formats.

    ``version`` changes when any of them does.
    """

    by_type: dict[str, dict[str, Any]]

    @property
    def plain(self) -> str:
        """The type for a client that does not say what it takes."""
        return _PLAIN if _PLAIN in self.by_type else next(iter(self.by_type))

    @property
    def types(self) -> list[str]:
        """The types there are, the one with the smallest files first."""
        rank = {mime: n for n, mime in enumerate(_SMALLEST_FIRST)}
        return sorted(self.by_type, key=lambda mime: rank.get(mime, len(rank)))

    @property
    def version(self) -> str:
        """Name these very files."""
        stems = sorted(PurePosixPath(entry["key"]).stem for entry in self.by_type.values())
        [first, *others] = stems
        whole = hashlib.sha256("".join(stems).encode()).hexdigest() if others else first
        return whole[:12]

    def best(self, accept: str | None) -> tuple[str, dict[str, Any]]:
        """Give type and entry of the one a client likes best."""
        mime = negotiation.best(accept, self.types, plain=self.plain)
        return mime, self.by_type[mime]


def by_size(image: ShownImage) -> dict[int, Sized]:
    """Give a picture's thumbnails by the edge they were made for, the smallest first."""
    found: dict[int, dict[str, dict[str, Any]]] = defaultdict(dict)
    for name, entry in image.thumbnails.items():
        extension = entry["key"].rpartition(".")[2]  # making a path takes far longer
        mime = _TYPES.get(extension, "application/octet-stream")
        found[int(name.partition(".")[0])][mime] = entry
    return {edge: Sized(by_type) for edge, by_type in sorted(found.items())}


def shown(image: ShownImage, url: str) -> dict[str, dict[str, Any]]:
    """Give what is shown of a picture's thumbnails, whose address is ``url``."""
    return {
        str(edge): {
            "url": f"{url}/thumbnails/{edge}?v={sized.version}",
            "width": sized.by_type[sized.plain]["width"],
            "height": sized.by_type[sized.plain]["height"],
            "types": sized.types,
        }
        for edge, sized in by_size(image).items()
    }


def placeholder(image: ContentImage, edge: int) -> str:
    """Draw, as SVG, a grey field of the shape that the thumbnail will have."""
    scale = min(1.0, edge / max(image.width, image.height, 1))
    width, height = (max(1, round(side * scale)) for side in (image.width, image.height))
    return _PLACEHOLDER.format(width=width, height=height)
