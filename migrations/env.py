"""Run migrations with the active environment's database.

A caller that has a connection (tests, ``genonaut db upgrade``) hands it over in
``config.attributes["connection"]``; the ``alembic`` command reads the settings.
"""

from alembic import context
from sqlalchemy import Connection

from genonaut.api.config import get_settings
from genonaut.db.models import Base
from genonaut.db.session import make_engine

# Any number no one else locks: two upgrades at once wait for each other.
UPGRADE_LOCK = 0x67656E6F


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        # The other upgrade may take long; a table that is in use is waited for as ever.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})")
        connection.exec_driver_sql("SET LOCAL lock_timeout TO DEFAULT")
        context.run_migrations()


given = context.config.attributes.get("connection")
if context.is_offline_mode():
    context.configure(
        url=get_settings().database_url,
        target_metadata=Base.metadata,
        literal_binds=True,
        dialect_opts={"paramstyle": "named"},
    )
    with context.begin_transaction():
        context.run_migrations()
elif given is not None:
    _run(given)
else:
    engine = make_engine(get_settings().database_url, pool_size=1)
    with engine.connect() as connection:
        _run(connection)
        connection.commit()
    engine.dispose()
