"""Make thumbnails: a picture's bytes in, encoded pixels out."""

import hashlib
import io
from dataclasses import dataclass
from typing import Any, Literal, get_args

from PIL import Image, ImageFile

from genonaut.core import (
    image_colour,
    image_containers,
    image_opening,
    image_resizing,
    png_decoding,
)
from genonaut.core.image_opening import UPRIGHT

Format = Literal["webp", "avif", "jpeg"]
FORMATS: tuple[Format, ...] = get_args(Format)

_AVIF_SPEED = 10
_HELD_PIXELS = 32_000_000
_ON_THEIR_SIDE = [UPRIGHT[orientation] for orientation in (5, 6, 7, 8)]
_DRAFT_GAP = 2
"""A JPEG is decoded at no less than twice the thumbnail's size."""


@dataclass(frozen=True, slots=True)
class ThumbSpec:
    """Say which thumbnails to make: every one of ``sizes`` in every one of ``formats``.

    ``sizes`` are edges of squares, pixels: with ``fit`` ``inside`` the whole picture fits into the
    square, with ``cover`` its middle fills it. A picture is never enlarged. ``quality`` and
    ``method`` (WebP's effort, 0 to 6) are WebP's, ``quality`` JPEG's too; AVIF has its own scale.
    ``animated``: WebP moves where the picture does; else, and in the other formats, the first frame
    is shown.
    """

    sizes: tuple[int, ...] = (512, 256)
    formats: tuple[Format, ...] = ("webp",)
    quality: int = 78
    method: int = 2
    avif_quality: int = 60
    fit: Literal["inside", "cover"] = "inside"
    animated: bool = False

    def __post_init__(self) -> None:
        if not self.sizes or not all(1 <= size <= 4096 for size in self.sizes):
            raise ValueError("sizes must be edges of 1 to 4096 pixels")
        if not self.formats or not set(self.formats) <= set(FORMATS):
            raise ValueError(f"formats must be of {', '.join(FORMATS)}")
        if not 0 <= self.quality <= 100 or not 0 <= self.avif_quality <= 100:
            raise ValueError("a quality must be 0 to 100")
        if not 0 <= self.method <= 6:
            raise ValueError("method must be 0 to 6")
        if self.fit not in {"inside", "cover"}:
            raise ValueError("fit must be inside or cover")

    @property
    def hash(self) -> str:
        """Name this spec in 12 characters, the same in every process and release."""
        sizes = ",".join(str(size) for size in sorted(set(self.sizes), reverse=True))
        formats = ",".join(dict.fromkeys(self.formats))
        settings = f"{self.quality}:{self.method}:{self.avif_quality}:{self.fit}:{self.animated:d}"
        return hashlib.sha256(f"2:{sizes}:{formats}:{settings}".encode()).hexdigest()[:12]

    def entry(self, edge: int, form: str) -> str:
        """Name a thumbnail among its picture's: ``512`` in the first format, else ``512.avif``."""
        return str(edge) if form == self.formats[0] else f"{edge}.{form}"


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Hold one encoded thumbnail."""

    data: bytes
    width: int
    height: int
    mime: str


_Frame = tuple[Image.Image, int]
"""A picture of an animation and how long it is shown, milliseconds."""

Thumbnails = dict[tuple[int, str], Thumbnail]
"""Thumbnails by edge and format, such as ``(512, "webp")``, the largest first."""


def thumbnails(
    data: bytes, spec: ThumbSpec, *, max_pixels: int = image_opening.MAX_PIXELS
) -> Thumbnails:
    """Make one thumbnail for each size and format of ``spec``, each smaller one from the larger.

    Upright, sRGB, alpha kept (white behind it in a JPEG), without metadata. An animation that is
    too long to be held in thumbnail size gives its first frame, ``animated`` or not.
    Raises: UnreadableImageError: as ``inspect``.
    """
    edges = sorted(set(spec.sizes), reverse=True)
    with image_opening.opened(data, max_pixels=max_pixels) as image:
        full = image.size
        plain = _plain_png(data, image)
        turn = None if plain else UPRIGHT.get(image_opening.orientation(image))
        frames = _reduced(plain or image, edges[0], spec, turn)
    sizes = [_fitted(_turned(full, turn), edge, spec.fit)[1] for edge in edges]
    made: Thumbnails = {}
    for edge, size in zip(edges, sizes, strict=True):
        frames = [(_smaller(frame, size), shown_ms) for frame, shown_ms in frames]
        for form in dict.fromkeys(spec.formats):
            made[edge, form] = _encoded(frames, form, spec)
    return made


def _plain_png(data: bytes, image: ImageFile.ImageFile) -> Image.Image | None:
    """Decode the usual kind of PNG; what has EXIF, frames or anything wrong is left to Pillow."""
    if image.format != "PNG":
        return None
    relevant = image_containers.PNG_KEPT | {b"eXIf"}
    chunks = [chunk for chunk in image_containers.png_chunks(data) if chunk[0] in relevant]
    decoded = png_decoding.decoded(chunks)
    if decoded is not None and "icc_profile" in image.info:
        decoded.info["icc_profile"] = image.info["icc_profile"]
    return decoded


def _reduced(
    image: Image.Image, edge: int, spec: ThumbSpec, turn: Image.Transpose | None
) -> list[_Frame]:
    """Decode the frames to show and shrink each to ``edge``; upright, sRGB."""
    if not (spec.animated and "webp" in spec.formats and getattr(image, "is_animated", False)):
        return [(_first_reduction(image, edge, spec, turn), 0)]
    frames: list[_Frame] = []
    held = 0
    for frame in image_opening.frames(image):
        small = _first_reduction(frame, edge, spec, turn)
        held += small.width * small.height
        if held > _HELD_PIXELS:
            return frames[:1]
        frames.append((small, int(frame.info.get("duration", 0))))
    return frames


def _turned(size: tuple[int, int], turn: Image.Transpose | None) -> tuple[int, int]:
    return size[::-1] if turn in _ON_THEIR_SIDE else size


def _first_reduction(
    image: Image.Image, edge: int, spec: ThumbSpec, turn: Image.Transpose | None
) -> Image.Image:
    """Shrink to ``edge``, then turn and convert what few pixels are left."""
    box, size = _fitted(image.size, edge, spec.fit)
    scale = _draft(image, size[0] / (box[2] - box[0]))
    image.load()
    left, top, right, bottom = (side * scale for side in box)
    small = image_resizing.resized(image_colour.resizable(image), size, (left, top, right, bottom))
    return image_colour.srgb(small if turn is None else small.transpose(turn))


def _draft(image: Image.Image, ratio: float) -> float:
    """Let a JPEG be decoded smaller if it shall shrink to ``ratio``; say how much smaller."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in {"JPEG", "MPO"}:
        return 1
    full = image.size
    wanted = (
        max(1, round(full[0] * ratio * _DRAFT_GAP)),
        max(1, round(full[1] * ratio * _DRAFT_GAP)),
    )
    drafted = image.draft(None, wanted)
    return drafted[1][2] / full[0] if drafted else 1


