"""A migrated database for tests, on a PostgreSQL of their own."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, text

from genonaut.api.config import ROOT
from genonaut.db.models import Base
from genonaut.db.session import make_engine
from genonaut.local.servers.databases import ensure_database


def migrate(url: str) -> None:
    """Make the database of ``url`` if need be, and bring it to the newest revision."""
    ensure_database(url)
    engine = make_engine(url, pool_size=1)
    config = Config(str(ROOT / "alembic.ini"))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()
    engine.dispose()


def sqlalchemy_url(url: str) -> str:
    """Name the driver in a bare ``postgresql://`` URL."""
    return url.replace("postgresql://", "postgresql+psycopg2://", 1)


def empty(engine: Engine) -> None:
    """Delete every row of every table."""
    tables = ", ".join(f'"{table.name}"' for table in Base.metadata.sorted_tables)
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
