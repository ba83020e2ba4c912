"""Offer the brushes that the styles share."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from genonaut.local.comfy.painting.palette import Colour, Palette, mix

Point = tuple[float, float]

_NOISE_EDGE_MAX = 512


@dataclass
class Canvas:
    """Be a picture in the making, with its own luck and colours."""

    width: int
    height: int
    rng: random.Random
    palette: Palette
    image: Image.Image = field(init=False)

    def __post_init__(self) -> None:
        self.image = Image.new("RGB", (self.width, self.height))

    @property
    def unit(self) -> float:
        """Give a hundredth of the shorter edge: the measure of every detail."""
        return min(self.width, self.height) / 100

    @property
    def pen(self) -> ImageDraw.ImageDraw:
        """Draw straight onto the picture."""
        return ImageDraw.Draw(self.image)

    def gradient(self, colours: Sequence[Colour], height: int | None = None) -> Image.Image:
        """Make a smooth vertical gradient, as wide as the picture."""
        column = Image.new("RGB", (1, 256))
        last = len(colours) - 1
        for y in range(256):
            place = y / 255 * last
            index = min(int(place), last - 1)
            column.putpixel((0, y), mix(colours[index], colours[index + 1], place - index))
        return column.resize((self.width, height or self.height), Image.Resampling.BILINEAR)

    def fade(self, start: float, end: float, top: int, bottom: int) -> Image.Image:
        """Make a mask that goes from ``top`` at height ``start`` to ``bottom`` at ``end``."""
        column = Image.new("L", (1, 256))
        for y in range(256):
            share = min(1.0, max(0.0, (y / 255 - start) / max(end - start, 1e-6)))
            share = share * share * (3 - 2 * share)
            column.putpixel((0, y), round(top + (bottom - top) * share))
        return column.resize(self.image.size, Image.Resampling.BILINEAR)

    def clouds(self, cells: int, octaves: int = 4, stretch: float = 1.0) -> Image.Image:
        """Make soft noise over the whole picture, brightness 0 to 255."""
        noise = self.small_clouds(cells, octaves, stretch)
        return noise.resize(self.image.size, Image.Resampling.BILINEAR)

    def small_clouds(self, cells: int, octaves: int, stretch: float = 1.0) -> Image.Image:
        """Make the same at the size at which noise is made."""
        ratio = self.width / self.height
        small_width = max(2, min(_NOISE_EDGE_MAX, self.width))
        small = (small_width, max(2, round(small_width / ratio)))
        made: Image.Image | None = None
        for octave in range(octaves):
            across = max(2, cells * 2**octave)
            down = max(2, round(across / ratio * stretch))
            bumps = Image.frombytes("L", (across, down), self.rng.randbytes(across * down))
            layer = bumps.resize(small, Image.Resampling.BICUBIC)
            made = (
                layer if made is None else Image.blend(made, layer, 0.5 / (octave * 0.6 + 0.5) / 2)
            )
        if made is None:
            raise ValueError("octaves must be at least 1")
        levels = made.histogram()
        low = next(level for level in range(256) if levels[level])
        high = next(level for level in reversed(range(256)) if levels[level])
        span = max(1, high - low)
        table = [max(0, min(255, round((level - low) * 255 / span))) for level in range(256)]
        return made.point(table)

    def tint(self, colour: Colour, mask: Image.Image) -> None:
        """Lay a colour over the picture where the mask is bright."""
        self.image.paste(colour, (0, 0), mask)

    def shine(self, colour: Colour, mask: Image.Image) -> None:
        """Add light of a colour where the mask is bright."""
        light = Image.new("RGB", self.image.size)
        light.paste(colour, (0, 0), mask)
        self.image = ImageChops.screen(self.image, light)

    def glow(self, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
        """Add a round light that fades out towards ``radius``."""
        size = max(2, round(radius * 2))
        # Pillow's gradient reaches 255 in the corners, not at the edges.
        near = [max(0.0, 1 - level / 255 * math.sqrt(2)) for level in range(256)]
        curve = [round(255 * strength * share**1.8) for share in near]
        mask = (
            Image.radial_gradient("L").point(curve).resize((size, size), Image.Resampling.BILINEAR)
        )
        left, top = round(x - radius), round(y - radius)
        box = (
            max(0, left),
            max(0, top),
            min(self.width, left + size),
            min(self.height, top + size),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            return
        mask = mask.crop((box[0] - left, box[1] - top, box[2] - left, box[3] - top))
        light = Image.new("RGB", mask.size)
        light.paste(colour, (0, 0), mask)
        self.image.paste(ImageChops.screen(self.image.crop(box), light), box[:2])

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        """Fill a circle."""
        self.pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def stars(self, count: int, until: float = 1.0) -> None:
        """Scatter stars above the height ``until``, a few of them bright."""
        pen = self.pen
        for _ in range(count):
            x, y = self.rng.uniform(0, self.width), self.rng.uniform(0, self.height * until)
            level = self.rng.random() ** 3
            radius = self.unit * (0.06 + 0.14 * level)
            under = self.image.getpixel((int(min(x, self.width - 1)), int(min(y, self.height - 1))))
            colour = mix(_rgb(under), self.palette.light, 0.35 + 0.65 * level)
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        for _ in range(count // 40):
            x, y = self.rng.uniform(0, self.width), self.rng.uniform(0, self.height * until)
            self.glow(x, y, self.unit * self.rng.uniform(1, 2.4), self.palette.light, 0.8)

    def ridge(self, base: float, swing: float, roughness: float = 0.5) -> list[Point]:
        """Make the outline of hills across the picture, by midpoint displacement."""
        heights = [self.rng.uniform(-1, 1), self.rng.uniform(-1, 1), self.rng.uniform(-1, 1)]
        reach = 1.0
        while len(heights) < 300:
            reach *= roughness
            finer = []
            for left, right in pairwise(heights):
                finer += [left, (left + right) / 2 + self.rng.uniform(-reach, reach)]
            heights = [*finer, heights[-1]]
        step = self.width / (len(heights) - 1)
        return [(index * step, base - swing * height) for index, height in enumerate(heights)]

    def fill_below(self, outline: Sequence[Point], colour: Colour) -> None:
        """Fill everything below an outline."""
        self.pen.polygon([(0, self.height), *outline, (self.width, self.height)], fill=colour)

    def mist(self, colour: Colour, height: float, thickness: float, strength: float) -> None:
        """Lay mist around a height, both as shares of the picture."""
        up = self.fade(height - thickness, height, 0, 255)
        down = self.fade(height, height + thickness, 255, 0)
        mask = ImageChops.multiply(ImageChops.multiply(up, down), self.clouds(3, 3, 0.4))
        self.tint(colour, mask.point([round(level * strength) for level in range(256)]))


def soft(image: Image.Image, radius: float) -> Image.Image:
    """Blur, at a smaller size when the radius is large."""
    shrink = max(1, int(radius // 4))
    if shrink == 1:
        return image.filter(ImageFilter.GaussianBlur(radius))
    size = (max(1, image.width // shrink), max(1, image.height // shrink))
    small = image.resize(size, Image.Resampling.BOX)
    small = small.filter(ImageFilter.GaussianBlur(radius / shrink))
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _rgb(pixel: object) -> Colour:
    return pixel if isinstance(pixel, tuple) and len(pixel) == 3 else (0, 0, 0)
