"""Make two WebP thumbnails per picture: ours against Pillow as everybody calls it."""

import io
from functools import partial

from PIL import Image

from benchmarks.harness.gallery import SIZES, gallery, judged, per_cpu_second
from benchmarks.harness.report import Goal, in_turns, note, tell
from genonaut.core.thumbnails import Format, ThumbSpec
from genonaut.worker.rendering import Renderer

GOAL = Goal("thumbnails_cpu", "images per processor second", 2.0)
ROUNDS = 5
FORMATS: tuple[tuple[Format, ...], ...] = (("webp",), ("webp", "avif"))
RENDERER = Renderer(processes=1)


def main() -> None:
    """Measure; a note tells likeness and size, so that speed was bought with neither."""
    files = gallery()
    ours(files[0])
    note(f"ours:   {judged(ours, files)}")
    note(f"Pillow: {judged(plain, files)}")
    for formats in FORMATS:
        rate = per_cpu_second(partial(rendered, ThumbSpec(formats=formats)), files)
        note(f"{' and '.join(formats)}: {1000 / rate:.1f} ms of processor per image")
    tell(
        GOAL,
        in_turns(ROUNDS, lambda: per_cpu_second(ours, files), lambda: per_cpu_second(plain, files)),
    )


def rendered(spec: ThumbSpec, data: bytes) -> dict[int, bytes]:
    """Make them as the worker does: in a child process, and back."""
    return {edge: made.data for (edge, _), made in RENDERER.render(data, spec).items()}


ours = partial(rendered, ThumbSpec())


def plain(data: bytes) -> dict[int, bytes]:
    """Open, shrink and save for each size."""
    made = {}
    for edge in SIZES:
        with Image.open(io.BytesIO(data)) as image:
            image.thumbnail((edge, edge))
            out = io.BytesIO()
            image.save(out, "WEBP", method=4)
        made[edge] = out.getvalue()
    return made


if __name__ == "__main__":
    main()
