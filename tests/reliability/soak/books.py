"""Gather all there is to see when a soak is over: rows, files, keys, processes."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.core import imaging
from genonaut.core.errors import UnreadableImageError
from genonaut.core.thumbnails import ThumbSpec, thumbnails
from genonaut.db.models import (
    AbandonedPrompt,
    Base,
    ContentImage,
    ContentItem,
    GenerationJob,
    JobAttempt,
    Schedule,
    TaskRun,
    UserNotification,
)
from genonaut.domain.thumbnails import standard
from tests.reliability.rig import Rig
from tests.reliability.soak.desk import Asked

TEMP = ".tmp"

Row = TypeVar("Row", bound=Base)

_OUTPUT = re.compile(r"(?P<job>\d+)-(?P<prompt>[0-9a-f-]{36})_\d+_\.png")


@dataclass(frozen=True, slots=True)
class File:
    """A file below the storage folder: where it is, and what it holds."""

    path: str
    sha256: str
    size: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class Drawn:
    """A prompt that ComfyUI finished, and whose it was."""

    job_id: int
    prompt_id: str


@dataclass(slots=True, kw_only=True)
class Books:
    """What was asked for, and what there is."""

    asked: Asked
    jobs: list[GenerationJob] = field(default_factory=list)
    attempts: list[JobAttempt] = field(default_factory=list)
    items: list[ContentItem] = field(default_factory=list)
    images: list[ContentImage] = field(default_factory=list)
    notices: list[UserNotification] = field(default_factory=list)
    runs: list[TaskRun] = field(default_factory=list)
    schedules: list[Schedule] = field(default_factory=list)
    abandoned: list[AbandonedPrompt] = field(default_factory=list)
    at_comfyui: list[str] = field(default_factory=list)
    """Prompts that run or wait there."""
    diaries: dict[str, list[int]] = field(default_factory=dict)
    files: list[File] = field(default_factory=list)
    drawn: dict[str, set[Drawn]] = field(default_factory=dict)
    """Of each picture and thumbnail no row names, by its hash: the prompts it may come from."""
    drawings: int = 0
    """Pictures ComfyUI has drawn."""
    prefix: str = ""
    keys: dict[int, list[str]] = field(default_factory=dict)
    """The keys of each logical Redis database."""
    surprises: list[str] = field(default_factory=list)
    """What programs did that nobody made them do."""

    def attempts_of(self, job_id: int) -> list[JobAttempt]:
        """Give a job's attempts, oldest first."""
        return [attempt for attempt in self.attempts if attempt.job_id == job_id]

    def named_files(self) -> dict[str, ContentImage]:
        """Give every file that a row names, with the row."""
        named = {}
        for image in self.images:
            named[image.storage_key] = image
            named |= {str(each["key"]): image for each in image.thumbnails.values()}
        return named

    def stray_files(self) -> list[File]:
        """Give the files that no row names, half-written ones among them."""
        named = self.named_files()
        return [file for file in self.files if file.path not in named]


def gather(rig: Rig, asked: Asked) -> Books:
    """Look at everything but the programs, of which their places tell."""
    books = Books(asked=asked, prefix=f"{rig.ns}:")
    with rig.database.transaction() as session:
        books.jobs = _rows(session, GenerationJob)
        books.attempts = _rows(session, JobAttempt)
        books.items = _rows(session, ContentItem)
        books.images = _rows(session, ContentImage)
        books.notices = _rows(session, UserNotification)
        books.runs = _rows(session, TaskRun)
        books.schedules = list(session.scalars(select(Schedule)))
        books.abandoned = _rows(session, AbandonedPrompt)
    books.at_comfyui = rig.comfy.unfinished()
    books.diaries = {path.name: _numbers(path) for path in rig.folder.glob("*.diary")}
    books.files = list(files(rig.settings().storage_path))
    outputs = list(_outputs(rig.comfy.output, {job.id: job for job in books.jobs}))
    books.drawings = len(outputs)
    if books.stray_files():
        chosen = rig.settings()
        spec = standard(chosen.thumbnail_sizes, chosen.thumbnail_formats)
        books.drawn = origins(outputs, spec)
    books.keys = _keys(rig)
    return books


def _outputs(folder: Path, jobs: dict[int, GenerationJob]) -> Iterator[Path]:
    """List what ComfyUI drew for these jobs; it may have drawn for those of other databases."""
    for path in folder.rglob("*.png"):
        named = _OUTPUT.fullmatch(path.name)
        job = jobs.get(int(named["job"])) if named else None
        if job is not None and path.stat().st_mtime >= job.created_at.timestamp():
            yield path


def files(root: Path) -> Iterator[File]:
    """List every file below a folder."""
    for path in sorted(root.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            yield File(
                path.relative_to(root).as_posix(),
                hashlib.sha256(data).hexdigest(),
                len(data),
                datetime.fromtimestamp(path.stat().st_mtime, UTC),
            )


def origins(outputs: Iterable[Path], spec: ThumbSpec) -> dict[str, set[Drawn]]:
    """Find out which files a worker makes of what ComfyUI drew."""
    found: dict[str, set[Drawn]] = defaultdict(set)
    for path in outputs:
        named = _OUTPUT.fullmatch(path.name)
        assert named is not None
        raw = path.read_bytes()
        try:
            clean = imaging.strip_metadata(raw, imaging.inspect(raw))
        except UnreadableImageError:  # ComfyUI was killed while it wrote
            continue
        made = [clean, *(each.data for each in thumbnails(clean, spec).values())]
        for data in made:
            drawn = Drawn(int(named["job"]), named["prompt"])
            found[hashlib.sha256(data).hexdigest()].add(drawn)
    return found


def _rows(session: Session, model: type[Row]) -> list[Row]:
    return list(session.scalars(select(model).order_by(model.id)))  # type: ignore[attr-defined]


def _numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()]


def _keys(rig: Rig) -> dict[int, list[str]]:
    found = {}
    for name in rig.redis.info("keyspace"):
        number = int(name.removeprefix("db"))
        with redis.Redis.from_url(rig.valkey.url(number)) as client:
            found[number] = sorted(key.decode() for key in client.scan_iter(count=1000))
    return found
