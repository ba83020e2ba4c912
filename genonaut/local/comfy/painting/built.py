"""Draw cities and planets."""

import math

from PIL import Image, ImageChops, ImageDraw, ImageOps

from genonaut.local.comfy.painting.canvas import Canvas
from genonaut.local.comfy.painting.palette import Colour, mix


def city(c: Canvas) -> None:
    """Build a skyline with lit windows over dark water."""
    rng, p, u = c.rng, c.palette, c.unit
    c.image = c.gradient(p.sky)
    c.stars(90, 0.35)
    shore = int(c.height * rng.uniform(0.76, 0.84))
    moon = (c.width * rng.uniform(0.15, 0.85), c.height * rng.uniform(0.14, 0.34))
    c.glow(*moon, u * 50, mix(p.light, p.sky[-1], 0.4), 0.6)
    c.disc(*moon, u * rng.uniform(5, 10), p.light)
    haze = mix(p.sky[-1], p.accents[0], 0.25)
    for layer in range(4):
        depth = layer / 3
        _row(c, shore, depth, mix(mix(p.far, p.sky[-1], 0.35), p.near, depth))
        if layer < 3:
            c.mist(haze, shore / c.height - 0.04, 0.22, 0.55 * (1 - depth))
    height = c.height - shore
    mirror = ImageOps.flip(c.image.crop((0, max(0, shore - height * 2), c.width, shore)))
    mirror = mirror.resize((c.width, height))
    squeezed = mirror.resize((max(1, c.width // 3), max(1, height // 14))).resize(mirror.size)
    water = Image.blend(
        Image.blend(mirror, squeezed, 0.6), Image.new("RGB", mirror.size, p.near), 0.3
    )
    c.image.paste(water, (0, shore))
    c.pen.line((0, shore, c.width, shore), fill=p.near, width=max(1, round(u * 0.5)))


def _row(c: Canvas, shore: int, depth: float, colour: Colour) -> None:
    rng, p, u = c.rng, c.palette, c.unit
    lamps = (
        p.light,
        mix(p.light, p.accents[1], 0.5),
        p.accents[1],
        mix(p.accents[0], p.light, 0.4),
    )
    x = -u * 4
    while x < c.width:
        width = u * rng.uniform(5, 11) * (0.7 + 0.5 * depth)
        centre = 1 - abs(x / c.width - 0.5)
        tall = u * rng.uniform(10, 30) * (0.4 + centre) * (1.5 - 0.75 * depth)
        tall *= rng.choice((1, 1, 1, 1.5))
        top = shore - tall
        pen = c.pen
        pen.rectangle((x, top, x + width, shore), fill=colour)
        shape = rng.randrange(5)
        if shape == 0:
            pen.polygon(
                [(x, top), (x + width / 2, top - width * 0.6), (x + width, top)], fill=colour
            )
        elif shape == 1:
            pen.rectangle((x + width * 0.25, top - u * 3, x + width * 0.75, top), fill=colour)
            mast = x + width / 2
            pen.line((mast, top - u * 9, mast, top), fill=colour, width=max(1, round(u * 0.3)))
        elif shape == 2:
            pen.polygon([(x, top), (x + width, top - width * 0.5), (x + width, top)], fill=colour)
        elif shape == 3 and width > u * 6:
            pen.pieslice((x, top - width / 2, x + width, top + width / 2), 180, 360, fill=colour)
        _windows(c, (x, top, width, tall), lamps, colour, 0.25 + 0.65 * depth)
        x += width * rng.uniform(0.7, 1.15)


def _windows(
    c: Canvas,
    box: tuple[float, float, float, float],
    lamps: tuple[Colour, ...],
    wall: Colour,
    strength: float,
) -> None:
    rng, u, pen = c.rng, c.unit, c.pen
    x, top, width, tall = box
    step_x, step_y = u * 1.15, u * 1.6
    busy = rng.uniform(0.25, 0.62)
    for row in range(1, int(tall / step_y)):
        for column in range(int((width - u) / step_x)):
            if rng.random() < busy:
                left = x + u * 0.6 + column * step_x
                y = top + row * step_y
                shade = mix(wall, rng.choice(lamps), strength * rng.uniform(0.55, 1))
                pen.rectangle((left, y, left + u * 0.6, y + u * 0.85), fill=shade)


def space(c: Canvas) -> None:
    """Hang a planet, perhaps ringed, before a nebula."""
    rng, p, u = c.rng, c.palette, c.unit
    c.image.paste(mix(p.sky[0], (4, 4, 14), 0.75), (0, 0, c.width, c.height))
    for colour in (p.accents[0], p.sky[1], p.accents[2], p.sky[-2]):
        cloud = ImageChops.multiply(c.small_clouds(2, 6), c.small_clouds(3, 5))
        cut = rng.randint(40, 70)
        cloud = cloud.point([min(190, max(0, round((v - cut) * 1.25))) for v in range(256)])
        c.shine(colour, cloud.resize(c.image.size, Image.Resampling.BILINEAR))
    dust = c.clouds(5, 6).point([min(200, max(0, (v - 140) * 2)) for v in range(256)])
    c.tint((4, 4, 12), dust)
    c.stars(int(420 * c.width * c.height / min(c.width, c.height) ** 2))
    radius = u * rng.uniform(17, 27)
    x = c.width * rng.uniform(0.32, 0.68)
    y = c.height * rng.uniform(0.38, 0.64)
    ring = rng.random() < 0.6
    tilt = rng.uniform(-24, 24)
    hoop = _ring(c, radius) if ring else None
    angle = rng.uniform(0, math.tau)
    c.glow(x, y, radius * 1.7, mix(p.accents[1], p.light, 0.3), 0.5)
    if hoop is not None:
        _lay(c, hoop, (x, y), tilt, upper=True)
    _planet(c, (x, y), radius, angle)
    if hoop is not None:
        _lay(c, hoop, (x, y), tilt, upper=False)
    moon_angle = rng.uniform(0, math.tau)
    far = radius * rng.uniform(1.7, 2.1)
    _planet(
        c, (x + math.cos(moon_angle) * far, y + math.sin(moon_angle) * far), radius * 0.17, angle
    )


def _planet(c: Canvas, centre: tuple[float, float], radius: float, angle: float) -> None:
    """Draw a banded ball that is lit from ``angle``."""
    rng, p = c.rng, c.palette
    size = max(4, round(radius * 2))
    skin = Image.new("RGB", (1, 64))
    inks = [mix(rng.choice(p.accents), p.light, rng.uniform(0, 0.4)) for _ in range(9)]
    for row in range(64):
        place = row / 64 * 8
        skin.putpixel((0, row), mix(inks[int(place)], inks[int(place) + 1], (place % 1) ** 2))
    ball = skin.resize((size, size), Image.Resampling.BICUBIC)
    swirl = c.small_clouds(3, 5, 3.0).resize((size, size))
    ball.paste(p.light, (0, 0), swirl.point([max(0, v - 150) for v in range(256)]))
    ball = ball.rotate(rng.uniform(-30, 30), Image.Resampling.BICUBIC, fillcolor=inks[4])
    shade = Image.radial_gradient("L").resize((size * 2, size * 2), Image.Resampling.BILINEAR)
    shade = shade.point(
        [round(255 * min(1.0, max(0.0, (v - 45) / 100)) ** 1.2) for v in range(256)]
    )
    left = round(size / 2 - math.cos(angle) * size * 0.36)
    top = round(size / 2 - math.sin(angle) * size * 0.36)
    shade = shade.crop((left, top, left + size, top + size))
    ball.paste(mix(p.sky[0], (2, 2, 8), 0.85), (0, 0), shade)
    mask = Image.new("L", (size * 2, size * 2))
    ImageDraw.Draw(mask).ellipse((2, 2, size * 2 - 3, size * 2 - 3), fill=255)
    corner = (round(centre[0] - size / 2), round(centre[1] - size / 2))
    c.image.paste(ball, corner, mask.resize((size, size), Image.Resampling.BOX))


def _ring(c: Canvas, radius: float) -> Image.Image:
    rng, p = c.rng, c.palette
    size = round(radius * 4.4)
    hoop = Image.new("RGBA", (size, size))
    pen = ImageDraw.Draw(hoop)
    width = max(1, round(radius * 0.03) + 1)
    for step in range(26):
        r = radius * (1.35 + 0.03 * step)
        ink = (*mix(rng.choice(p.accents), p.light, 0.45), rng.randint(40, 210))
        box = (size / 2 - r, size / 2 - r, size / 2 + r, size / 2 + r)
        pen.ellipse(box, outline=ink, width=width)
    return hoop.resize((size, max(1, round(size * 0.26))), Image.Resampling.BOX)


def _lay(
    c: Canvas, hoop: Image.Image, centre: tuple[float, float], tilt: float, *, upper: bool
) -> None:
    """Paste the half of the ring behind the planet, or the one before it."""
    half = hoop.copy()
    middle = hoop.height // 2
    hidden = (0, middle, hoop.width, hoop.height) if upper else (0, 0, hoop.width, middle)
    half.paste((0, 0, 0, 0), hidden)
    turned = half.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    corner = (round(centre[0] - turned.width / 2), round(centre[1] - turned.height / 2))
    c.image.paste(turned.convert("RGB"), corner, turned.getchannel("A"))
