"""A real database for the rules; each test leaves nothing behind."""

from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from genonaut.db.session import Database
from tests.support.database import empty, migrate, sqlalchemy_url
from tests.support.servers import running_postgres


@pytest.fixture(scope="session")
def domain_database_url() -> Iterator[str]:
    with running_postgres() as server:
        url = sqlalchemy_url(server.url("genonaut_domain"))
        migrate(url)
        yield url


@pytest.fixture
def database(domain_database_url: str) -> Iterator[Database]:
    made = Database.connect(domain_database_url, pool_size=5)
    yield made
    empty(made.engine)
    made.close()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as opened:
        yield opened
