"""Say whether this program's migrations and the database's version go together."""

from enum import StrEnum
from functools import lru_cache

from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from genonaut.api.config import ROOT


class Standing(StrEnum):
    """How the database's version stands to the newest that this program knows."""

    CURRENT = "current"
    BEHIND = "behind"
    NEWER = "newer"


def standing(connection: Connection) -> Standing:
    """Compare the database's version with the migrations here.

    A version that none of them makes was made by a newer program; a database without one is behind.
    """
    current = set(MigrationContext.configure(connection).get_current_heads())
    if current == set(_scripts().get_heads()):
        return Standing.CURRENT
    return Standing.BEHIND if current <= known_versions() else Standing.NEWER


@lru_cache(maxsize=1)
def known_versions() -> frozenset[str]:
    """Give every version that the migrations here make."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


@lru_cache(maxsize=1)
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(Config(str(ROOT / "alembic.ini")))
