"""COPY writes what it was given, in its transaction, and the driver waits as before."""

from uuid import UUID

import numpy as np
import pytest
from psycopg2 import DataError, extensions
from sqlalchemy import text

from genonaut.db.copying import copy_records, copy_text

KIND = np.dtype([("a", "i8"), ("b", "i2"), ("c", "f4"), ("d", "V16")])


@pytest.fixture
def kept(session):
    session.execute(text("CREATE TEMP TABLE kept (a bigint, b smallint, c real, d uuid)"))
    yield lambda: session.execute(text("SELECT * FROM kept ORDER BY a")).all()
    session.execute(text("DROP TABLE kept"))


def test_records_arrive_as_they_were(session, kept):
    rows = np.array([(-1, 7, 0.5, b"\1" * 16), (2**62, -7, -2.25, b"\xff" * 16)], KIND)
    copy_records(session, "kept", ("a", "b", "c", "d"), rows)
    copy_records(session, "kept", ("a", "b", "c", "d"), rows[:0])
    assert kept() == [
        (-1, 7, 0.5, UUID(bytes=b"\1" * 16)),
        (2**62, -7, -2.25, UUID(bytes=b"\xff" * 16)),
    ]


def test_text_arrives_and_the_wait_in_python_is_back_after_an_error(committed_database):
    before = extensions.get_wait_callback()
    assert before is not None
    with committed_database.transaction() as session:
        session.execute(text("CREATE TEMP TABLE lines (a int, b text) ON COMMIT DROP"))
        copy_text(session, "lines", ("a", "b"), "1\tone\n2\t\\N\n")
        assert session.execute(text("SELECT * FROM lines")).all() == [(1, "one"), (2, None)]
    with committed_database.transaction() as session:
        session.execute(text("CREATE TEMP TABLE lines (a int) ON COMMIT DROP"))
        with pytest.raises(DataError, match="integer"):
            copy_text(session, "lines", ("a",), "one\n")
    assert extensions.get_wait_callback() is before
