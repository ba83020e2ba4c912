"""Migrate, check, save and bring back the environment's database and files."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from alembic import command
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import make_url, text

from genonaut import __version__
from genonaut.api.config import Settings, environment_variables
from genonaut.cli.environment import settings_for
from genonaut.cli.output import EnvOption, JsonOption, console, fail, print_fields, print_json
from genonaut.cli.servers import IS_NEWER, alembic_config, embedded, migrate
from genonaut.clients.storage import open_storage
from genonaut.db.session import Database, make_engine
from genonaut.db.versions import Standing, known_versions, standing
from genonaut.domain import heartbeats
from genonaut.local.servers import ensure_database, program_path

app = typer.Typer(help="The environment's database.", no_args_is_help=True, add_completion=False)

FORMAT = 1
ALIVE_S = 30.0
KNOWS_TRANSACTION_TIMEOUT = 170000  # server_version_num


@app.command("upgrade")
def upgrade(env: EnvOption = None) -> None:
    """Bring the database to the newest version; makes it when there is none."""
    settings = settings_for(env)
    with embedded(settings, valkey=False):
        migrate(settings)
    console.print(f"{settings.app_env}: the database is at the newest version")


@app.command("check")
def check(env: EnvOption = None, as_json: JsonOption = False) -> None:
    """Say at which version the database is; fails unless it is the newest and fits the models."""
    settings = settings_for(env)
    with embedded(settings, valkey=False):
        ensure_database(settings.database_url)
        state = migration_state(settings)
    if as_json:
        print_json(state)
    else:
        print_fields(state)
    if state["is_newer"]:
        fail(IS_NEWER)
    if not state["is_current"] or state["differs"]:
        fail(f"run: genonaut db upgrade --env {settings.app_env}")


def migration_state(settings: Settings) -> dict[str, Any]:
    """Say which version the database has, which is the newest, and whether the models differ."""
    config = alembic_config()
    head = ScriptDirectory.from_config(config).get_current_head()
    engine = make_engine(settings.database_url, pool_size=1)
    try:
        with engine.connect() as connection:
            known = connection.scalar(text("SELECT to_regclass('alembic_version') IS NOT NULL"))
            current = (
                connection.scalar(text("SELECT version_num FROM alembic_version"))
                if known
                else None
            )
            server = connection.scalar(text("SHOW server_version"))
            config.attributes["connection"] = connection
            found = standing(connection)
            differs = None
            if found is Standing.CURRENT:
                try:
                    command.check(config)
                except CommandError as error:
                    differs = str(error)
    finally:
        engine.dispose()
    return {
        "environment": settings.app_env,
        "server": f"PostgreSQL {server}",
        "version": current,
        "newest": head,
        "is_current": found is Standing.CURRENT,
        "is_newer": found is Standing.NEWER,
        "differs": differs,
    }


@app.command("backup")
def backup(
    to: Annotated[
        Path | None,
        typer.Option("--to", help="File to write.", show_default="VAR_DIR/backups/…"),
    ] = None,
    env: EnvOption = None,
) -> None:
    """Save database and pictures to one file, while everything runs.

    The database is saved first, as of one moment; pictures are never changed once they are there,
    so every picture it names is in the file too, unless its owner deleted it meanwhile.
    """
    settings = settings_for(env)
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    target = to or settings.var_path / "backups" / f"genonaut_{settings.app_env}-{stamp}.tar"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        with (
            embedded(settings, valkey=False),
            tempfile.TemporaryDirectory(dir=target.parent) as folder,
        ):
            dump = Path(folder) / "database.dump"
            _run_tool(
                "pg_dump",
                [
                    "--format=custom",
                    "--no-owner",
                    "--exclude-table-data=heartbeats",  # nobody is alive in a restored database
                    f"--file={dump}",
                ],
                settings,
            )
            manifest = Path(folder) / "manifest.json"
            manifest.write_text(json.dumps(_manifest(settings)))
            part.touch(mode=0o600)
            with tarfile.open(part, "w") as archive:
                archive.add(manifest, "manifest.json")
                archive.add(dump, "database.dump")
                if settings.storage_url is None:
                    add_pictures(archive, settings)
        part.replace(target)
    except OSError as error:
        fail(f"cannot write {target}: {error.strerror}")
    finally:
        part.unlink(missing_ok=True)
    console.print(
        f"saved {settings.app_env} to {target} ({target.stat().st_size / 2**20:.1f} MiB)",
        soft_wrap=True,
    )
    if settings.storage_url is not None:
        console.print(f"its pictures stay in {settings.storage_url}: back up the bucket too")


def _manifest(settings: Settings) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "genonaut": __version__,
        "environment": settings.app_env,
        "version": migration_state(settings)["version"],
        "saved_at": datetime.now(UTC).isoformat(),
    }


def add_pictures(archive: tarfile.TarFile, settings: Settings) -> None:
    """Add what is stored on disk; what is deleted meanwhile is left out."""
    for stored in open_storage(settings).list_files():
        with suppress(FileNotFoundError):
            archive.add(settings.storage_path / stored.key, f"storage/{stored.key}")


@app.command("restore")
def restore(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A backup.")],
    env: EnvOption = None,
) -> None:
    """Replace the environment's database by a backup's, and bring its pictures back.

    Refused while workers are alive. Pictures made since stay on disk. All of the database is
    replaced or nothing.
    """
    settings = settings_for(env)
    try:
        settings.var_path.mkdir(parents=True, exist_ok=True)
        with (
            embedded(settings, valkey=False),
            tempfile.TemporaryDirectory(dir=settings.var_path) as name,  # pictures take room
        ):
            ensure_database(settings.database_url)
            _refuse_while_running(settings)
            folder = Path(name)
            manifest = _unpack(file, folder)
            # First the pictures: what the database names must be there.
            if (folder / "storage").is_dir():
                shutil.copytree(folder / "storage", settings.storage_path, dirs_exist_ok=True)
            _replace_database(settings, folder)
            migrate(settings)
    except OSError as error:
        fail(f"cannot restore {file}: {error.strerror}")
    console.print(
        f"restored {settings.app_env} as {manifest['environment']} was at {manifest['saved_at']}"
    )


_EMPTY = """
DO $$
DECLARE name text;
BEGIN
    FOR name IN
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
        WHERE schemaname = 'public' AND pg_has_role(tableowner::name, 'USAGE')
    LOOP
        EXECUTE 'DROP TABLE IF EXISTS ' || name || ' CASCADE';
    END LOOP;
