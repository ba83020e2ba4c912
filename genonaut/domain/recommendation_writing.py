"""Store lists, many at once."""

from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete
from sqlalchemy.orm import Session

from genonaut.db.copying import copy_records
from genonaut.db.models import Recommendation
from genonaut.domain.recommendation_signals import Ids
from genonaut.domain.recommendations import Lists

_ROW = np.dtype(
    [
        ("generation_id", "i8"),
        ("user_id", "V16"),
        ("rank", "i2"),
        ("content_id", "i8"),
        ("score", "f4"),
        ("reason", "i2"),
        ("because_id", "i8"),
    ]
)


def write(
    session: Session, generation_id: int, users: Ids, lists: Lists, items: NDArray[np.int64]
) -> int:
    """Append the lists (b, l) of some users (b,) to a generation; give the rows written.

    ``items`` (m,) are the ids of what the lists number.
    """
    rows = records(generation_id, users, lists, items)
    copy_records(session, Recommendation.__tablename__, _ROW.names or (), rows)
    return len(rows)


def replace(
    session: Session, generation_id: int, users: Ids, lists: Lists, items: NDArray[np.int64]
) -> int:
    """Put lists in the place of those the users have in a generation; give the rows written."""
    wanted = [UUID(bytes=bytes(user)) for user in users]
    session.execute(
        delete(Recommendation)
        .where(Recommendation.generation_id == generation_id, Recommendation.user_id.in_(wanted))
        .execution_options(synchronize_session=False)
    )
    return write(session, generation_id, users, lists, items)


def records(generation_id: int, users: Ids, lists: Lists, items: NDArray[np.int64]) -> NDArray[Any]:
    """Give the rows of some lists, empty places left out."""
    row, place = np.nonzero(lists.item >= 0)
    made = np.empty(len(row), _ROW)
    because = lists.because[row, place]
    made["generation_id"] = generation_id
    made["user_id"] = users[row]
    made["rank"] = place + 1
    made["content_id"] = items[lists.item[row, place]]
    made["score"] = np.nan_to_num(lists.score[row, place], nan=0.0, posinf=0.0, neginf=0.0)
    made["reason"] = lists.reason[row, place]
    made["because_id"] = np.where(because >= 0, items[because], 0) if len(items) else 0
    return made
