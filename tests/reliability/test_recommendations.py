"""A refresh of recommendations whose worker is killed: nobody sees half a list."""

import pytest
from sqlalchemy import delete, func, select

from genonaut.cli import seeding
from genonaut.clients.storage import LocalStorage
from genonaut.core.planted import plant
from genonaut.db.models import ContentItem, GenerationJob, Recommendation
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.runs import AlreadyRunningError
from genonaut.worker.tasks.recommendations import refresh
from tests.reliability.program import until
from tests.reliability.rig import Rig

USERS = 4500
RECOVERY_S = 120.0


def plant_in(rig: Rig) -> None:
    data = plant(USERS, 400, 30_000, seed=1)
    storage = LocalStorage(rig.folder / "storage", min_free_bytes=0)
    with rig.database.transaction() as session:
        ids = seeding._make_users(session, USERS, after=0)
        items = seeding._make_items(session, storage, data, ids, 1)
        seeding._make_interactions(session, data, ids, items)


def seen(rig: Rig) -> tuple[int, int, int]:
    """Give the current generation, and its users and rows as a reader counts them."""
    with rig.database.transaction() as session:
        current = generations.current(session)
        assert current is not None
        users, rows = session.execute(
            select(func.count(Recommendation.user_id.distinct()), func.count()).where(
                Recommendation.generation_id == generations.current_id()
            )
        ).one()
        return current.id, users, rows


@pytest.mark.slow
def test_a_killed_refresh_goes_on_and_readers_see_the_old_lists_until_the_switch(
    rig: Rig,
) -> None:
    plant_in(rig)
    worker = rig.runner("one")
    first = rig.wait_for_run(rig.trigger(refresh.name), "completed", RECOVERY_S)
    old = seen(rig)
    assert old == (first.result["generation"], first.result["users"] + 1, first.result["rows"])

    run_id = rig.trigger(refresh.name, force=True)
    assert rig.trigger(refresh.name, force=True) == run_id, "two at once are one run"
    with pytest.raises(AlreadyRunningError):
        rig.trigger(refresh.name, scope="active_since")
    until(lambda: (rig.run_row(run_id).checkpoint or {}).get("users"), "a block is written", 60)
    worker.kill9()
    at = rig.run_row(run_id).checkpoint
    assert at is not None
    assert 0 < at["users"] < first.result["users"], "it was killed on the way"
    assert seen(rig) == old

    rig.runner("two")
    run = rig.wait_for_run(run_id, "completed", RECOVERY_S)
    # Here a lease is so short that a busy machine may lose the second attempt's, too.
    assert run.attempt > 1
    assert run.result["generation"] == at["generation"]
    assert (run.result["users"], run.result["rows"]) == (old[1] - 1, old[2])
    assert seen(rig) == (at["generation"], *old[1:])
    with rig.database.transaction() as session:  # no job made these: the books would not add up
        for table in (GenerationJob, ContentItem):
            session.execute(delete(table))
