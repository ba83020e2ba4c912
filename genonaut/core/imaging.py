"""Check pictures, clean them and make thumbnails: bytes in, bytes out."""

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFile

from genonaut.core import image_colour, image_containers, image_opening
from genonaut.core.image_opening import MAX_BYTES, MAX_PIXELS, UPRIGHT
from genonaut.core.thumbnails import Thumbnail, ThumbSpec, thumbnails

__all__ = (
    "MAX_BYTES",
    "MAX_PIXELS",
    "ImageInfo",
    "ThumbSpec",
    "Thumbnail",
    "inspect",
    "strip_metadata",
    "thumbnails",
)

_PNG_MODES = frozenset(("1", "L", "LA", "I;16", "P", "RGB", "RGBA"))


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Say what a picture is; width and height are as shown, after any EXIF orientation."""

    mime: str
    width: int
    height: int
    frames: int
    extension: str


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> ImageInfo:
    """Decode the whole picture, every frame, and say what it is.

    ``max_pixels`` bounds one frame, four times as much all frames of an animation. Of a TIFF only
    the first page is looked at. Limits are checked before memory is taken for the pixels.
    Raises: UnreadableImageError: not a picture we know, broken, truncated or too large.
    """
    with image_opening.opened(data, max_pixels=max_pixels, max_bytes=max_bytes) as image:
        mime = image_opening.FORMAT_MIMES[str(image.format)]
        _container_without_metadata(mime, data)
        turned = image_opening.orientation(image) >= 5
        frames = sum(1 for _ in image_opening.frames(image, max_pixels))
        width, height = image.size
    if turned:
        width, height = height, width
    return ImageInfo(mime, width, height, frames, image_containers.EXTENSIONS[mime])


def strip_metadata(data: bytes, info: ImageInfo) -> bytes:
    """Remove everything but the pixels and what their colours need.

    PNG, JPEG, WebP and GIF stay what they are, without loss. A picture that only EXIF turns upright
    is encoded anew, upright and lossless (JPEG as PNG), as are the other formats: as PNG, of a TIFF
    the first page. So the type may change; ``inspect`` the result before storing it.
    Raises: UnreadableImageError: ``data`` would not have passed ``inspect``.
    """
    with image_opening.opened(data) as image:
        if info.mime in _LOSSLESS and image_opening.orientation(image) == 1:
            return _container_without_metadata(info.mime, data)
        return _encoded_anew(image, "WEBP" if info.mime == "image/webp" else "PNG")


def _container_without_metadata(mime: str, data: bytes) -> bytes:
    return _LOSSLESS[mime](data) if mime in _LOSSLESS else data


_LOSSLESS = {
    "image/png": image_containers.png_without_metadata,
    "image/jpeg": image_containers.jpeg_without_metadata,
    "image/webp": image_containers.webp_without_metadata,
    "image/gif": image_containers.gif_without_metadata,
}


def _encoded_anew(image: ImageFile.ImageFile, target: Literal["PNG", "WEBP"]) -> bytes:
    orientation = image_opening.orientation(image)
    frames, durations = [], []
    for decoded in image_opening.frames(image):
        frame = _storable(decoded)
        frames.append(frame.transpose(UPRIGHT[orientation]) if orientation != 1 else frame)
        durations.append(decoded.info.get("duration", 0))
    first, *rest = frames
    options = {"duration": durations, "loop": image.info.get("loop", 0)} if rest else {}
    profile = first.info.get("icc_profile")
    transparency = first.info.get("transparency")
    for frame in frames:
        frame.info = {} if transparency is None else {"transparency": transparency}
    out = io.BytesIO()
    first.save(
        out,
        target,
        save_all=bool(rest),
        append_images=rest,
        icc_profile=profile,
        lossless=True,
        exact=True,
        **options,
    )
    return out.getvalue()


def _storable(image: Image.Image) -> Image.Image:
    """Copy the picture in a mode PNG can hold, exactly where that is possible."""
    if image.mode in _PNG_MODES:
        return image.copy()
    if image.mode.startswith("I;16"):
        return image.convert("I").convert("I;16")
    return image_colour.srgb(image_colour.resizable(image))
