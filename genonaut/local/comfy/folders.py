"""Keep the output, input and temp folders, with ComfyUI's rules for names and numbers."""

import re
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image, ImageDraw

_NUMBER = re.compile(r"^(\d+)")


class OutsideOutputError(Exception):
    """Refuse to save outside the output folder; ComfyUI raises a bare ``Exception`` here."""

    reported_as = "Exception"


@dataclass(frozen=True)
class SavePlan:
    """Say where the next pictures of one prefix go."""

    folder: Path
    stem: str
    first: int
    subfolder: str

    def name(self, offset: int) -> str:
        """Give the file name of the picture that is ``offset`` after the first."""
        return f"{self.stem}_{self.first + offset:05}_.png"


class Folders:
    """Hold the three folders below one root; temp is wiped at the start, as ComfyUI does."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.by_type = {kind: self.root / kind for kind in ("output", "input", "temp")}
        self.wipe_temp()
        for folder in self.by_type.values():
            folder.mkdir(parents=True, exist_ok=True)
        example = self.by_type["input"] / "example.png"
        if not example.exists():
            picture = Image.linear_gradient("L").convert("RGB")
            ImageDraw.Draw(picture).ellipse((64, 64, 192, 192), fill=(214, 120, 72))
            picture.save(example)

    def wipe_temp(self) -> None:
        """Remove every temporary file."""
        shutil.rmtree(self.by_type["temp"], ignore_errors=True)
        self.by_type["temp"].mkdir(parents=True, exist_ok=True)

    def inputs(self) -> list[str]:
        """List the files at the top of the input folder, sorted."""
        return sorted(path.name for path in self.by_type["input"].iterdir() if path.is_file())

    def input_file(self, name: str) -> Path | None:
        """Give the path of an input picture, or None when it is missing or outside."""
        path = self.inside("input", name)
        return path if path is not None and path.is_file() else None

    def inside(self, kind: str, *parts: str) -> Path | None:
        """Join ``parts`` below a folder; None when the result leaves it."""
        base = self.by_type[kind]
        path = base.joinpath(*parts).resolve()
        return path if path.is_relative_to(base) else None

    def plan(self, prefix: str, kind: str, size: tuple[int, int]) -> SavePlan:
        """Choose the folder and the first free number: the highest on disk + 1.

        Raises: OutsideOutputError: ``prefix`` leads out of the folder.
        """
        prefix = _fill(prefix, size)
        relative = Path(prefix)
        subfolder = str(relative.parent) if relative.parent != Path() else ""
        folder = self.inside(kind, subfolder)
        if folder is None:
            raise OutsideOutputError(
                "**** ERROR: Saving image outside the output folder is not allowed.\n"
                f" full_output_folder: {subfolder}\n         output_dir: {kind}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        stem = relative.name
        taken = [
            int(number.group(1))
            for path in folder.iterdir()
            if path.name.lower().startswith(f"{stem.lower()}_")
            and (number := _NUMBER.match(path.name[len(stem) + 1 :]))
        ]
        return SavePlan(folder, stem, max(taken, default=0) + 1, subfolder)


def _fill(prefix: str, size: tuple[int, int]) -> str:
    now = datetime.now().astimezone()
    values = {
        "width": str(size[0]),
        "height": str(size[1]),
        "year": str(now.year),
        "month": f"{now.month:02}",
        "day": f"{now.day:02}",
        "hour": f"{now.hour:02}",
        "minute": f"{now.minute:02}",
        "second": f"{now.second:02}",
    }
    for name, value in values.items():
        prefix = prefix.replace(f"%{name}%", value)
    return prefix
