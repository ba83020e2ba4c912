"""Open pictures of strangers with Pillow: limits first, and one family of errors."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from genonaut.core import image_containers
from genonaut.core.errors import (
    ImageTooLargeError,
    UnreadableImageError,
    UnsupportedImageError,
)

MAX_PIXELS = 48_000_000
MAX_BYTES = 64 * 2**20
_ANIMATION_FACTOR = 4
_MAX_FRAMES = 10_000
_MAX_SCANS = 200
"""A progressive JPEG has about ten; more of them cost much time and need not have any bytes."""

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")
FORMAT_MIMES = {"MPO": "image/jpeg"} | {name: f"image/{name.lower()}" for name in _FORMATS}
_SIGNATURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|....ftypavi|GIF8|II\*\0|MM\0\*|II\+\0|MM\0\+|BM", re.DOTALL
)
DECODER_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BufferError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise on broken files, as found by fuzzing and by reading them."""

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How to turn a picture whose EXIF orientation is not 1."""


@contextmanager
def opened(
    data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Iterator[ImageFile.ImageFile]:
    """Open, nothing decoded yet, and turn whatever Pillow raises inside the block into our errors.

    A PNG's text is dropped first, so that it is never inflated.
    Raises: UnsupportedImageError: not of a format we know. ImageTooLargeError: above a limit.
    UnreadableImageError: broken or truncated.
    """
    if not data:
        raise UnreadableImageError("The file is empty.")
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"The file is larger than {max_bytes // 2**20} MiB.")
    if data.startswith(image_containers.PNG_SIGNATURE):
        data = image_containers.png_without_metadata(data, also_keep=frozenset((b"eXIf",)))
    if data[:2] == b"\xff\xd8" and image_containers.jpeg_has_scans(data, _MAX_SCANS):
        raise UnreadableImageError("The JPEG has too many scans.")
    if data[:4] == b"RIFF":  # Pillow makes the canvas while opening
        check_size(image_containers.webp_size(data), max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                check_size(image.size, max_pixels)
                if not _is_held_once(image):
                    check_size(image.size, max_pixels // 2)
                yield image
    except UnidentifiedImageError as error:
        if _SIGNATURE.match(data):
            raise UnreadableImageError("The picture is damaged or truncated.") from error
        raise UnsupportedImageError("The file is not a picture of a known format.") from error
    except MemoryError as error:
        raise ImageTooLargeError("The picture takes more memory than there is for it.") from error
    except DECODER_ERRORS as error:
        raise UnreadableImageError("The picture is damaged or truncated.") from error


def check_size(size: tuple[int, int], max_pixels: int) -> None:
    """Refuse a picture of no pixels, or of more than ``max_pixels``."""
    width, height = size
    if width < 1 or height < 1:
        raise UnreadableImageError("The picture has no pixels.")
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"The picture is too large: {width} x {height}, at most {max_pixels:,} pixels."
        )


def _is_held_once(image: ImageFile.ImageFile) -> bool:
    """Whether the pixels are used as decoded; other kinds are held again while converted."""
    if image.mode not in {"1", "L", "P", "RGB"}:
        return False
    # Of a PNG the orientation is known only after decoding, and almost none has one.
    return image.format == "PNG" or orientation(image) == 1


def frames(image: Image.Image, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Decode frame after frame; the yielded image is the same object each time."""
    image.load()
    yield image
    if image.format not in {"PNG", "WEBP", "AVIF", "GIF"}:
        return
    announced = getattr(image, "n_frames", 1) if image.format != "GIF" else None
    count, pixels = 1, image.width * image.height
    while announced is None or count < announced:
        try:
            image.seek(count)
        except EOFError:
            if announced is None:
                return
            raise
        check_size(image.size, max_pixels)
        count += 1
        pixels += image.width * image.height
        if count > _MAX_FRAMES or pixels > _ANIMATION_FACTOR * max_pixels:
            raise UnreadableImageError("The animation is too large.")
        image.load()
        yield image


def orientation(image: ImageFile.ImageFile) -> int:
    """Read EXIF's orientation, 1 to 8; 1 if there is none, it is broken or Pillow applies it."""
    if image.format == "TIFF":
        return 1
    if image.format == "PNG":
        image.load()  # getexif would, and the decoder's error must not be mistaken for EXIF's
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except DECODER_ERRORS:
        return 1
    return value if value in UPRIGHT else 1
