"""A backup holds the stored pictures, whatever happens to them meanwhile."""

import tarfile
from pathlib import Path
from typing import Any

from genonaut.cli.database import add_pictures
from genonaut.clients.storage import LocalStorage


class Deleting(tarfile.TarFile):
    """A file is gone just as it is to be added."""

    doomed: Path

    def add(self, name: Path, *arguments: Any, **options: Any) -> None:
        if name == self.doomed:
            name.unlink()
        super().add(name, *arguments, **options)


def test_a_picture_that_is_deleted_meanwhile_is_left_out(settings, storage: LocalStorage, tmp_path):
    keys = sorted(storage.put(data, mime="image/png") for data in (b"a", b"b", b"c"))
    root = settings.storage_path
    (root / ".tmp" / "unfinished").write_bytes(b"d")
    (root / "lost+found").mkdir()
    with Deleting(tmp_path / "backup.tar", "w") as archive:
        archive.doomed = root / keys[1]
        add_pictures(archive, settings)
        assert archive.getnames() == [f"storage/{keys[0]}", f"storage/{keys[2]}"]


def test_a_store_that_was_never_written_holds_nothing(settings, tmp_path):
    with tarfile.open(tmp_path / "backup.tar", "w") as archive:
        add_pictures(archive, settings)
        assert archive.getnames() == []
