"""Make thumbnails of 5,000 pictures, broken ones among them: how much memory stays taken."""

import io
from contextlib import suppress
from pathlib import Path

from PIL import Image

from benchmarks.harness.gallery import gallery
from benchmarks.harness.report import Goal, note, tell
from genonaut.core.errors import UnreadableImageError
from genonaut.core.thumbnails import ThumbSpec
from genonaut.worker.rendering import Renderer

GOAL = Goal("thumbnails_memory", "MB grown", 1.0, "lower")
ALLOWED_MB = 300
PICTURES = 5_000
WARM_UP = 200


def main() -> None:
    """Measure this process and its children; most pictures are small, to be done in a minute."""
    files = gallery()
    for data in list(files):
        with Image.open(io.BytesIO(data)) as image:
            small = image.convert("RGB").resize((208, 304))
        out = io.BytesIO()
        small.save(out, "PNG")
        files += [out.getvalue()] * 4 + [data[: len(data) // 2]]
    with Renderer(processes=2) as renderer:
        before = 0.0
        for number in range(PICTURES):
            with suppress(UnreadableImageError):
                renderer.render(files[number % len(files)], ThumbSpec())
            if number == WARM_UP:
                before = taken_mb()
            if number % 1000 == 999:
                note(f"after {number + 1:,}: {taken_mb():.0f} MB, after {WARM_UP}: {before:.0f} MB")
        tell(GOAL, [(max(0.1, taken_mb() - before), ALLOWED_MB)])


def taken_mb() -> float:
    """Add up what this process and its children hold."""
    me = Path("/proc/self")
    children = Path(f"/proc/self/task/{me.resolve().name}/children").read_text().split()
    folders = [me, *(Path("/proc") / pid for pid in children)]
    statuses = [folder.joinpath("status").read_text() for folder in folders]
    return sum(int(one.partition("VmRSS:")[2].split()[0]) for one in statuses) / 1000


if __name__ == "__main__":
    main()
