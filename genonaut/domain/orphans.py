"""Files that no row names, and rows whose files are gone.

A file is stored before its row is committed, and the bytes of one that is about to be removed may
be stored anew. So removing holds a lock on the hash that storing takes too (:func:`storing`), and
looks again under it; what was stored a moment ago is young, and left. Whoever names an original
takes the lock as well, and looks whether it is still there (:func:`keep`): another may have stored
the same bytes later, named them and deleted them.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import ARRAY, Text, cast, func, literal_column, select, update
from sqlalchemy.orm import Session

from genonaut.clients.storage import Storage
from genonaut.core.errors import NotFoundError, RetryableError
from genonaut.db.models import ContentImage
from genonaut.db.session import Database

_CLASS = 0x73746F72  # any number that nobody else locks


@dataclass(frozen=True, slots=True)
class Named:
    """The files a row names."""

    image_id: int
    ref: str
    original: str
    thumbnails: tuple[str, ...]


def storing(database: Database) -> Callable[[str], AbstractContextManager[None]]:
    """Give what a store holds, by the hash of the bytes, while it puts them.

    A transaction of its own that touches no row: it blocks no vacuum, and nobody but who would
    remove this very file.
    """

    @contextmanager
    def hold(digest: str) -> Iterator[None]:
        """Hold the lock of one hash, beside others who store."""
        with database.locking.begin() as connection:
            lock = func.pg_advisory_xact_lock_shared(_CLASS, _number(digest))
            connection.execute(select(lock))
            yield

    return hold


def _number(digest: str) -> int:
    """Give a lock's number; two hashes that share one wait for each other, no more."""
    return int.from_bytes(bytes.fromhex(digest[:8]), signed=True)


def _lock(session: Session, lock: Callable[..., Any], keys: Collection[str]) -> None:
    for number in sorted({_number(_digest(key)) for key in keys}):
        session.execute(select(lock(_CLASS, number)))


def _digest(key: str) -> str:
    return PurePosixPath(key).stem


def named(session: Session, keys: Collection[str]) -> set[str]:
    """Give those of the files that a row names, as its original or as a thumbnail."""
    if not keys:
        return set()
    originals = select(ContentImage.storage_key).where(
        ContentImage.sha256.in_({_digest(key) for key in keys})
    )
    found = set(session.scalars(originals))
    wanted = cast(sorted(keys), ARRAY(Text))
    rows = session.scalars(select(ContentImage.thumbnails).where(_THUMBNAIL_KEYS.op("?|")(wanted)))
    for thumbnails in rows:
        found.update(entry["key"] for entry in thumbnails.values())
    return found & set(keys)


_THUMBNAIL_KEYS: Any = literal_column(
    "jsonb_path_query_array(content_images.thumbnails, '$.*.\"key\"'::jsonpath)"
)
"""As the index has it."""


def keep(session: Session, storage: Storage, keys: Collection[str]) -> None:
    """Keep stored files until the transaction that names them ends; who would remove one waits.

    Call it before any row is written: nobody else should wait for the store.

    Raises: RetryableError: one has been removed, so store it again, or the store does not answer.
    """
    _lock(session, func.pg_advisory_xact_lock_shared, keys)
    if not all(storage.exists(key) for key in keys):
        raise RetryableError("a file was removed before its picture was written down; try again")


def remove(
    session: Session, storage: Storage, keys: Sequence[str], *, not_after: datetime
) -> list[str]:
    """Remove those of the files that no row names and that were last stored by ``not_after``.

    Each is looked at again under its lock, which is held until the transaction ends; keep it short.
    A slow store may outlast the connection, and the locks with it: then nothing more is removed.

    Returns: the keys of those removed.
    Raises: RetryableError: the store does not answer. OperationalError: the connection is lost.
    """
    _lock(session, func.pg_advisory_xact_lock, keys)
    removed = []
    for key in sorted(set(keys) - named(session, keys)):
        try:
            is_old = storage.stat(key).modified_at <= not_after
        except NotFoundError:
            continue
        if is_old:
            session.execute(select(1))  # the lock is held still
            storage.delete(key)
            removed.append(key)
    return removed


def next_named(session: Session, *, after: int, limit: int) -> list[Named]:
    """Give what the next rows name, by id, above the id ``after``."""
    rows = session.execute(
        select(
            ContentImage.id,
            ContentImage.content_id,
            ContentImage.position,
            ContentImage.storage_key,
            ContentImage.thumbnails,
        )
        .where(ContentImage.id > after)
        .order_by(ContentImage.id)
        .limit(limit)
    )
    return [
        Named(
            row.id,
            f"content/{row.content_id}/images/{row.position}",
            row.storage_key,
            tuple(entry["key"] for entry in row.thumbnails.values()),
        )
        for row in rows
    ]


def still_there(session: Session, rows: Sequence[Named]) -> list[Named]:
    """Leave out the rows that are gone; an item's deletion removes them before their files."""
    ids = [row.image_id for row in rows]
    left = set(session.scalars(select(ContentImage.id).where(ContentImage.id.in_(ids))))
    return [row for row in rows if row.image_id in left]


def last_named(session: Session) -> int:
    """Give the highest id of a row that names files; 0 when there is none."""
    return session.scalar(select(func.max(ContentImage.id))) or 0


def want_again(session: Session, image_ids: Collection[int]) -> None:
    """Make thumbnails that were lost count as missing, so that they are made anew.

    Also of a picture that could not be done again lately: what it had is gone with the files.
    """
    session.execute(
        update(ContentImage)
        .where(ContentImage.id.in_(image_ids))
        .values(thumbnails={}, thumb_spec=None, thumb_error=None)
    )
