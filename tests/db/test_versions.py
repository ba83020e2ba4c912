"""A database is behind, current, or of a newer program."""

import pytest
from sqlalchemy import text

from genonaut.db.versions import Standing, known_versions, standing

OLD, UNKNOWN = "704ba727e23b", "ffffffffffff"


def test_a_migrated_database_is_current(session):
    assert standing(session.connection()) is Standing.CURRENT


@pytest.mark.parametrize(
    ("versions", "found"),
    [
        ([], Standing.BEHIND),
        ([OLD], Standing.BEHIND),
        ([UNKNOWN], Standing.NEWER),
        ([OLD, UNKNOWN], Standing.NEWER),
    ],
)
def test_another_version_is_behind_unless_no_migration_here_makes_it(session, versions, found):
    session.execute(text("DELETE FROM alembic_version"))
    for version in versions:
        session.execute(text("INSERT INTO alembic_version VALUES (:version)"), {"version": version})
    assert standing(session.connection()) is found


def test_a_database_without_versions_is_behind(session):
    session.execute(text("DROP TABLE alembic_version"))
    assert standing(session.connection()) is Standing.BEHIND


def test_every_migration_is_known_versions():
    assert OLD in known_versions()
    assert UNKNOWN not in known_versions()
