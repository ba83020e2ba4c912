"""Draw mountains, northern lights and the sea."""

import math

from PIL import Image, ImageChops, ImageDraw, ImageOps

from genonaut.local.comfy.painting.canvas import Canvas, Point, soft
from genonaut.local.comfy.painting.palette import mix


def mountains(c: Canvas) -> None:
    """Layer misty ridges below a low sun."""
    rng, p, u = c.rng, c.palette, c.unit
    c.image = c.gradient(p.sky)
    horizon = rng.uniform(0.5, 0.62)
    sun = (c.width * rng.uniform(0.2, 0.8), c.height * (horizon - rng.uniform(0.08, 0.24)))
    c.glow(*sun, u * 75, mix(p.light, p.sky[-1], 0.4), 0.75)
    c.disc(*sun, u * rng.uniform(5, 8), p.light)
    c.glow(*sun, u * 22, p.light, 0.7)
    streaks = c.clouds(2, 5, 3.0).point([max(0, (v - 150)) for v in range(256)])
    c.tint(mix(p.light, p.sky[1], 0.25), ImageChops.multiply(streaks, c.fade(0.1, horizon, 0, 255)))
    layers = rng.randint(5, 6)
    for layer in range(layers):
        depth = layer / (layers - 1)
        base = c.height * (horizon + (0.98 - horizon) * depth**1.25)
        outline = c.ridge(base, c.height * (0.13 - 0.05 * depth), 0.47 + 0.05 * depth)
        c.fill_below(outline, mix(p.far, p.near, depth))
        if layer < layers - 1:
            glowing = mix(p.sky[-1], p.far, 0.35)
            c.mist(glowing, base / c.height + 0.07, 0.13, 0.6 * (1 - depth))
        if layer >= layers - 2:
            _conifers(c, outline, mix(p.near, p.far, 0.35 * (1 - depth)), u * (2.2 + 3.6 * depth))
    if rng.random() < 0.6:
        _birds(c, sun)


def aurora(c: Canvas) -> None:
    """Hang northern lights over a forest and its lake."""
    rng, p, u = c.rng, c.palette, c.unit
    c.image = c.gradient(p.sky)
    c.stars(int(260 * c.width * c.height / min(c.width, c.height) ** 2), 0.75)
    colours = [(64, 240, 160), (70, 220, 220), (170, 110, 240), (110, 240, 120), (240, 110, 190)]
    rng.shuffle(colours)
    for colour in colours[:3]:
        c.shine(colour, _curtain(c, rng.uniform(0.38, 0.6)))
    shore = c.height * rng.uniform(0.7, 0.76)
    hills = c.ridge(shore - u * 6, u * 7, 0.5)
    c.fill_below(hills, mix(p.near, p.sky[-1], 0.3))
    trees = c.ridge(shore - u, u * 1.5, 0.5)
    c.fill_below(trees, p.near)
    _conifers(c, trees, p.near, u * 8)
    top = int(shore)
    mirrored = ImageOps.flip(c.image.crop((0, max(0, 2 * top - c.height), c.width, top)))
    mirrored = soft(mirrored, u * 0.7)
    lake = Image.blend(mirrored, Image.new("RGB", mirrored.size, p.near), 0.3)
    c.image.paste(lake, (0, top))
    pen = c.pen
    for _ in range(50):
        y = rng.uniform(top + u, c.height)
        x, length = rng.uniform(0, c.width), u * rng.uniform(4, 22)
        pixel = c.image.getpixel((int(min(x, c.width - 1)), int(min(y, c.height - 1))))
        under = pixel if isinstance(pixel, tuple) else (0, 0, 0)
        shade = mix((under[0], under[1], under[2]), p.light, 0.08)
        pen.line((x, y, x + length, y), fill=shade, width=max(1, round(u * 0.16)))


