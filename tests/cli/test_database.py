"""A backup comes back whole, into whatever the database has become, or not at all."""

import io
import json
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from tests.cli.conftest import Commands

pytestmark = pytest.mark.slow


@pytest.fixture
def backup(commands: Commands, tmp_path: Path) -> Path:
    """A backup of the test environment, whose only user is ada."""
    commands("users", "create", "ada", "--env", "test")
    file = tmp_path / "test.tar"
    commands("db", "backup", "--env", "test", "--to", str(file))
    return file


def sql(commands: Commands, statement: str) -> list[Any]:
    url = commands.variables["DATABASE_URL_TEST"]
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return [row[0] for row in cursor] if cursor.description else []


def users(commands: Commands) -> list[Any]:
    return sql(commands, "SELECT username FROM users ORDER BY 1")


def rewritten(file: Path, **members: bytes) -> str:
    """Give a copy of a backup with other contents of some of its members."""
    target = file.with_name("other.tar")
    with tarfile.open(file) as old, tarfile.open(target, "w") as new:
        for entry in old:
            found = old.extractfile(entry)
            data = members.get(entry.name.partition(".")[0], found.read() if found else b"")
            entry.size = len(data)
            new.addfile(entry, io.BytesIO(data))
    return str(target)


def member(file: Path, name: str) -> bytes:
    with tarfile.open(file) as archive:
        found = archive.extractfile(name)
        assert found is not None
        return found.read()


def test_a_backup_comes_back_over_what_a_later_migration_made(
    commands: Commands, backup: Path
) -> None:
    sql(
        commands,
        """
        CREATE TABLE later (id int PRIMARY KEY, user_id uuid REFERENCES users (id));
        CREATE VIEW latest AS SELECT username FROM users;
        ALTER TABLE users ADD later int;
        """,
    )
    sql(commands, "INSERT INTO users (id, username) VALUES (gen_random_uuid(), 'eve')")
    said = commands("db", "restore", "--env", "test", str(backup)).stdout
    assert said.startswith("restored test as test was at ")
    assert users(commands) == ["ada"]
    assert sql(commands, "SELECT to_regclass('later')") == [None]
    assert json.loads(commands("db", "check", "--env", "test", "--json").stdout)["is_current"]
    assert [path.name for path in commands.folder.glob("tmp*")] == []


def test_a_backup_that_is_damaged_or_of_a_newer_version_replaces_nothing(
    commands: Commands, backup: Path
) -> None:
    sql(commands, "UPDATE users SET username = 'bob'")
    dump = member(backup, "database.dump")
    for data in (dump[: len(dump) // 2], b""):
        damaged = rewritten(backup, database=data)
        said = commands.refusal("db", "restore", "--env", "test", damaged)
        assert said.startswith("pg_restore failed: ")
        assert users(commands) == ["bob"]
    manifest = {**json.loads(member(backup, "manifest.json")), "version": "ffffffffffff"}
    newer = rewritten(backup, manifest=json.dumps(manifest).encode())
    said = commands.refusal("db", "restore", "--env", "test", newer, status=2)
    assert "newer than this version knows" in said
    assert users(commands) == ["bob"]
