"""``notifications.digest`` plans digests; ``test_digests.py`` has the rules."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import select, update

from genonaut.db.models import NotificationDelivery, NotificationPreference, UserNotification
from genonaut.domain import notifications, preference_writing
from genonaut.domain.preferences import Preferences
from genonaut.worker.tasks.notifications import Result, digest


def test_it_plans_a_digest_for_whose_hour_it_is_and_none_twice(
    run_task, database, make_user, make_address
):
    wanted = Preferences(is_daily=True, digest_hour=0)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    with database.transaction() as session:
        for _ in range(3):
            user = make_user()
            make_address(user)
            preference_writing.save(session, user.id, wanted, channels=["email"])
        notifications.notify(session, user.id, "system", dedupe_key="k", title="News")
        session.execute(update(UserNotification).values(created_at=yesterday))
        session.execute(update(NotificationPreference).values(digested_on=yesterday.date()))
        session.expire_all()
    result, _ = run_task(digest, batch_size=2)
    assert result == Result(users=3, digests=1)
    again, _ = run_task(digest)
    assert again == Result(users=0, digests=0)
    with database.transaction() as session:
        assert session.scalars(select(NotificationDelivery.purpose)).all() == ["digest"]