def _curtain(c: Canvas, base: float) -> Image.Image:
    """Make one fold of light: sharp below, fading upwards."""
    rng = c.rng
    across, down = 240, 120
    mask = Image.new("L", (across, down))
    swings = [(rng.uniform(0.02, 0.09), rng.uniform(0.3, 1.3), rng.uniform(0, 6)) for _ in range(3)]
    ray = rng.uniform(0, 6)
    for x in range(across):
        place = x / across
        foot = base + sum(a * math.sin(place / w * math.tau + ph) for a, w, ph in swings)
        power = 0.55 + 0.25 * math.sin(place * 40 + ray) * math.sin(place * 17 + ray * 2)
        power *= 0.75 + 0.25 * math.sin(place * 5 + ray)
        reach = 0.28 + 0.16 * math.sin(place * 9 + ray)
        for y in range(int(max(0.0, foot - reach) * down), int(min(1.0, foot + 0.03) * down)):
            up = foot - y / down
            level = max(0.0, 1 - up / reach) ** 1.5 if up > 0 else 1 + up / 0.03
            mask.putpixel((x, y), max(0, min(255, round(255 * power * level))))
    return soft(mask.resize(c.image.size, Image.Resampling.BICUBIC), c.unit * 0.8)


def sea(c: Canvas) -> None:
    """Put a low sun over water, with a lighthouse or a sail."""
    rng, p, u = c.rng, c.palette, c.unit
    horizon = c.height * rng.uniform(0.52, 0.62)
    c.image.paste(c.gradient(p.sky, int(horizon)), (0, 0))
    right = rng.random() < 0.5
    sun_x = c.width * (rng.uniform(0.2, 0.4) if right else rng.uniform(0.6, 0.8))
    sun_y = horizon - u * rng.uniform(5, 16)
    c.glow(sun_x, sun_y, u * 70, mix(p.light, p.sky[-1], 0.35), 0.7)
    c.disc(sun_x, sun_y, u * 6.5, p.light)
    bank = c.clouds(3, 5, 2.6).point([min(255, max(0, (v - 125) * 2)) for v in range(256)])
    bank = ImageChops.multiply(bank, c.fade(0.05, horizon / c.height, 60, 190))
    c.tint(mix(p.sky[-1], p.light, 0.3), bank)
    deep = mix(p.near, p.sky[0], 0.45)
    water = c.gradient((mix(p.sky[-1], p.far, 0.35), mix(deep, p.far, 0.35), deep), c.height)
    c.image.paste(water.crop((0, 0, c.width, c.height - int(horizon))), (0, int(horizon)))
    _glitter(c, sun_x, horizon)
    lighthouse_x = c.width * (rng.uniform(0.72, 0.84) if right else rng.uniform(0.16, 0.28))
    _lighthouse(c, lighthouse_x, horizon, right=right)
    _birds(c, (sun_x, sun_y))


def _glitter(c: Canvas, sun_x: float, horizon: float) -> None:
    rng, p, u = c.rng, c.palette, c.unit
    pen = c.pen
    for _ in range(620):
        depth = rng.random() ** 1.4
        y = horizon + (c.height - horizon) * depth
        lit = rng.random() < 0.55
        spread = u * (4 + 20 * depth)
        x = rng.gauss(sun_x, spread) if lit else rng.uniform(-u * 10, c.width)
        length = u * (0.8 + 8 * depth) * rng.uniform(0.4, 1.2)
        pixel = c.image.getpixel((int(max(0, min(x, c.width - 1))), int(min(y, c.height - 1))))
        under = pixel if isinstance(pixel, tuple) else (0, 0, 0)
        goal = p.light if lit else rng.choice((p.near, p.sky[-1]))
        shade = mix((under[0], under[1], under[2]), goal, rng.uniform(0.45, 0.9) if lit else 0.16)
        pen.ellipse((x - length / 2, y, x + length / 2, y + u * (0.15 + 0.5 * depth)), fill=shade)


