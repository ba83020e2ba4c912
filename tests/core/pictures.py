"""Make pictures of every format and mode, for the tests of imaging."""

import io
import json

from PIL import Image, ImageChops, ImageCms, ImageSequence

SECRET = b"secret graph"
GRAPH = json.dumps({"3": {"class_type": "KSampler", "inputs": {"text": SECRET.decode()}}})


def picture(mode="RGB", size=(96, 64)):
    ramp = Image.linear_gradient("L").resize(size)
    colours = Image.merge("RGB", (ramp, ramp.rotate(180), Image.radial_gradient("L").resize(size)))
    if mode == "I;16":
        return colours.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    if mode in {"RGBA", "LA"}:
        colours.putalpha(ramp)
    return colours.convert(mode)


def encode(image, target, **options):
    out = io.BytesIO()
    image.save(out, target, **options)
    return out.getvalue()


def decode(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.copy()


def frames(data):
    with Image.open(io.BytesIO(data)) as image:
        return [frame.convert("RGBA").tobytes() for frame in ImageSequence.Iterator(image)]


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    tags[0x010E] = SECRET.decode()
    return tags


def difference(one, other):
    return max(high for _, high in ImageChops.difference(one, other).convert("RGB").getextrema())


ANIMATION = [picture(size=(40, 30)).rotate(angle) for angle in (0, 90, 180)]
ANIMATED = {
    kind: encode(ANIMATION[0], kind, save_all=True, append_images=ANIMATION[1:], duration=80)
    for kind in ("PNG", "WEBP", "GIF", "AVIF")
}
STILL = [
    *(("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    *(("JPEG", mode) for mode in ("L", "RGB", "CMYK")),
    *(("WEBP", mode) for mode in ("RGB", "RGBA")),
    *(("AVIF", mode) for mode in ("RGB", "RGBA")),
    *(("GIF", mode) for mode in ("L", "P")),
    *(("TIFF", mode) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F")),
    *(("BMP", mode) for mode in ("1", "L", "P", "RGB")),
]
TYPES = {
    "PNG": ("image/png", "png"),
    "JPEG": ("image/jpeg", "jpg"),
    "WEBP": ("image/webp", "webp"),
    "AVIF": ("image/avif", "avif"),
    "GIF": ("image/gif", "gif"),
    "TIFF": ("image/tiff", "tiff"),
    "BMP": ("image/bmp", "bmp"),
}


def still(kind, mode):
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return encode(ImageCms.profileToProfile(picture(), *profiles, outputMode="LAB"), kind)
    return encode(picture(mode), kind)
