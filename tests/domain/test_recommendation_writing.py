"""Lists arrive as they were made, empty places left out."""

import numpy as np
import pytest
from sqlalchemy import select

from genonaut.db.models import Recommendation
from genonaut.domain import recommendation_writing as writing
from genonaut.domain.recommendations import Lists

USERS = np.array([b"\1" * 16, b"\2" * 16], "V16")
ITEMS = np.array([11, 22, 33])
LISTS = Lists(
    item=np.array([[2, 0], [1, -1]]),
    score=np.array([[0.5, 0.25], [np.nan, 0]], np.float32),
    reason=np.array([[1, 4], [3, 0]]),
    because=np.array([[1, -1], [0, -1]]),
)


@pytest.fixture
def kept(session):
    def read():
        query = select(Recommendation).order_by(Recommendation.user_id, Recommendation.rank)
        return [
            (r.user_id.int >> 120, r.rank, r.content_id, r.score, r.reason, r.because_id)
            for r in session.scalars(query.where(Recommendation.generation_id == 7))
        ]

    return read


def test_rows_are_the_places_that_are_filled(session, kept):
    assert writing.write(session, 7, USERS, LISTS, ITEMS) == 3
    assert kept() == [(1, 1, 33, 0.5, 1, 22), (1, 2, 11, 0.25, 4, 0), (2, 1, 22, 0, 3, 11)]


def test_lists_are_replaced_alone(session, kept):
    writing.write(session, 7, USERS, LISTS, ITEMS)
    one = Lists(*(part[1:] for part in (LISTS.item, LISTS.score, LISTS.reason, LISTS.because)))
    assert writing.replace(session, 7, USERS[:1], one, ITEMS) == 1
    assert kept() == [(1, 1, 22, 0, 3, 11), (2, 1, 22, 0, 3, 11)]
