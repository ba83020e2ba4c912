"""What the commands say of a database that is behind or of a newer version."""

import pytest
from sqlalchemy import text

from genonaut.cli import database as commands
from genonaut.cli.doctor import CHECKS
from genonaut.cli.servers import IS_NEWER, ServersError, migrate
from genonaut.db.session import make_engine
from tests.support.database import TEMPLATE, new_database

NEWER, OLDER = "ffffffffffff", "704ba727e23b"


@pytest.fixture
def at_version(postgres, make_settings, monkeypatch):
    """Give the settings of an environment, the commands' own, whose database says a version."""
    with new_database(postgres, template=TEMPLATE) as url:
        settings = make_settings(database_url_test=url)
        monkeypatch.setattr(commands, "settings_for", lambda _: settings)

        def write(version):
            engine = make_engine(url, pool_size=1)
            with engine.begin() as connection:
                connection.execute(
                    text("UPDATE alembic_version SET version_num = :v"), {"v": version}
                )
            engine.dispose()
            return settings

        yield write


def test_a_newer_database_is_not_migrated(at_version):
    settings = at_version(NEWER)
    with pytest.raises(ServersError, match="newer than this version"):
        migrate(settings)
    assert commands.migration_state(settings)["version"] == NEWER


@pytest.mark.parametrize(
    ("version", "advice"), [(NEWER, IS_NEWER), (OLDER, "run: genonaut db upgrade --env test")]
)
def test_check_and_doctor_tell_newer_from_behind(at_version, capsys, version, advice):
    settings = at_version(version)
    with pytest.raises(SystemExit):
        commands.check()
    assert capsys.readouterr().err == f"genonaut: {advice}\n"
    [_, postgres, *_] = CHECKS
    [finding] = postgres(settings)
    assert (finding.ok, finding.advice) == (False, advice)
