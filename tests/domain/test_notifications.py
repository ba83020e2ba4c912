"""Users hear of a fact once."""

import pytest

from genonaut.core.errors import NotFoundError
from genonaut.domain import notifications


@pytest.fixture
def notify(database, make_user):
    user = make_user()

    def make(key="k", to=user, **values):
        with database.transaction() as session:
            return notifications.notify(
                session, to.id, "job_completed", dedupe_key=key, title="Ready", **values
            )

    make.user = user
    return make


def listed(session, user, *, unread=False, before=None, limit=50):
    rows = notifications.list_for(session, user.id, unread=unread, before=before, limit=limit)
    return [row.id for row in rows]


def test_the_same_fact_is_told_once_per_user(notify, make_user):
    assert notify() is not None
    assert notify() is None
    assert notify(to=make_user()) is not None


def test_telling_is_an_event_for_its_user(database, notify):
    heard = []
    database.sinks.append(heard.extend)
    row = notify(data={"job_id": 7})
    notify()
    (event,) = heard
    assert event.topics == (f"user:{notify.user.id}",)
    assert event.row == notifications.public(row)
    assert event.row["data"] == {"job_id": 7}


def test_a_long_title_is_cut(database, make_user):
    with database.transaction() as session:
        row = notifications.notify(
            session, make_user().id, "k", dedupe_key="x", title="t" * 300, body="b" * 5000
        )
    assert len(row.title) == 255


def test_the_list_goes_back_in_pages_and_shows_only_ones_own(session, notify, make_user):
    ids = [notify(f"k{n}").id for n in range(5)]
    notify("other", to=make_user())
    assert listed(session, notify.user) == ids[::-1]
    assert listed(session, notify.user, limit=2) == ids[:2:-1]
    assert listed(session, notify.user, before=ids[3], limit=2) == [ids[2], ids[1]]


def test_reading_twice_keeps_the_first_time(committed_database, notify):
    row, user = notify(), notify.user
    with committed_database.transaction() as session:
        first = notifications.mark(session, user.id, row.id, read=True).read_at
    with committed_database.transaction() as session:
        assert notifications.mark(session, user.id, row.id, read=True).read_at == first
        assert notifications.unread_count(session, user.id) == 0
        assert notifications.mark(session, user.id, row.id, read=False).read_at is None
        assert notifications.unread_count(session, user.id) == 1


def test_all_are_read_at_once_and_counted(session, notify, make_user):
    other = make_user()
    notify(to=other)
    ids = [notify(f"k{n}").id for n in range(3)]
    notifications.mark(session, notify.user.id, ids[0], read=True)
    assert listed(session, notify.user, unread=True) == [ids[2], ids[1]]
    assert notifications.mark_all_read(session, notify.user.id) == 2
    assert notifications.unread_count(session, notify.user.id) == 0
    assert notifications.unread_count(session, other.id) == 1


def test_another_users_notification_is_not_there(session, notify, make_user):
    row, other = notify(), make_user()
    with pytest.raises(NotFoundError):
        notifications.mark(session, other.id, row.id, read=True)
    with pytest.raises(NotFoundError):
        notifications.delete(session, other.id, row.id)
    notifications.delete(session, notify.user.id, row.id)
    session.flush()
    assert listed(session, notify.user) == []
    with pytest.raises(NotFoundError):
        notifications.delete(session, notify.user.id, row.id)
