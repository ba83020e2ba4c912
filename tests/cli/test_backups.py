"""A backup holds the stored pictures, whatever happens to them meanwhile, and suits old servers."""

import subprocess
import tarfile
from pathlib import Path
from typing import Any

from sqlalchemy import make_url, text

from genonaut.cli.database import add_pictures, drop_transaction_timeout
from genonaut.clients.storage import LocalStorage
from genonaut.db.session import make_engine
from genonaut.local.servers import program_path
from tests.support.database import new_database


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


LINE = "SET transaction_timeout = 0;"


def test_of_a_dump_only_the_setting_that_old_servers_refuse_is_left_out(postgres, tmp_path):
    dump, script = tmp_path / "database.dump", tmp_path / "fill.sql"
    with new_database(postgres) as url:
        engine = make_engine(url, pool_size=1)
        with engine.begin() as connection:
            connection.execute(text("CREATE TABLE notes (body text)"))
            connection.execute(text("INSERT INTO notes VALUES (:line)"), {"line": LINE})
        engine.dispose()
        where = make_url(url).set(drivername="postgresql").render_as_string()
        run("pg_dump", "--format=custom", f"--file={dump}", where)
    run("pg_restore", f"--file={script}", str(dump))
    before = script.read_text().splitlines()
    drop_transaction_timeout(script)
    drop_transaction_timeout(script)
    after = script.read_text().splitlines()
    assert before.count(LINE) == 2
    assert after.count(LINE) == 1
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert changed == ["--- transaction_timeout = 0;"]


def run(program, *arguments):
    subprocess.run([program_path(program), *arguments], check=True)
