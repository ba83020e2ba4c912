"""Draw flowing ink and geometric mosaics."""

import math

from PIL import ImageDraw

from genonaut.local.comfy.painting.canvas import Canvas
from genonaut.local.comfy.painting.palette import mix


def flow(c: Canvas) -> None:
    """Follow a calm vector field with many brush strokes."""
    rng, p, u = c.rng, c.palette, c.unit
    paper = mix(p.light, p.sky[-1], 0.25)
    dark = rng.random() < 0.5
    ground = mix(p.near, p.sky[0], 0.35) if dark else paper
    c.image = c.gradient((ground, mix(ground, p.far, 0.18)))
    field = c.clouds(2, 2).resize((64, 64))
    turn = rng.uniform(1.2, 2.2)
    lean = rng.uniform(0, math.tau)
    inks = [*p.accents, mix(p.accents[0], p.light, 0.3), p.light if dark else p.near]
    pen = c.pen
    strokes = 420
    for stroke in range(strokes):
        x, y = rng.uniform(-0.1, 1.1) * c.width, rng.uniform(-0.1, 1.1) * c.height
        band = int((y / c.height + 0.2 * math.sin(x / c.width * 4)) * 5 + rng.random())
        ink = mix(inks[band % len(inks)], ground, rng.uniform(0, 0.35))
        thick = u * (0.25 + 2.2 * rng.random() ** 4) * (1.2 - 0.6 * stroke / strokes)
        path = [(x, y)]
        for _ in range(rng.randint(20, 46)):
            column = int(max(0, min(63, x / c.width * 63)))
            row = int(max(0, min(63, y / c.height * 63)))
            level = field.getpixel((column, row))
            angle = lean + (level if isinstance(level, int) else 0) / 255 * math.tau * turn / 2
            x, y = x + math.cos(angle) * u * 1.6, y + math.sin(angle) * u * 1.6
            path.append((x, y))
        pen.line(path, fill=ink, width=max(1, round(thick)), joint="curve")
        for end in (path[0], path[-1]):
            c.disc(*end, thick / 2, ink)
    for _ in range(rng.randint(1, 3)):
        x, y = rng.uniform(0.2, 0.8) * c.width, rng.uniform(0.2, 0.8) * c.height
        c.disc(x, y, u * rng.uniform(3, 9), rng.choice(p.accents))


def mosaic(c: Canvas) -> None:
    """Lay out circles, quarters and stripes on a grid."""
    rng, p = c.rng, c.palette
    cells = rng.choice((4, 5, 6))
    edge = math.ceil(min(c.width, c.height) / cells)
    paper = mix(p.light, p.sky[-1], 0.15)
    inks = [*p.accents, p.near, p.far, paper]
    c.image.paste(paper, (0, 0, c.width, c.height))
    for top in range(0, c.height, edge):
        for left in range(0, c.width, edge):
            _tile(c, left, top, edge, rng.sample(inks, 3))
    grid = mix(paper, p.near, 0.08)
    pen = c.pen
    width = max(1, round(c.unit * 0.25))
    for x in range(0, c.width, edge):
        pen.line((x, 0, x, c.height), fill=grid, width=width)
    for y in range(0, c.height, edge):
        pen.line((0, y, c.width, y), fill=grid, width=width)
    texture = c.clouds(24, 3).point([max(0, (v - 160) // 4) for v in range(256)])
    c.tint(paper, texture)


def _tile(c: Canvas, x: int, y: int, e: int, inks: list[tuple[int, int, int]]) -> None:
    rng, pen = c.rng, c.pen
    ground, ink, other = inks
    pen.rectangle((x, y, x + e, y + e), fill=ground)
    corner = rng.choice(((0, 0), (0, 1), (1, 0), (1, 1)))
    corner_x, corner_y = x + corner[0] * e, y + corner[1] * e
    kind = rng.randrange(8)
    tile = c.image.crop((x, y, x + e, y + e))
    if kind in (0, 1):
        inner = ImageDraw.Draw(tile)
        cx, cy = corner_x - x, corner_y - y
        for ring, colour in ((1.0, ink), (0.66, other), (0.33, ground)):
            r = e * ring
            inner.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)
            if kind == 0:
                break
        c.image.paste(tile, (x, y))
    elif kind == 2:
        pen.ellipse((x + e * 0.08, y + e * 0.08, x + e * 0.92, y + e * 0.92), fill=ink)
        pen.ellipse((x + e * 0.32, y + e * 0.32, x + e * 0.68, y + e * 0.68), fill=other)
    elif kind == 3:
        pen.polygon([(x, y + e), (x + e, y + e), (corner_x, y)], fill=ink)
    elif kind == 4:
        for stripe in range(0, 6, 2):
            pen.rectangle((x, y + e * stripe / 6, x + e, y + e * (stripe + 1) / 6), fill=ink)
    elif kind == 5:
        pen.pieslice((x, y - e, x + e * 2, y + e), 90, 180, fill=ink)
        pen.pieslice((x - e, y, x + e, y + e * 2), 270, 360, fill=other)
    elif kind == 6:
        pen.pieslice((x, y, x + e, y + e), 0, 180, fill=ink)
        pen.pieslice((x + e * 0.25, y, x + e * 0.75, y + e * 0.5), 180, 360, fill=other)
    else:
        for row in range(3):
            for column in range(3):
                mid_x, mid_y, r = x + e * (column + 0.5) / 3, y + e * (row + 0.5) / 3, e * 0.1
                pen.ellipse(
                    (mid_x - r, mid_y - r, mid_x + r, mid_y + r), fill=ink if row % 2 else other
                )
