"""Write many rows at once with COPY."""

import io
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg2 import extensions
from sqlalchemy.orm import Session

_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TAIL = b"\xff\xff"
_lock = threading.Lock()


def copy_records(session: Session, table: str, columns: Sequence[str], rows: NDArray[Any]) -> None:
    """Append the records of a structured array to a table, in the transaction of ``session``.

    Args:
        session: the transaction.
        table: its name.
        columns: to which the array's fields go, in their order.
        rows: (n,), fields of whole and real numbers, ``V16`` for UUIDs; nothing is NULL.
    """
    if len(rows):
        _copy(session, f"COPY {table} ({', '.join(columns)}) FROM STDIN WITH BINARY", _packed(rows))


def copy_text(session: Session, table: str, columns: Sequence[str], text: str) -> None:
    r"""Append rows to a table, in the transaction of ``session``.

    ``text`` is COPY's own: a line per row, tabs between values, ``\N`` for NULL.
    """
    _copy(session, f"COPY {table} ({', '.join(columns)}) FROM STDIN", text.encode())


def _packed(rows: NDArray[Any]) -> bytes:
    """Lay records out as COPY's binary format: a count of fields, then length and value of each."""
    fields: Any = rows.dtype.fields or {}
    layout: list[tuple[str, Any]] = [("count", ">i2")]
    for name, (kind, *_) in fields.items():
        layout += [(f"{name} length", ">i4"), (name, kind.newbyteorder(">"))]
    packed = np.empty(len(rows), np.dtype(layout))
    packed["count"] = len(fields)
    for name, (kind, *_) in fields.items():
        packed[f"{name} length"] = kind.itemsize
        packed[name] = rows[name]
    return b"".join((_HEAD, packed.tobytes(), _TAIL))


def _copy(session: Session, statement: str, data: bytes) -> None:
    session.flush()
    connection: Any = session.connection().connection
    with _waiting_in_the_driver(), connection.cursor() as cursor:
        cursor.copy_expert(statement, io.BytesIO(data))


@contextmanager
def _waiting_in_the_driver() -> Iterator[None]:
    """Let the driver wait by itself, as it insists on for COPY (see ``db/waiting.py``).

    The server's limit on statements still ends a COPY that takes too long.
    """
    with _lock:
        before = extensions.get_wait_callback()
        extensions.set_wait_callback(None)
        try:
            yield
        finally:
            extensions.set_wait_callback(before)
