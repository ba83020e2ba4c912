"""A store in which another user deletes what is being stored."""

from datetime import timedelta
from typing import Any

from genonaut.clients.storage import Storage
from genonaut.core.clock import utcnow
from genonaut.db.session import Database
from genonaut.domain import orphans


class Racing:
    """A store whose first file goes at once, with the only row that named the same bytes."""

    def __init__(self, storage: Storage, database: Database) -> None:
        self._storage = storage
        self._database = database
        self.removed: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def put(self, data: bytes, *, mime: str) -> str:
        """Store the bytes; those that come first are removed before their key is given."""
        key = self._storage.put(data, mime=mime)
        if not self.removed:
            later = utcnow() + timedelta(minutes=1)
            with self._database.transaction() as session:
                self.removed = orphans.remove(session, self._storage, [key], not_after=later)
        return key
