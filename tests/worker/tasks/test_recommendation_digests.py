"""``recommendations.digest`` tells each user once; the domain's test has the rules."""

import pytest
from sqlalchemy import func, select, update

from genonaut.db.models import Recommendation, TaskRun, UserNotification
from genonaut.domain import preference_writing, runs
from genonaut.domain import recommendation_digests as digests
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.preferences import Preferences
from genonaut.domain.runs import Trigger
from genonaut.worker.tasks.recommendation_digests import Result, digest
from tests.worker.conftest import work_on


@pytest.fixture
def asked(database, make_user, make_image):
    """Make users who asked to hear, and one list for everybody."""
    wanted = Preferences({"recommendation": {"in_app": True}})
    users = [make_user() for _ in range(5)]
    make_user()
    items = [make_image().content_id for _ in range(3)]
    with database.transaction() as session:
        for user in users:
            preference_writing.save(session, user.id, wanted, channels=["in_app"])
        made = generations.begin(
            session,
            run_id=None,
            algorithm="x",
            as_of=session.scalars(select(func.now())).one(),
            fingerprint={},
            evaluation=None,
        )
        session.add_all(
            Recommendation(
                generation_id=made,
                user_id=generations.EVERYONE,
                rank=n,
                content_id=item,
                score=1,
                reason=4,
            )
            for n, item in enumerate(items, start=1)
        )
        session.flush()
        generations.switch(session, made, users=0, rows=3)
    return sorted(user.id for user in users)


@pytest.fixture
def told(database):
    """Give whom there is a notice for, in order, as often as there is one."""

    def read():
        with database.transaction() as session:
            return session.scalars(
                select(UserNotification.user_id)
                .where(UserNotification.kind == "recommendation")
                .order_by(UserNotification.user_id)
            ).all()

    return read


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_it_tells_those_who_asked_and_none_twice(run_task, asked, told, batch_size):
    result, progress = run_task(digest, batch_size=batch_size)
    assert result == Result(users=5, told=5)
    assert told() == asked
    assert progress[-1][0] == 5
    again, _ = run_task(digest)
    assert again == Result()
    assert told() == asked


def test_with_nothing_to_tell_nobody_is_told(run_task, database, make_user, told):
    wanted = Preferences({"recommendation": {"in_app": True}})
    with database.transaction() as session:
        preference_writing.save(session, make_user().id, wanted, channels=["in_app"])
    assert run_task(digest)[0] == Result(users=1, told=0)
    assert told() == []


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


@pytest.mark.parametrize("killed_at", [1, 4, 5])
def test_killed_anywhere_it_goes_on_and_tells_each_once(
    committed_database, task_services, asked, told, monkeypatch, killed_at
):
    tell, calls = digests.tell, []

    def killed(session, user_id, week):
        calls.append((user_id, week))
        if len(calls) == killed_at:
            raise Killed
        return tell(session, user_id, week)

    monkeypatch.setattr(digests, "tell", killed)
    request = digest.request(digest.validate({"batch_size": 2}), trigger=Trigger.API)
    with committed_database.transaction() as session:
        run_id = runs.trigger(session, request).run.id
    with pytest.raises(Killed):
        work_on(task_services, digest, run_id)
    assert told() == asked[: (killed_at - 1) // 2 * 2], "whole batches"
    monkeypatch.setattr(digests, "week", lambda session: "2099-W01")
    with committed_database.transaction() as session:
        checkpoint = session.get_one(TaskRun, run_id).checkpoint
        session.execute(
            update(TaskRun)
            .where(TaskRun.id == run_id)
            .values({"status": "pending", "lease_token": None, "lease_expires_at": None})
        )
    row = work_on(task_services, digest, run_id)
    assert (row.status, row.result) == ("completed", {"users": 5, "told": 5})
    assert told() == asked
    if checkpoint:
        assert {week for _, week in calls} == {checkpoint["week"]}, "the week it began in"
