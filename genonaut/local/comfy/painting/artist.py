"""Turn a latent into pictures: choose style and colours, draw, and grade like the model."""

import hashlib
import random
import re
from collections.abc import Callable

from PIL import Image, ImageChops, ImageEnhance, ImageOps

from genonaut.local.comfy.painting import abstract, built, grown, outdoors, palette
from genonaut.local.comfy.painting.canvas import Canvas, soft
from genonaut.local.comfy.painting.palette import mix, turned
from genonaut.local.comfy.values import Latent, Model, Recipe

Style = Callable[[Canvas], None]

_STYLES: dict[str, tuple[Style, tuple[str, ...], str]] = {
    "mountains": (
        outdoors.mountains,
        ("dawn", "dusk", "autumn", "winter", "day"),
        "mountain mountains landscape valley hills alps canyon peak ridge desert",
    ),
    "aurora": (
        outdoors.aurora,
        ("night",),
        "aurora borealis northern lights lake night arctic starry polar",
    ),
    "sea": (
        outdoors.sea,
        ("dusk", "dawn", "ocean", "ember"),
        "lighthouse sea ocean beach coast harbor harbour boat ship waves island seascape water",
    ),
    "flow": (
        abstract.flow,
        ("ocean", "dusk", "spring", "ember", "neon"),
        "abstract flow ink curves fluid waves painting brush swirl dream watercolor",
    ),
    "mosaic": (
        abstract.mosaic,
        ("day", "autumn", "dawn", "ocean", "spring"),
        "geometric bauhaus mosaic pattern shapes poster minimal quilt tiles cubist",
    ),
    "blossom": (
        grown.blossom,
        ("spring", "dawn", "dusk", "winter"),
        "tree blossom cherry flower flowers garden botanical sakura spring bonsai fractal",
    ),
    "forest": (
        grown.forest,
        ("day", "autumn", "dawn", "winter"),
        "forest woods woodland jungle trees path fox deer autumn wolf",
    ),
    "city": (
        built.city,
        ("dusk", "night", "neon", "ember"),
        "city skyline street town building buildings urban tokyo cyberpunk tower metropolis",
    ),
    "space": (
        built.space,
        ("night", "neon", "dusk", "ocean"),
        "space planet nebula galaxy stars cosmos astronaut moon universe cosmic saturn alien",
    ),
}
_SUPERSAMPLE_MAX_PIXELS = 1_300_000
_CLEAN_STEPS = 12


def decode(latent: Latent) -> tuple[Image.Image, ...]:
    """Draw every picture of the batch at full size."""
    return tuple(
        _picture(latent, index, (latent.width, latent.height)) for index in range(latent.batch)
    )


def style_of(recipe: Recipe) -> str:
    """Name the style: the one whose words the prompt uses most, else one the text picks."""
    words = _words(recipe.prompt)
    scores = {
        name: sum(words.count(word) for word in known.split())
        for name, (_, _, known) in _STYLES.items()
    }
    best = max(scores.values())
    if best:
        return next(name for name, score in scores.items() if score == best)
    return _luck("style", recipe.prompt, recipe.seed).choice(list(_STYLES))


def draw(recipe: Recipe, index: int, size: tuple[int, int]) -> Image.Image:
    """Draw the picture ``index`` of a batch."""
    width, height = size
    factor = 2 if width * height <= _SUPERSAMPLE_MAX_PIXELS else 1
    rng = _luck(recipe.prompt, recipe.negative, recipe.seed, recipe.model, index)
    style, moods, _ = _STYLES[style_of(recipe)]
    colours = palette.choose(_words(recipe.prompt), rng, moods)
    canvas = Canvas(width * factor, height * factor, rng, colours)
    style(canvas)
    picture = canvas.image
    if factor > 1:
        picture = picture.reduce(factor)
    picture = _graded(picture, recipe.model)
    return _grained(picture, rng, 7 + 40 * _noise_left(recipe.steps))


class Unveiling:
    """Show how noise becomes the first picture of a batch, at preview size."""

    def __init__(self, latent: Latent, edge: int) -> None:
        self._latent = latent
        scale = edge / max(latent.width, latent.height)
        self._size = (
            max(1, round(latent.width * scale)),
            max(1, round(latent.height * scale)),
        )
        self._last: Image.Image | None = None

    def at(self, share: float) -> Image.Image:
        """Give the preview when ``share`` of the steps is done."""
        if self._last is None:
            small = (max(1, self._size[0] // 2), max(1, self._size[1] // 2))
            self._last = _picture(self._latent, 0, small)
        picture = self._last
        left = (1 - share) ** 1.5
        if left > 0.01:
            picture = soft(picture, picture.width * 0.05 * left)
            noise = _noise(_luck("noise", share), picture.size)
            picture = Image.blend(picture, noise, 0.9 * left)
        return picture.resize(self._size, Image.Resampling.BICUBIC)


def _picture(latent: Latent, index: int, size: tuple[int, int]) -> Image.Image:
    source = None
    if latent.source:
        original = latent.source[index % len(latent.source)]
        source = ImageOps.fit(original, size, Image.Resampling.LANCZOS)
    if latent.recipe is None:
        return source or _noise(_luck("empty"), size)
    picture = draw(latent.recipe, index, size)
    return picture if source is None else Image.blend(source, picture, latent.denoise)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def _luck(*parts: object) -> random.Random:
    """Give chance that depends on these parts alone."""
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return random.Random(digest)  # noqa: S311 - pictures, not secrets


def _noise_left(steps: int) -> float:
    return max(0.0, 1 - steps / _CLEAN_STEPS)


def _noise(rng: random.Random, size: tuple[int, int]) -> Image.Image:
    width, height = max(2, size[0] // 4), max(2, size[1] // 4)
    raw = Image.frombytes("RGB", (width, height), rng.randbytes(width * height * 3))
    return raw.resize(size, Image.Resampling.BICUBIC)


def _grained(picture: Image.Image, rng: random.Random, amount: float) -> Image.Image:
    """Lay fine film grain over the picture; it also hides the steps of gradients."""
    edge = 256
    raw = Image.frombytes("L", (edge, edge), rng.randbytes(edge * edge))
    grain = Image.new("L", picture.size)
    for x in range(0, picture.width, edge):
        for y in range(0, picture.height, edge):
            grain.paste(raw, (x, y))
    weak = grain.point([round(128 + (level - 128) * amount / 128) for level in range(256)])
    layer = Image.merge("RGB", (weak, weak, weak))
    return ImageChops.add(picture, layer, 1, -128)


def _graded(picture: Image.Image, model: Model) -> Image.Image:
    """Give the picture the look of its checkpoint and LoRAs."""
    for name, strength in ((model.checkpoint, 0.5), *model.loras):
        rng = _luck("look", name)
        power = max(-1.5, min(1.5, strength))
        hue = turned((230, 150, 90), rng.random())
        tint = Image.new(
            "RGB", picture.size, mix((128, 128, 128), hue, min(0.55, abs(power) * 0.5))
        )
        picture = Image.blend(picture, ImageChops.soft_light(picture, tint), min(1.0, abs(power)))
        picture = ImageEnhance.Color(picture).enhance(1 + power * rng.uniform(-0.3, 0.25))
        picture = ImageEnhance.Contrast(picture).enhance(1 + power * rng.uniform(0.0, 0.14))
    return picture
