"""The fixtures keep what they promise."""

import pytest
from sqlalchemy import func, select

from genonaut.db.models import GenerationJob, User


@pytest.mark.parametrize("_", range(2))
def test_what_a_test_commits_is_gone_afterwards(database, make_claim, reload, _):
    held = make_claim()
    assert reload(held).status == "running"
    with database.transaction() as session:
        assert session.scalars(select(func.count()).select_from(GenerationJob)).one() == 1


@pytest.mark.parametrize("_", range(2))
def test_a_committed_database_is_the_one_of_every_other_fixture(
    committed_database, database, make_job, settings, _
):
    assert database is committed_database
    make_job()
    assert settings.database_url.endswith(committed_database.engine.url.database)
    with committed_database.transaction() as one, committed_database.transaction() as other:
        assert one.scalars(select(func.count()).select_from(User)).one() == 1
        assert other.scalars(select(func.count()).select_from(GenerationJob)).one() == 1


@pytest.mark.parametrize("_", range(2))
def test_redis_is_empty_when_a_test_begins(redis_client, settings, _):
    assert redis_client.dbsize() == 0
    redis_client.set(f"{settings.redis_ns}:mark", "here")


def test_celery_speaks_with_the_redis_of_the_tests(celery_app, settings):
    assert celery_app.conf.broker_url == settings.celery_broker_url
    connection = celery_app.connection_for_write()
    assert (connection.hostname, connection.virtual_host) == ("127.0.0.1", "3")
    assert str(connection.port) in settings.celery_broker_url
