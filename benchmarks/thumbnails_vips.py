"""Make two WebP thumbnails per picture: ours against libvips, each from the next larger."""

import pyvips

from benchmarks.harness.gallery import SIZES, gallery, judged, per_cpu_second
from benchmarks.harness.report import Goal, in_turns, note, tell
from benchmarks.thumbnails_cpu import ours
from genonaut.core.thumbnails import ThumbSpec

GOAL = Goal("thumbnails_vips", "images per processor second", 1.4)
ROUNDS = 5
SPEC = ThumbSpec()


def main() -> None:
    """Measure; libvips gets our quality and effort, and keeps nothing from picture to picture."""
    pyvips.cache_set_max(0)
    files = gallery()
    note(f"ours: {judged(ours, files)}")
    note(f"vips: {judged(vips, files)}")
    tell(
        GOAL,
        in_turns(ROUNDS, lambda: per_cpu_second(ours, files), lambda: per_cpu_second(vips, files)),
    )


def vips(data: bytes) -> dict[int, bytes]:
    """Let ``thumbnail`` decode no more than it needs, and shrink its result again."""
    made = {}
    image = None
    for edge in SIZES:
        if image is None:
            image = pyvips.Image.thumbnail_buffer(data, edge, height=edge, size="down")
        else:
            image = image.thumbnail_image(edge, height=edge, size="down")
        image = image.copy_memory()
        made[edge] = image.webpsave_buffer(Q=SPEC.quality, effort=SPEC.method, keep="none")
    return made


if __name__ == "__main__":
    main()
