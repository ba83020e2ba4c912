"""Migrated databases for tests, on a PostgreSQL of their own.

``alembic upgrade head`` runs once, into a template; every other database is a copy of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, text
from sqlalchemy.orm import sessionmaker

from genonaut.api.config import ROOT
from genonaut.db.models import Base
from genonaut.db.session import Database, make_engine
from genonaut.local.servers import Postgres
from genonaut.local.servers.databases import ensure_database

TEMPLATE = "genonaut_template"
_numbers = count(1)


def alembic_config(connection: Connection) -> Config:
    """Give Alembic's configuration, bound to a connection."""
    config = Config(str(ROOT / "alembic.ini"))
    config.attributes["connection"] = connection
    return config


def migrate(url: str, revision: str = "head") -> None:
    """Make the database of ``url`` if need be, and bring it to ``revision``, the newest."""
    ensure_database(url)
    engine = make_engine(url, pool_size=1)
    with engine.connect() as connection:
        command.upgrade(alembic_config(connection), revision)
        connection.commit()
    engine.dispose()


def sqlalchemy_url(url: str) -> str:
    """Name the driver in a bare ``postgresql://`` URL."""
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


def empty(engine: Engine) -> None:
    """Delete every row of every table; much faster than TRUNCATE while there are few.

    Whoever else is still connected (a thread, a process that a test left behind) is cut off first.
    """
    with engine.begin() as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                " AND backend_type = 'client backend'"
            )
        )
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in Base.metadata.sorted_tables:
            connection.execute(table.delete())


def execute_on_server(server: Postgres, statement: str) -> None:
    """Run a statement that no transaction may contain, such as CREATE DATABASE."""
    engine = make_engine(sqlalchemy_url(server.url()), pool_size=1)
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text(statement))
    engine.dispose()


@contextmanager
def new_database(server: Postgres, *, template: str = "template0") -> Iterator[str]:
    """Make a database, give its URL, and drop it with whoever is still connected to it."""
    name = f"genonaut_{next(_numbers)}"
    execute_on_server(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield sqlalchemy_url(server.url(name))
    finally:
        execute_on_server(server, f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def rolled_back(engine: Engine) -> Iterator[Database]:
    """Give a database whose every transaction is a savepoint in one that is rolled back.

    Code commits as in production and nothing stays. It is one connection: use it from one thread
    and one transaction at a time, and know that ``now()`` stands still.
    """
    with engine.connect() as connection:
        outer = connection.begin()
        try:
            yield Database(
                engine,
                factory=sessionmaker(
                    connection,
                    expire_on_commit=False,
                    autoflush=False,
                    join_transaction_mode="create_savepoint",
                ),
            )
        finally:
            outer.rollback()