END $$;
"""  # tables of later migrations, too, which a dump of before them does not know


def _replace_database(settings: Settings, folder: Path) -> None:
    """Empty the database and fill it from the dump, in one transaction."""
    emptying, filling = folder / "empty.sql", folder / "fill.sql"
    emptying.write_text(_EMPTY)
    _run_tool("pg_restore", ["--no-owner", f"--file={filling}", str(folder / "database.dump")])
    if _server_version(settings) < KNOWS_TRANSACTION_TIMEOUT:
        drop_transaction_timeout(filling)
    _run_tool(
        "psql",
        [
            "--no-psqlrc",
            "--quiet",
            "--single-transaction",
            "--set=ON_ERROR_STOP=1",
            f"--file={emptying}",
            f"--file={filling}",
        ],
        settings,
    )


def _server_version(settings: Settings) -> int:
    database = Database.connect(settings.database_url, pool_size=1)
    try:
        with database.transaction() as session:
            return int(session.scalar(text("SHOW server_version_num")) or 0)
    finally:
        database.close()


def drop_transaction_timeout(script: Path) -> None:
    """Make a comment of the setting that pg_restore writes and old servers refuse.

    It stands before the first object; what comes from there on is not touched.
    """
    with script.open("r+b") as file:
        before_objects = file.read(4096).partition(b"\n-- Name: ")[0]
        at = before_objects.find(b"\nSET transaction_timeout = 0;\n")
        if at >= 0:
            file.seek(at + 1)
            file.write(b"---")


def _unpack(file: Path, folder: Path) -> dict[str, Any]:
    try:
        with tarfile.open(file) as archive:
            archive.extractall(folder, filter="data")
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        known = manifest["format"] == FORMAT and (folder / "database.dump").is_file()
        version = manifest["version"]
    except (tarfile.TarError, FileNotFoundError, ValueError, KeyError, TypeError) as error:
        fail(f"{file} is not a backup of Genonaut ({error})", status=2)
    if not known:
        fail(f"{file} is not a backup this version can read", status=2)
    if version is not None and str(version) not in known_versions():
        fail(
            f"{file} was saved by Genonaut {manifest.get('genonaut')}, whose database is newer "
            "than this version knows",
            status=2,
        )
    return manifest


def _refuse_while_running(settings: Settings) -> None:
    database = Database.connect(settings.database_url, pool_size=1)
    try:
        with database.transaction() as session:
            if not session.scalar(text("SELECT to_regclass('heartbeats') IS NOT NULL")):
                return
            alive = [
                process for process, age_s in heartbeats.ages(session).items() if age_s < ALIVE_S
            ]
    finally:
        database.close()
    if alive:
        names = ", ".join(sorted(alive))
        fail(
            f"{settings.app_env} is running ({names}); stop it first, "
            f"or wait {ALIVE_S:g} s if it was killed"
        )


def _run_tool(name: str, arguments: list[str], settings: Settings | None = None) -> None:
    """Run one of PostgreSQL's programs, with ``settings`` on the environment's database.

    The password, if there is one, goes through the environment: arguments are public.
    """
    variables = environment_variables()
    if settings is not None:
        url = make_url(settings.database_url)
        where = url.set(drivername="postgresql", password=None).render_as_string()
        arguments = [f"--dbname={where}", *arguments]
        variables |= {"PGPASSWORD": url.password} if url.password else {}
    process = subprocess.run(
        [str(program_path(name)), *arguments],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"status {process.returncode}"]
        why = next((line for line in lines if "error:" in line.lower()), lines[-1])
        fail(f"{name} failed: {why}")
