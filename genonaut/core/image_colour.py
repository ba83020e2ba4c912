"""Bring decoded pictures of any mode to what a screen shows: 8-bit sRGB, alpha where there was."""

import io
import math

from PIL import Image, ImageCms

_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
_RESIZABLE = frozenset(("L", "LA", "RGB", "RGBA", "CMYK", "LAB", "YCbCr"))


def resizable(image: Image.Image) -> Image.Image:
    """Give the same picture in a mode whose pixels may be averaged.

    Palettes become colours, a transparent colour becomes alpha, 16-bit grey is scaled (65,535 is
    white), and 32-bit grey is stretched from its darkest to its brightest value.
    """
    if image.mode.startswith("I;16"):
        return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if image.mode in {"I", "F"}:
        return _stretched(image)
    if image.has_transparency_data and image.mode not in {"LA", "RGBA"}:
        return image.convert("RGBA")
    if image.mode == "1":
        return image.convert("L")
    return image if image.mode in _RESIZABLE else image.convert("RGB")


def srgb(image: Image.Image) -> Image.Image:
    """Convert what ``resizable`` gave to L, RGB or RGBA in sRGB, obeying its ICC profile.

    A profile that is broken or made for another kind of pixels is ignored.
    """
    alpha = image.getchannel("A") if image.mode in {"LA", "RGBA"} else None
    colours = image.convert({"LA": "L", "RGBA": "RGB", "YCbCr": "RGB"}.get(image.mode, image.mode))
    opaque = _without_profile(colours)
    if profile := image.info.get("icc_profile"):
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            opaque = _transformed(colours, source)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            pass
    opaque.info.pop("icc_profile", None)
    if alpha is None:
        return opaque
    result = opaque.convert("RGBA")
    result.putalpha(alpha)
    return result


def _without_profile(image: Image.Image) -> Image.Image:
    if image.mode == "LAB":
        return _transformed(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    return image.convert("RGB") if image.mode == "CMYK" else image


def _transformed(image: Image.Image, source: ImageCms.ImageCmsProfile) -> Image.Image:
    result = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    if result is None:  # pragma: no cover - only when converting in place
        raise ValueError("the colours could not be converted")
    return result


def _stretched(image: Image.Image) -> Image.Image:
    extrema = image.getextrema()
    low, high = float(str(extrema[0])), float(str(extrema[1]))
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return image.convert("L")
    scale = 255 / (high - low)
    offset = -low * scale
    return image.convert("F").point(lambda value: value * scale + offset).convert("L")
