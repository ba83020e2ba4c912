"""Prompts that nobody waits for are told to ComfyUI until it has heard."""

from sqlalchemy import func, text, update

from genonaut.db.models import AbandonedPrompt
from genonaut.domain import abandoned


def take(session):
    return [(row.backend, row.prompt_id) for row in abandoned.take_due(session, limit=10)]


def test_a_prompt_is_left_once_and_none_is_no_prompt(session, left_at_comfyui):
    for pair in [("b", "p"), ("b", "p"), ("b", None), (None, "p"), ("c", "p")]:
        abandoned.abandon(session, *pair)
    assert sorted(take(session)) == [("b", "p"), ("c", "p")]


def test_a_prompt_comes_due_again_ever_later_until_it_is_forgotten(session):
    abandoned.abandon(session, "b", "p")
    pauses = []
    for _ in range(8):
        [taken] = abandoned.take_due(session, limit=10)
        assert take(session) == []
        row = session.get_one(AbandonedPrompt, taken.id, populate_existing=True)
        pauses.append((row.next_try_at - row.created_at).total_seconds())
        session.execute(update(AbandonedPrompt).values(next_try_at=func.now()))
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]
    abandoned.forget(session, taken.id)
    assert take(session) == []


def test_a_server_away_for_a_day_is_given_up(session):
    abandoned.abandon(session, "b", "p")
    abandoned.forget_old(session)
    assert take(session) == [("b", "p")]
    old = func.now() - text("interval '25 hours'")
    session.execute(update(AbandonedPrompt).values(created_at=old, next_try_at=old))
    abandoned.forget_old(session)
    assert take(session) == []


def test_two_reconcilers_take_different_prompts(committed_database):
    with committed_database.transaction() as session:
        abandoned.abandon(session, "b", "p")
        abandoned.abandon(session, "b", "q")
    with committed_database.transaction() as one, committed_database.transaction() as two:
        first = abandoned.take_due(one, limit=1)
        second = abandoned.take_due(two, limit=10)
    assert {row.prompt_id for row in first} | {row.prompt_id for row in second} == {"p", "q"}
