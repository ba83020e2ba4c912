"""Make two WebP thumbnails per picture: ours against Pillow as everybody calls it."""

import io
import time

from PIL import Image

from benchmarks.harness.gallery import SIZES, gallery, judged, per_cpu_second
from benchmarks.harness.report import Goal, in_turns, note, tell
from genonaut.core.thumbnails import ThumbSpec, thumbnails
from genonaut.worker.rendering import Renderer

GOAL = Goal("thumbnails_cpu", "images per processor second", 2.0)
ROUNDS = 5


def main() -> None:
    """Measure; a note tells likeness and size, so that speed was bought with neither."""
    files = gallery()
    note(f"ours:   {judged(ours, files)}")
    note(f"Pillow: {judged(plain, files)}")
    told_of(("webp", "avif"), files)
    with Renderer(processes=1) as renderer:
        renderer.render(files[0], ThumbSpec())
        began = time.perf_counter()
        for data in files:
            renderer.render(data, ThumbSpec())
        apart = (time.perf_counter() - began) / len(files)
    began = time.perf_counter()
    for data in files:
        ours(data)
    here = (time.perf_counter() - began) / len(files)
    note(f"in a child process: {apart * 1000:.1f} ms each; in this one: {here * 1000:.1f} ms")
    tell(
        GOAL,
        in_turns(ROUNDS, lambda: per_cpu_second(ours, files), lambda: per_cpu_second(plain, files)),
    )


def ours(data: bytes) -> dict[int, bytes]:
    """Make them as Genonaut does by default."""
    return {edge: made.data for (edge, _), made in thumbnails(data, ThumbSpec()).items()}


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


def told_of(formats: tuple[str, ...], files: list[bytes]) -> None:
    """Note what another choice of formats would cost."""
    spec = ThumbSpec(formats=formats)  # type: ignore[arg-type]
    began = time.process_time()
    for data in files:
        thumbnails(data, spec)
    each_ms = (time.process_time() - began) / len(files) * 1000
    note(f"{' and '.join(formats)}: {each_ms:.1f} ms of processor per image")


if __name__ == "__main__":
    main()
