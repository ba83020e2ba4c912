"""Reach the environment's servers, starting the embedded ones where there are none."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from genonaut.api.config import ROOT, Settings
from genonaut.core.errors import GenonautError
from genonaut.db.session import Database, make_engine
from genonaut.local.servers import Lease, ensure_database, ensure_postgres, ensure_valkey
from genonaut.worker import eviction

if TYPE_CHECKING:
    from alembic.config import Config

IS_NEWER = (
    "the database is newer than this version of Genonaut; install the version that migrated it, "
    "or go back as docs/deploy.md says"
)


class ServersError(GenonautError):
    """A server is missing or unfit; the message says what to do."""

    code = "server_unavailable"


@contextmanager
def embedded(
    settings: Settings, *, postgres: bool = True, valkey: bool = True
) -> Iterator[list[Lease]]:
    """Hold a share in the embedded servers that the environment needs, if it needs any."""
    with ExitStack() as stack:
        leases = []
        for wanted, ensure in ((postgres, ensure_postgres), (valkey, ensure_valkey)):
            lease = ensure(settings) if wanted else None
            if lease is not None:
                stack.callback(lease.release)
                leases.append(lease)
        yield leases


@contextmanager
def database_of(settings: Settings) -> Iterator[Database]:
    """Connect to the environment's database, made and migrated if it must be."""
    with embedded(settings, valkey=False):
        migrate(settings)
        database = Database.connect(settings.database_url, pool_size=1)
        try:
            yield database
        finally:
            database.close()


def alembic_config() -> "Config":
    """Give Alembic's configuration."""
    from alembic.config import Config  # a second of imports that few commands need

    return Config(str(ROOT / "alembic.ini"), stdout=io.StringIO())  # our output is our own


def migrate(settings: Settings) -> None:
    """Make the database if it is missing and bring it to the newest version.

    Raises: ServersError: it was migrated by a newer program.
    """
    from alembic import command
    from alembic.util import CommandError

    ensure_database(settings.database_url)
    engine = make_engine(settings.database_url, pool_size=1)
    config = alembic_config()
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
    except CommandError as error:  # from a version that no migration here makes leads no way
        raise ServersError(IS_NEWER) from error
    finally:
        engine.dispose()


def redis_client(url: str) -> redis.Redis:
    """Make a client that answers or fails within two seconds."""
    return redis.Redis.from_url(
        url,
        socket_timeout=2,
        socket_connect_timeout=2,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
    )


def eviction_policy(settings: Settings) -> str:
    """Ask what Redis does when its memory is full; of several that differ, the one that evicts.

    Raises: ServersError: it does not answer.
    """
    try:
        found = eviction.policies(settings)
    except redis.RedisError as error:
        env = settings.app_env.upper()
        raise ServersError(
            f"Redis does not answer ({error}); start it, or set REDIS_URL_{env}"
        ) from error
    return next((policy for policy in found if policy.startswith(eviction.EVICTING)), found[0])