def _fitted(
    size: tuple[int, int], edge: int, fit: str
) -> tuple[tuple[float, float, float, float], tuple[int, int]]:
    """Give the part of a picture to show, and how large; never larger than it is."""
    width, height = size
    if fit == "cover":
        side = min(size)
        left, top = (width - side) // 2, (height - side) // 2
        return (left, top, left + side, top + side), (min(side, edge),) * 2
    longest = max(size)
    shrunk = (max(1, round(width * edge / longest)), max(1, round(height * edge / longest)))
    return (0, 0, width, height), size if longest <= edge else shrunk


def _smaller(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    if size == image.size:
        return image
    return image_resizing.resized(image, size)


def _encoded(frames: list[_Frame], form: str, spec: ThumbSpec) -> Thumbnail:
    out = io.BytesIO()
    plain = [_plain(frame) for frame, _ in frames]
    first = plain[0]
    options: dict[str, Any] = {}
    if form == "jpeg":
        first = _on_white(first)
        options = {"quality": spec.quality, "optimize": True}
    elif form == "avif":  # one thread, or the bytes would depend on the machine
        options = {"quality": spec.avif_quality, "speed": _AVIF_SPEED, "max_threads": 1}
    else:
        options = {"quality": spec.quality, "method": spec.method}
        if len(plain) > 1:
            shown_ms = [shown for _, shown in frames]
            options |= {"save_all": True, "append_images": plain[1:], "duration": shown_ms}
    first.save(out, form, **options)
    return Thumbnail(out.getvalue(), first.width, first.height, f"image/{form}")


def _plain(image: Image.Image) -> Image.Image:
    """Copy without metadata; the encoders would take it along."""
    plain = image.copy()
    plain.info = {}
    return plain


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode != "RGBA":
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white
