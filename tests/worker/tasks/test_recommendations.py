"""``recommendations.refresh`` makes lists, switches to them, resumes, and refuses worse ones."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select, update

from genonaut.core.planted import SPAN_S, plant
from genonaut.db.models import (
    ContentItem,
    Recommendation,
    RecommendationGeneration,
    TaskRun,
    User,
    UserInteraction,
)
from genonaut.domain import recommendation_generations as generations
from genonaut.domain import runs
from genonaut.domain.runs import Trigger
from genonaut.worker.tasks import recommendations as module
from genonaut.worker.tasks.recommendations import refresh
from tests.worker.conftest import work_on

NOW = datetime.now(UTC)


@pytest.fixture
def plant_in(database):
    """Store planted interactions; give the users and the items."""

    def make(users=30, items=60, interactions=600, seed=3):
        data = plant(users, items, interactions, seed=seed)
        ids = sorted(uuid4() for _ in range(users + 1))
        with database.transaction() as session:
            session.add_all(User(id=i, username=f"p{n}") for n, i in enumerate(ids))
            session.flush()
            rows = [
                ContentItem(
                    title=f"item {n}",
                    prompt=f"taste{data.taste[n]} picture",
                    creator_id=ids[-1],
                    created_at=NOW - timedelta(seconds=float(SPAN_S - data.born[n])),
                )
                for n in range(items)
            ]
            session.add_all(rows)
            session.flush()
            session.add_all(
                UserInteraction(
                    user_id=ids[u],
                    content_id=rows[i].id,
                    kind="like" if r >= 4 else "view",
                    updated_at=NOW - timedelta(seconds=float(SPAN_S - at)),
                )
                for u, i, r, at in zip(data.user, data.item, data.rating, data.at, strict=True)
            )
        return ids[:-1], [row.id for row in rows]

    return make


@pytest.fixture
def lists(database):
    """Read the lists of a generation, the current one unless it is named."""

    def read(generation=None):
        with database.transaction() as session:
            wanted = generation or generations.current(session).id
            found = session.execute(
                select(Recommendation.user_id, Recommendation.content_id)
                .where(Recommendation.generation_id == wanted)
                .order_by(Recommendation.user_id, Recommendation.rank)
            )
            made: dict = {}
            for user, item in found:
                made.setdefault(user, []).append(item)
            return made

    return read


def be_active(database, user, items):
    with database.transaction() as session:
        # Where the test's one transaction is, now() stands still.
        session.execute(
            update(RecommendationGeneration).values(
                as_of=RecommendationGeneration.as_of - timedelta(minutes=5)
            )
        )
        session.add_all(UserInteraction(user_id=user, content_id=i, kind="share") for i in items)


def test_everyone_gets_a_list_and_a_second_run_finds_nothing_changed(run_task, plant_in, lists):
    users, _ = plant_in()
    result, progress = run_task(refresh)
    assert (result.users, result.items, result.switched) == (30, 60, True)
    assert progress[-1] == (30, 30)
    made = lists()
    assert made.keys() == {*users, generations.EVERYONE}
    assert all(len(one) == len({*one}) == 50 for one in made.values())
    assert result.rows == sum(map(len, made.values()))
    assert result.evaluation.users > 10
    again, _ = run_task(refresh)
    assert again.skipped == "nothing has changed since the lists were made"
    forced, _ = run_task(refresh, force=True)
    assert (forced.generation > result.generation, lists()) == (True, made)


def test_a_dry_run_tells_counts_and_a_score_and_writes_nothing(run_task, plant_in, session):
    plant_in()
    result, _ = run_task(refresh, dry_run=True)
    assert (result.users, result.items, result.rows, result.generation) == (30, 60, 0, None)
    assert result.interactions > 400
    assert result.evaluation.ndcg > 0
    assert session.scalar(select(func.count()).select_from(RecommendationGeneration)) == 0


def test_an_empty_database_makes_an_empty_generation(run_task, lists):
    result, _ = run_task(refresh)
    assert (result.users, result.rows, result.switched) == (0, 0, True)
    assert lists() == {}


def test_the_last_two_generations_are_kept_and_one_goes_back(run_task, plant_in, lists, database):
    plant_in()
    made = [run_task(refresh, force=True)[0].generation for _ in range(3)]
    assert lists(made[0]) == {}
    assert lists(made[1]) != {}
    with database.transaction() as session:
        assert generations.go_back(session).id == made[1]
    assert lists() == lists(made[1])
    fourth = run_task(refresh, force=True)[0].generation
    assert lists(made[2]) == {}, "what was gone back from is not kept"
    assert lists(made[1]) != {}
    assert lists() == lists(fourth)


def test_only_who_was_active_gets_a_new_list(run_task, plant_in, lists, database):
    users, items = plant_in()
    run_task(refresh)
    before = lists()
    idle, _ = run_task(refresh, scope="active_since")
    assert idle.skipped == "nobody was active"
    be_active(database, users[0], items[:9])
    result, _ = run_task(refresh, scope="active_since")
    assert (result.users, result.switched) == (1, False)
    after = lists()
    assert after.keys() == before.keys()
    assert {user for user in after if after[user] != before[user]} == {users[0]}
    assert run_task(refresh, scope="user", user_id=str(users[1]))[0].users == 1
    assert run_task(refresh, scope="user", user_id=str(UUID(int=7)))[0].users == 0


def test_lists_that_were_gone_back_to_stay_until_somebody_wants_others(
    run_task, plant_in, lists, database
):
    users, items = plant_in()
    run_task(refresh)
    left = run_task(refresh, force=True)[0].generation
    with database.transaction() as session:
        generations.go_back(session)
    be_active(database, users[0], items[:9])
    before = lists()
    for scope in ("active_since", "all"):
        said = run_task(refresh, scope=scope)[0].skipped
        assert said.startswith(f"generation {left} was gone back from")
        assert run_task(refresh, scope=scope, dry_run=True)[0].skipped is None
    assert lists() == before
    assert run_task(refresh, scope="user", user_id=str(users[0]))[0].users == 1
    assert run_task(refresh, force=True)[0].switched
    assert run_task(refresh, scope="active_since")[0].skipped == "nobody was active"


def test_no_single_lists_are_made_of_what_was_refused(
    run_task, start_run, plant_in, lists, database
):
    users, items = plant_in(users=120, items=150, interactions=3000)
    good, _ = run_task(refresh)
    with database.transaction() as session:
        better = {**good.evaluation.model_dump(), "ndcg": 0.99, "error": 0.001}
        session.execute(update(RecommendationGeneration).values(evaluation=better))
    be_active(database, users[0], items[:9])
    before = lists()
    assert start_run(refresh).error_code == "quality_fell"
    assert "was refused" in run_task(refresh, scope="active_since")[0].skipped
    assert lists() == before
    assert start_run(refresh).error_code == "quality_fell", "everyone's are judged anew"
    assert run_task(refresh, scope="active_since", force=True)[0].users == 1


def test_single_lists_want_lists_to_be_in(run_task, start_run):
    assert "make everyone's first" in run_task(refresh, scope="active_since")[0].skipped
    assert start_run(refresh, scope="user").error_code == "invalid_input"


def test_lists_whose_score_fell_are_not_switched_in(
    run_task, start_run, plant_in, lists, database, reload
):
    plant_in(users=120, items=150, interactions=3000)
    good, _ = run_task(refresh)
    before = lists()
    with database.transaction() as session:
        better = {**good.evaluation.model_dump(), "ndcg": 0.99, "error": 0.001}
        session.execute(update(RecommendationGeneration).values(evaluation=better))
    run = start_run(refresh, force=True)
    assert (run.status, run.error_code) == ("failed", "quality_fell")
    assert "stays" in run.error_message
    assert lists() == before
    with database.transaction() as session:
        refused = generations.list_generations(session)[0]
        assert (refused.run_id, refused.is_current, refused.refused) == (
            run.id,
            False,
            run.error_message,
        )
        assert refused.evaluation["users"] == good.evaluation.users
    accepted, _ = run_task(refresh, force=True, accept_fall=True)
    assert accepted.switched


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.fixture
def run_to_end(committed_database, task_services):
    """Do a run, or go on with one that was killed."""

    def go(run_id=None, *, services=task_services, **params):
        with committed_database.transaction() as session:
            if run_id is None:
                asked = refresh.request(refresh.validate(params), trigger=Trigger.API)
                run_id = runs.trigger(session, asked).run.id
            else:
                session.execute(
                    update(TaskRun)
                    .where(TaskRun.id == run_id)
                    .values(status="pending", lease_token=None, lease_expires_at=None)
                )
        return work_on(services, refresh, run_id)

    return go


@pytest.fixture
def killed_run(committed_database, run_to_end, monkeypatch):
    """Kill a run when it has written two blocks of seven users; give its id."""

    from genonaut.domain import recommendation_writing as writing

    def go(put="write", **params):
        whole_put, calls = getattr(writing, put), []

        def put_twice_then_die(*args):
            calls.append(args)
            if len(calls) == 3:
                raise Killed
            return whole_put(*args)

        with monkeypatch.context() as patch:
            patch.setattr(module, "BLOCK", 7)
            patch.setattr(writing, put, put_twice_then_die)
            with pytest.raises(Killed):
                run_to_end(**params)
        with committed_database.transaction() as session:
            return session.scalar(select(func.max(TaskRun.id)))

    return go


def test_a_killed_run_goes_on_with_the_block_it_was_at(
    committed_database, killed_run, run_to_end, plant_in, lists
):
    plant_in()
    run_to_end(force=True)
    old, run_id = lists(), killed_run(force=True)
    assert lists() == old, "readers see the old lists whole"
    with committed_database.transaction() as session:
        checkpoint = session.get_one(TaskRun, run_id).checkpoint
    assert checkpoint["users"] == 14
    run = run_to_end(run_id)
    assert (run.status, run.result["users"]) == ("completed", 30)
    assert run.result["generation"] == checkpoint["generation"]
    assert lists() == old, "the same data give the same lists"
    assert run.result["rows"] == sum(map(len, lists().values()))


def test_a_run_that_goes_on_under_other_settings_begins_anew(
    committed_database, task_services, killed_run, run_to_end, plant_in, lists
):
    plant_in()
    run_id = killed_run()
    with committed_database.transaction() as session:
        begun = session.get_one(TaskRun, run_id).checkpoint["generation"]
    shorter = task_services.settings.model_copy(update={"recommend_list_size": 10})
    run = run_to_end(run_id, services=replace(task_services, settings=shorter))
    assert (run.status, run.result["users"]) == ("completed", 30)
    assert run.result["generation"] > begun
    assert {len(one) for one in lists().values()} == {10}
    assert lists(begun) == {}


@pytest.mark.parametrize(
    ("scope", "put", "more"), [("all", "write", 0), ("active_since", "replace", 1)]
)
def test_what_is_done_between_attempts_is_not_forgotten(
    committed_database, killed_run, run_to_end, plant_in, scope, put, more
):
    """Everyone's lists are of the moment their making began, single ones of the last attempt."""
    users, items = plant_in()
    before = run_to_end().result["interactions"]
    for user in users[:15]:
        be_active(committed_database, user, items[:1])
    run_id = killed_run(put, scope=scope)
    with committed_database.transaction() as session:
        mine = (UserInteraction.user_id == users[0], UserInteraction.kind == "share")
        session.execute(update(UserInteraction).where(*mine).values(updated_at=func.now(), times=2))
        session.add(UserInteraction(user_id=users[0], content_id=items[1], kind="dismiss"))
    run = run_to_end(run_id)
    assert (run.status, run.result["interactions"]) == ("completed", before + 15 + more)


def test_what_is_private_or_deleted_or_ones_own_is_in_no_list(run_task, plant_in, lists, database):
    users, items = plant_in()
    hidden, gone, own = items[:3]
    with database.transaction() as session:
        session.execute(update(ContentItem).where(ContentItem.id == hidden).values(is_private=True))
        session.execute(
            update(ContentItem).where(ContentItem.id == own).values(creator_id=users[0])
        )
        session.delete(session.get_one(ContentItem, gone))
    run_task(refresh)
    made = lists()
    assert not {hidden, gone} & {item for one in made.values() for item in one}
    assert own not in made[users[0]]