def _lighthouse(c: Canvas, x: float, horizon: float, *, right: bool) -> None:
    rng, p, u = c.rng, c.palette, c.unit
    rock = mix(p.near, p.far, 0.12)
    edge = c.width if right else 0.0
    away = -1 if right else 1
    shore: list[Point] = [(edge, horizon + u * 9), (edge, horizon - u * 6)]
    shore += [(x - away * u * 8, horizon - u * 5), (x, horizon - u * 4.5)]
    for step in range(1, 9):
        drop = u * (-4.5 + step * 1.6 + rng.uniform(-0.8, 0.8))
        shore.append((x + away * u * (4 + step * 2.6), horizon + drop))
    c.pen.polygon([*shore, (x, horizon + u * 9)], fill=rock)
    foot, top = horizon - u * 4, horizon - u * 34
    lamp = (x, top - u * 2.2)
    beam = Image.new("L", (c.width // 2 or 1, c.height // 2 or 1))
    pen = c.pen
    for side, strength in ((away, 130), (-away, 60)):
        far = x + side * c.width
        ImageDraw.Draw(beam).polygon(
            [
                (lamp[0] / 2, lamp[1] / 2),
                (far / 2, (lamp[1] - u * 26) / 2),
                (far / 2, (lamp[1] - u * 6) / 2),
            ],
            fill=strength,
        )
    c.shine(mix(p.light, p.sky[-1], 0.2), soft(beam, u * 0.6).resize(c.image.size))
    pen = c.pen
    white, red = mix(p.light, p.far, 0.12), mix(p.accents[0], p.near, 0.15)
    bands = 5
    for band in range(bands):
        low, high = band / bands, (band + 1) / bands
        y0, y1 = foot + (top - foot) * low, foot + (top - foot) * high
        w0, w1 = u * (3.6 - 1.4 * low), u * (3.6 - 1.4 * high)
        pen.polygon(
            [(x - w0, y0), (x - w1, y1), (x + w1, y1), (x + w0, y0)],
            fill=red if band % 2 else white,
        )
        shade = mix(red if band % 2 else white, p.near, 0.35)
        pen.polygon(
            [
                (x + away * -w0 * 0.2, y0),
                (x + away * -w1 * 0.2, y1),
                (x - away * w1, y1),
                (x - away * w0, y0),
            ],
            fill=shade,
        )
    pen.rectangle((x - u * 2.9, top - u * 0.6, x + u * 2.9, top), fill=p.near)
    pen.rectangle((x - u * 1.6, top - u * 3.6, x + u * 1.6, top - u * 0.6), fill=p.light)
    pen.polygon(
        [(x - u * 2.3, top - u * 3.6), (x, top - u * 6), (x + u * 2.3, top - u * 3.6)], fill=red
    )
    c.glow(*lamp, u * 13, p.light, 0.9)


def _conifers(c: Canvas, outline: list[Point], colour: tuple[int, int, int], size: float) -> None:
    """Plant firs along an outline."""
    rng, pen = c.rng, c.pen
    x = -size
    while x < c.width + size:
        index = int(max(0, min(len(outline) - 1, x / c.width * (len(outline) - 1))))
        y = outline[index][1] + size * 0.2
        tall, wide = size * rng.uniform(0.6, 1.4), size * rng.uniform(0.2, 0.3)
        for tier in range(3):
            low = y - tall * tier * 0.26
            half = wide * (1 - tier * 0.26)
            pen.polygon([(x - half, low), (x, low - tall * 0.5), (x + half, low)], fill=colour)
        x += size * rng.uniform(0.18, 0.6)


def _birds(c: Canvas, near: Point) -> None:
    rng, u = c.rng, c.unit
    pen = c.pen
    colour = mix(c.palette.near, c.palette.far, 0.2)
    for _ in range(rng.randint(4, 9)):
        x, y = near[0] + rng.gauss(0, u * 16), near[1] - abs(rng.gauss(0, u * 10))
        wing = u * rng.uniform(0.7, 1.6)
        bird = [(x - wing, y - wing * 0.5), (x - wing * 0.4, y - wing * 0.45), (x, y)]
        bird += [(x + wing * 0.4, y - wing * 0.45), (x + wing, y - wing * 0.5)]
        pen.line(bird, fill=colour, width=max(1, round(u * 0.25)), joint="curve")
