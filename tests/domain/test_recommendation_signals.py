"""What is read is what is there, page by page, as of a moment."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import func, select, update

from genonaut.api.config import Settings
from genonaut.db.models import ContentItem, User, UserInteraction
from genonaut.domain import recommendation_signals as signals
from genonaut.domain.recommendation_signals import Weights, weigh

WEIGHTS = Weights(view=1, like=4, rate=4, download=3, share=5)
NOW = datetime.now(UTC)


@pytest.fixture
def people(session):
    made = [User(username=f"u{n}") for n in range(4)]
    session.add_all(made)
    session.flush()
    return sorted(made, key=lambda user: user.id)


@pytest.fixture
def make_item(session, people):
    def make(by=3, **columns):
        item = ContentItem(
            **{"title": "x", "prompt": "a cat", "creator_id": people[by].id, **columns}
        )
        session.add(item)
        session.flush()
        return item

    return make


@pytest.fixture
def act(session, people):
    def do(user, item, kind="like", **columns):
        session.add(
            UserInteraction(user_id=people[user].id, content_id=item.id, kind=kind, **columns)
        )
        session.flush()

    return do


@pytest.fixture
def read(database, session):
    def run(as_of=None):
        moment = as_of or session.scalar(select(func.now()))
        return signals.read(database.transaction, as_of=moment, weights=WEIGHTS, seed=0)

    return run


@pytest.mark.parametrize("page", [1, 2, 100])
def test_every_page_size_reads_the_same(page, monkeypatch, people, make_item, act, read):
    monkeypatch.setattr(signals, "PAGE", page)
    monkeypatch.setattr(signals, "TEXT_PAGE", page)
    items = [make_item() for _ in range(3)]
    for user, item, kind in ((0, 0, "like"), (0, 0, "view"), (0, 2, "view"), (2, 1, "share")):
        act(user, items[item], kind)
    found = read()
    assert [bytes(user) for user in found.users] == [people[0].id.bytes, people[2].id.bytes]
    assert found.items.tolist() == [item.id for item in items]
    feedback = found.feedback
    rows = {*zip(feedback.user, feedback.item, feedback.strength, feedback.liked, strict=True)}
    assert rows == {(0, 0, 4, True), (0, 0, 1, False), (0, 2, 1, False), (1, 1, 5, True)}
    assert found.catalogue.vectors.shape[0] == 3


def test_private_items_ones_own_and_the_future_are_left_out(session, make_item, act, read):
    shown, hidden, own = make_item(), make_item(is_private=True), make_item(by=0)
    for item in (shown, hidden, own):
        act(0, item)
    act(1, shown, created_at=NOW + timedelta(days=1))
    found = read()
    assert found.items.tolist() == [shown.id, own.id]
    assert (found.feedback.user.tolist(), found.feedback.item.tolist()) == ([0], [0])
    assert found.catalogue.owner.tolist() == [-1, 0]
    session.execute(update(ContentItem).values(is_private=True))
    assert read().feedback.user.tolist() == []


def test_nothing_is_read_from_nothing(read):
    found = read()
    assert (len(found.users), len(found.items), len(found.feedback.user)) == (0, 0, 0)


def test_ages_are_seconds_and_never_negative(make_item, act, read):
    item = make_item(created_at=NOW - timedelta(days=2))
    begun = {"created_at": NOW - timedelta(days=1)}
    act(0, item, updated_at=NOW - timedelta(hours=1), **begun)
    act(1, item, updated_at=NOW + timedelta(hours=1), **begun)
    found = read(NOW)
    assert sorted(found.feedback.age_s.tolist()) == pytest.approx([0, 3600], abs=2)
    assert found.catalogue.age_s.tolist() == pytest.approx([2 * 86_400], abs=2)


def test_odd_prompts_and_models_are_read(make_item, make_job, people, read):
    made = [make_item(prompt=text) for text in (None, "", "\N{SNOWMAN}", "cat " * 9000)]
    for item, loras in zip(made, ([{"name": "ink"}], ["ink"], [7], None), strict=True):
        make_job(people[0], content_id=item.id, checkpoint_model="dream", lora_models=loras)
    assert read().catalogue.vectors.shape[0] == 4


def test_acts_weigh_what_the_settings_say():
    kinds = np.array([0, 1, 2, 2, 2, 3, 4, 5, 1, 0])
    ratings = np.array([0, 0, 1, 3, 5, 0, 0, 0, 0, 0])
    times = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 8])
    strength, liked = weigh(kinds, ratings, times, WEIGHTS)
    assert strength.tolist() == pytest.approx([1, 4, 0, 4 / 3, 4, 3, 5, -1, 0, 4])
    assert liked.tolist() == [False, True, False, False, True, True, True, False, False, False]
    assert Weights.of(Settings()) == Weights(view=1, like=4, rate=4, download=3, share=4)
