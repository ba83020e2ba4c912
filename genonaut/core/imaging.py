"""Check pictures, clean them and make thumbnails: bytes in, bytes out."""

import hashlib
import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from genonaut.core import image_colour, image_containers
from genonaut.core.errors import ImageTooLargeError, UnreadableImageError

MAX_PIXELS = 48_000_000
MAX_BYTES = 64 * 2**20
_ANIMATION_FACTOR = 4
_MAX_FRAMES = 10_000

_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "GIF", "TIFF", "BMP")
_FORMAT_MIMES = {"MPO": "image/jpeg"} | {name: f"image/{name.lower()}" for name in _FORMATS}
_PNG_MODES = frozenset(("1", "L", "LA", "I;16", "P", "RGB", "RGBA"))
_DECODER_ERRORS = (
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

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_REDUCING_GAP = 1.01
_DRAFT_GAP = 2
"""A JPEG is decoded at no less than twice the thumbnail's size."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Say what a picture is; width and height are as shown, after any EXIF orientation."""

    mime: str
    width: int
    height: int
    frames: int
    extension: str


@dataclass(frozen=True, slots=True)
class ThumbSpec:
    """Say which thumbnails to make: ``sizes`` are edges of squares to fit in, pixels."""

    sizes: tuple[int, ...] = (512, 256)
    format: Literal["webp"] = "webp"
    quality: int = 80
    method: int = 2

    def __post_init__(self) -> None:
        if not self.sizes or not all(1 <= size <= 4096 for size in self.sizes):
            raise ValueError("sizes must be edges of 1 to 4096 pixels")
        if self.format != "webp" or not 0 <= self.quality <= 100 or not 0 <= self.method <= 6:
            raise ValueError("format must be webp, quality 0 to 100, method 0 to 6")

    @property
    def hash(self) -> str:
        """Name this spec in 12 characters, the same in every process and release."""
        sizes = ",".join(str(size) for size in sorted(set(self.sizes), reverse=True))
        text = f"1:{sizes}:{self.format}:{self.quality}:{self.method}"
        return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Hold one encoded thumbnail."""

    data: bytes
    width: int
    height: int
    mime: str


def inspect(data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> ImageInfo:
    """Decode the whole picture, every frame, and say what it is.

    ``max_pixels`` bounds one frame, four times as much all frames of an animation. Of a TIFF only
    the first page is looked at. Limits are checked before memory is taken for the pixels.
    Raises: UnreadableImageError: not a picture we know, broken, truncated or too large.
    """
    with _opened(data, max_pixels=max_pixels, max_bytes=max_bytes) as image:
        mime = _FORMAT_MIMES[str(image.format)]
        _container_without_metadata(mime, data)
        turned = _orientation(image) >= 5
        frames = sum(1 for _ in _frames(image, max_pixels))
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
    with _opened(data) as image:
        if info.mime in _LOSSLESS and _orientation(image) == 1:
            return _container_without_metadata(info.mime, data)
        return _encoded_anew(image, "WEBP" if info.mime == "image/webp" else "PNG")


def thumbnails(data: bytes, spec: ThumbSpec) -> dict[int, Thumbnail]:
    """Make one thumbnail per size of ``spec``, each smaller one from the next larger.

    The whole picture fits the square and is never enlarged; upright, sRGB, alpha kept, without
    metadata, of an animation the first frame.
    Raises: UnreadableImageError: as ``inspect``.
    """
    made = {}
    with _opened(data) as image:
        orientation = _orientation(image)
        sizes = sorted(set(spec.sizes), reverse=True)
        current = _first_reduction(image, sizes[0])
        if orientation in _UPRIGHT:
            current = current.transpose(_UPRIGHT[orientation])
        for edge in sizes:
            current = current.resize(
                _fit(current.size, edge), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP
            )
            made[edge] = _encoded_thumbnail(current, spec)
    return made


@contextmanager
def _opened(
    data: bytes, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> Iterator[ImageFile.ImageFile]:
    """Open, nothing decoded yet, and turn whatever Pillow raises inside the block into our error.

    A PNG's text is dropped first, so that it is never inflated.
    """
    if not data:
        raise UnreadableImageError("The file is empty.")
    if len(data) > max_bytes:
        raise ImageTooLargeError(f"The file is larger than {max_bytes // 2**20} MiB.")
    if data.startswith(image_containers.PNG_SIGNATURE):
        data = image_containers.png_without_metadata(data, also_keep=frozenset((b"eXIf",)))
    if data[:4] == b"RIFF":  # Pillow makes the canvas while opening
        _check_size(image_containers.webp_size(data), max_pixels)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                _check_size(image.size, max_pixels)
                if not _is_held_once(image):
                    _check_size(image.size, max_pixels // 2)
                yield image
    except UnidentifiedImageError as error:
        raise UnreadableImageError("The file is not a picture of a known format.") from error
    except _DECODER_ERRORS as error:
        raise UnreadableImageError("The picture is damaged or truncated.") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
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
    return image.format == "PNG" or _orientation(image) == 1


def _frames(image: ImageFile.ImageFile, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
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
        _check_size(image.size, max_pixels)
        count += 1
        pixels += image.width * image.height
        if count > _MAX_FRAMES or pixels > _ANIMATION_FACTOR * max_pixels:
            raise UnreadableImageError("The animation is too large.")
        image.load()
        yield image


def _orientation(image: ImageFile.ImageFile) -> int:
    """Read EXIF's orientation, 1 to 8; 1 if there is none, it is broken or Pillow applies it."""
    if image.format == "TIFF":
        return 1
    if image.format == "PNG":
        image.load()  # getexif would, and the decoder's error must not be mistaken for EXIF's
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DECODER_ERRORS:
        return 1
    return value if value in _UPRIGHT else 1


def _container_without_metadata(mime: str, data: bytes) -> bytes:
    return _LOSSLESS[mime](data) if mime in _LOSSLESS else data


_LOSSLESS = {
    "image/png": image_containers.png_without_metadata,
    "image/jpeg": image_containers.jpeg_without_metadata,
    "image/webp": image_containers.webp_without_metadata,
    "image/gif": image_containers.gif_without_metadata,
}


def _encoded_anew(image: ImageFile.ImageFile, target: Literal["PNG", "WEBP"]) -> bytes:
    orientation = _orientation(image)
    frames, durations = [], []
    for decoded in _frames(image):
        frame = _storable(decoded)
        frames.append(frame.transpose(_UPRIGHT[orientation]) if orientation != 1 else frame)
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


def _first_reduction(image: ImageFile.ImageFile, edge: int) -> Image.Image:
    """Decode and shrink to ``edge``, then convert what few pixels are left."""
    size = _fit(image.size, edge)
    box = None
    if drafted := image.draft(None, (size[0] * _DRAFT_GAP, size[1] * _DRAFT_GAP)):
        box = drafted[1]
    image.load()
    small = image_colour.resizable(image).resize(
        size, Image.Resampling.LANCZOS, box=box, reducing_gap=_REDUCING_GAP
    )
    return image_colour.srgb(small)


def _fit(size: tuple[int, int], edge: int) -> tuple[int, int]:
    longest = max(size)
    if longest <= edge:
        return size
    width, height = (max(1, round(side * edge / longest)) for side in size)
    return width, height


def _encoded_thumbnail(image: Image.Image, spec: ThumbSpec) -> Thumbnail:
    out = io.BytesIO()
    plain = image.copy()
    plain.info = {}
    plain.save(out, spec.format, quality=spec.quality, method=spec.method)
    return Thumbnail(out.getvalue(), image.width, image.height, f"image/{spec.format}")
