"""One generation is read at a time; the task's own tests see them made, kept and gone back to."""

import threading
from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.db.models import ContentItem, RecommendationGeneration, UserInteraction
from genonaut.domain import interactions
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.interactions import Act

NOW = datetime.now(UTC)


def begin(session, **values):
    values = {"run_id": None, "algorithm": "x", "fingerprint": {}, "evaluation": None, **values}
    return generations.begin(session, as_of=NOW, **values)


def test_switching_leaves_one_current_and_rollback_goes_one_back(session):
    with pytest.raises(NotFoundError):
        generations.go_back(session)
    first, second = begin(session), begin(session)
    generations.switch(session, first, users=1, rows=2)
    with pytest.raises(ConflictError):
        generations.go_back(session)
    generations.switch(session, second, users=1, rows=2)
    assert generations.go_back(session).id == first
    assert generations.current(session).id == first
    with pytest.raises(ConflictError):
        generations.go_back(session)


def test_what_was_gone_back_from_is_not_gone_back_to(session):
    first, bad, third = (begin(session) for _ in range(3))
    generations.switch(session, first, users=0, rows=0)
    generations.switch(session, bad, users=0, rows=0)
    generations.go_back(session)
    generations.switch(session, third, users=0, rows=0)
    assert generations.go_back(session).id == first


def test_one_that_was_dropped_is_not_switched_to(session):
    first, second, third, left = (begin(session) for _ in range(4))
    for one in (first, second, third):
        generations.switch(session, one, users=0, rows=0)
    assert generations.superfluous(session) == []
    assert not generations.is_there(session, left)
    assert [generations.is_there(session, one) for one in (first, second, third)] == [
        False,
        True,
        True,
    ]
    with pytest.raises(ConflictError):
        generations.switch(session, left, users=0, rows=0)


def test_many_switches_at_once_leave_one_current(committed_database):
    with committed_database.transaction() as session:
        made = [begin(session) for _ in range(5)]
    failed = []

    def switch(one):
        try:
            with committed_database.transaction() as session:
                generations.switch(session, one, users=0, rows=0)
        except Exception as error:  # noqa: BLE001 - shown below
            failed.append(error)

    threads = [threading.Thread(target=switch, args=(one,)) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    with committed_database.transaction() as session:
        current = select(func.count()).where(RecommendationGeneration.is_current)
        assert session.scalar(current) == 1


def test_the_fingerprint_changes_with_what_lists_are_made_from(session, make_user):
    ada, bob = make_user(), make_user()
    seen = [generations.fingerprint(session)]
    item = ContentItem(title="x", creator_id=ada.id)
    session.add(item)
    session.flush()
    seen.append(generations.fingerprint(session))
    interactions.record(session, bob.id, item.id, Act.LIKE)
    seen.append(generations.fingerprint(session))
    assert generations.fingerprint(session) == seen[-1]
    session.delete(session.scalars(select(UserInteraction)).one())
    item.is_private = True
    session.flush()
    seen += [generations.fingerprint(session), generations.fingerprint(session, weights="other")]
    assert len({repr(one) for one in seen}) == 4
    assert seen[3] == seen[0]
