"""Draw trees, blossoms and forests."""

import math

from genonaut.local.comfy.painting.canvas import Canvas
from genonaut.local.comfy.painting.palette import Colour, mix


def blossom(c: Canvas) -> None:
    """Grow one old tree in bloom on a hill."""
    rng, p, u = c.rng, c.palette, c.unit
    c.image = c.gradient(p.sky)
    moon = (c.width * rng.uniform(0.3, 0.7), c.height * rng.uniform(0.26, 0.4))
    c.glow(*moon, u * 62, p.light, 0.55)
    c.disc(*moon, u * rng.uniform(17, 24), mix(p.light, p.sky[-1], 0.3))
    for depth in (0.2, 0.55):
        base = c.height * (0.74 + 0.1 * depth)
        c.fill_below(c.ridge(base, c.height * 0.05, 0.42), mix(p.far, p.near, depth * 0.7))
        c.mist(mix(p.sky[-1], p.far, 0.3), 0.8, 0.1, 0.5)
    ground = c.height * 0.88
    c.fill_below(c.ridge(ground, u * 2.5, 0.4), p.near)
    tips: list[tuple[float, float]] = []
    x = c.width * rng.uniform(0.4, 0.6)
    tall = min(c.height * 0.2, c.width * 0.24)
    lean = -math.pi / 2 + rng.uniform(-0.12, 0.12)
    _branch(c, x, ground + u * 3, lean, tall, u * 4.4, 9, tips)
    petals = [p.accents[0], p.accents[1], mix(p.accents[1], p.light, 0.5), p.accents[-2]]
    for tip_x, tip_y in tips:
        for _ in range(2):
            shade = mix(rng.choice(petals), p.light, rng.uniform(0, 0.3))
            far_x, far_y = rng.gauss(0, u * 1.4), rng.gauss(0, u * 1.4)
            c.disc(tip_x + far_x, tip_y + far_y, u * rng.uniform(0.35, 1.05), shade)
    for _ in range(90):
        shade = rng.choice(petals)
        c.disc(
            rng.uniform(0, c.width),
            c.height * rng.uniform(0.3, 1),
            u * rng.uniform(0.2, 0.5),
            shade,
        )


def _branch(
    c: Canvas,
    x: float,
    y: float,
    angle: float,
    length: float,
    width: float,
    left: int,
    tips: list[tuple[float, float]],
) -> None:
    rng = c.rng
    bend = angle + rng.uniform(-0.14, 0.14)
    middle = (x + math.cos(bend) * length * 0.5, y + math.sin(bend) * length * 0.5)
    end = (
        middle[0] + math.cos(angle) * length * 0.5,
        middle[1] + math.sin(angle) * length * 0.5,
    )
    colour = mix(c.palette.near, c.palette.far, 0.03 * (9 - left))
    c.pen.line([(x, y), middle, end], fill=colour, width=max(1, round(width)), joint="curve")
    c.disc(*end, width * 0.45, colour)
    if left <= 3:
        tips.append(end)
    if left == 0:
        return
    for side in (-1, 1):
        if left < 7 and rng.random() < 0.07:
            continue
        turn = angle + side * rng.uniform(0.22, 0.58)
        turn += 0.06 * math.sin(turn + math.pi / 2) * -1
        shrink = rng.uniform(0.7, 0.86)
        _branch(c, *end, turn, length * shrink, width * 0.68, left - 1, tips)


def forest(c: Canvas) -> None:
    """Stand among tall trunks with light falling through."""
    rng, p, u = c.rng, c.palette, c.unit
    glow = mix(p.sky[-1], p.light, 0.3)
    c.image = c.gradient((mix(p.sky[1], p.far, 0.4), glow, mix(p.far, p.near, 0.3)))
    heart = (c.width * rng.uniform(0.3, 0.7), c.height * rng.uniform(0.34, 0.5))
    c.glow(*heart, u * 60, p.light, 0.85)
    layers = 5
    for layer in range(layers):
        depth = layer / (layers - 1)
        colour = mix(mix(glow, p.far, 0.5), p.near, depth**0.9)
        floor = c.height * (0.7 + 0.24 * depth)
        for _ in range(round((13 - 9 * depth) * c.width / min(c.width, c.height))):
            _trunk(
                c, rng.uniform(-0.05, 1.05) * c.width, floor, u * (0.8 + 4.4 * depth**1.6), colour
            )
        c.fill_below(c.ridge(floor, u * (1.5 + 2 * depth), 0.5), colour)
        _ferns(c, floor, colour, u * (1.5 + 5 * depth))
        if layer < layers - 1:
            c.mist(mix(glow, p.light, 0.3), floor / c.height - 0.06, 0.22, 0.5 * (1 - depth))
    leaves = [p.accents[0], p.accents[1], mix(p.accents[3], p.light, 0.2)]
    for _ in range(70):
        x, y = rng.gauss(heart[0], u * 34), rng.gauss(heart[1] + u * 12, u * 26)
        c.glow(x, y, u * rng.uniform(0.8, 2.2), mix(rng.choice(leaves), p.light, 0.5), 0.8)


def _trunk(c: Canvas, x: float, floor: float, width: float, colour: Colour) -> None:
    rng = c.rng
    lean = rng.uniform(-1, 1) * width * 1.5
    top = -c.unit * 5
    c.pen.polygon(
        [
            (x - width, floor + width),
            (x - width * 0.5, floor - width * 3),
            (x + lean - width * 0.34, top),
            (x + lean + width * 0.34, top),
            (x + width * 0.5, floor - width * 3),
            (x + width, floor + width),
        ],
        fill=colour,
    )
    for _ in range(rng.randint(3, 6)):
        y = rng.uniform(0.0, 0.62) * floor
        side = rng.choice((-1, 1))
        reach = width * rng.uniform(2.5, 6)
        start = x + lean * (1 - y / floor)
        twig = [(start, y), (start + side * reach * 0.5, y - reach * 0.28)]
        twig.append((start + side * reach, y - reach * 0.36))
        c.pen.line(twig, fill=colour, width=max(1, round(width * 0.22)), joint="curve")


def _ferns(c: Canvas, floor: float, colour: Colour, size: float) -> None:
    rng, pen = c.rng, c.pen
    x = 0.0
    while x < c.width:
        for _ in range(3):
            angle = -math.pi / 2 + rng.uniform(-0.9, 0.9)
            reach = size * rng.uniform(0.5, 1.2)
            tip = (x + math.cos(angle) * reach, floor + math.sin(angle) * reach)
            half = size * 0.08
            pen.polygon(
                [(x - half, floor + size * 0.6), tip, (x + half, floor + size * 0.6)], fill=colour
            )
        x += size * rng.uniform(0.15, 0.5)
