"""Users hear of a fact once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, update

from genonaut.core.errors import NotFoundError
from genonaut.db.models import NotificationDelivery, UserNotification
from genonaut.domain import deliveries, notifications, preference_writing
from genonaut.domain.kinds import Kind
from genonaut.domain.preferences import Preferences
from genonaut.domain.quiet import QuietHours

LATELY = timedelta(seconds=30)


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


def test_what_was_told_lately_is_found_with_the_count_of_all(session, notify, make_user):
    old, read, new = notify("old"), notify("read"), notify("new")
    notify(to=make_user())
    notifications.mark(session, notify.user.id, read.id, read=True)
    session.execute(
        update(UserNotification)
        .where(UserNotification.id == old.id)
        .values(created_at=func.now() - LATELY)
    )
    found = notifications.unread_and_recent(session, notify.user.id, within=LATELY)
    assert found == (2, {read.id: 2, new.id: 1})
    rows = notifications.recent(session, [notify.user.id], within=LATELY)
    assert {row.id: row.version for row in rows} == found[1]
    assert notifications.unread_and_recent(session, make_user().id, within=LATELY) == (0, {})


def test_a_group_is_recent_until_it_has_long_been_closed(database, session, notify):
    prefer(database, notify.user, group_window_s=600)
    lead = notify("j1")
    notify("j2")
    of_lead = update(UserNotification).where(UserNotification.id == lead.id)
    session.execute(of_lead.values(created_at=func.now() - timedelta(minutes=9)))
    for closed_for, found in ((LATELY / 2, [(lead.id, 2)]), (LATELY, [])):
        session.execute(of_lead.values(group_until=func.now() - closed_for))
        rows = notifications.recent(session, [notify.user.id], within=LATELY)
        assert [(row.id, row.version) for row in rows] == found
        assert notifications.unread_and_recent(session, notify.user.id, within=LATELY) == (
            1,
            dict(found),
        )


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


def test_a_title_is_one_line_whatever_it_was(database, make_user):
    with database.transaction() as session:
        row = notifications.notify(
            session,
            make_user().id,
            "system",
            dedupe_key="x",
            title="Ready\r\nBcc: eve@example.org\0",
            body="\0",
        )
    assert row.title == "Ready Bcc: eve@example.org\N{REPLACEMENT CHARACTER}"


def prefer(database, user, **wanted):
    with database.transaction() as session:
        preference_writing.save(
            session, user.id, Preferences(**wanted), channels=("in_app", "email", "webhook")
        )


def planned(database, user):
    query = select(NotificationDelivery).where(NotificationDelivery.user_id == user.id)
    with database.transaction() as session:
        return list(session.scalars(query.order_by(NotificationDelivery.id)))


def test_a_kind_that_is_not_wanted_in_the_application_is_kept_out_of_the_inbox(
    database, session, notify
):
    heard = []
    prefer(database, notify.user, choices={"job_completed": {"in_app": False}})
    database.sinks.append(heard.extend)
    row = notify()
    assert notify() is None
    assert row.is_hidden
    assert heard == []
    assert listed(session, notify.user) == []
    assert notifications.unread_count(session, notify.user.id) == 0
    for act in (notifications.one, notifications.delete):
        with pytest.raises(NotFoundError):
            act(session, notify.user.id, row.id)


def test_a_message_is_planned_for_each_address_in_use(database, notify, make_address):
    make_address(notify.user)
    make_address(notify.user, "webhook", "https://example.org/hook")
    make_address(notify.user, "pigeon", "roof", verified_at=None)
    make_address(address="bob@example.org")
    row = notify()
    mail, hook = planned(database, notify.user)
    assert (mail.channel, mail.lane, mail.host) == ("email", "email", "email")
    assert hook.lane == f"webhook:{hook.address_id}"
    assert {mail.notification_id, hook.notification_id} == {row.id}
    assert mail.message_id != hook.message_id
    assert (mail.status, mail.available_at) == ("pending", row.created_at)


def test_no_message_is_planned_where_the_kind_is_not_wanted(database, notify, make_address):
    make_address(notify.user)
    make_address(notify.user, "webhook", "https://example.org/hook")
    prefer(database, notify.user, choices={"job_completed": {"email": False}})
    notify()
    assert [row.channel for row in planned(database, notify.user)] == ["webhook"]


def test_in_quiet_hours_a_message_waits(database, notify, make_address):
    make_address(notify.user)
    now = datetime.now(UTC)
    begin, end = (now + timedelta(hours=hours) for hours in (-1, 1))
    quiet = QuietHours(begin.time().replace(microsecond=0), end.time().replace(microsecond=0))
    prefer(database, notify.user, quiet=quiet)
    notify()
    (row,) = planned(database, notify.user)
    assert row.available_at == end.replace(microsecond=0)


def test_who_wants_digests_gets_no_mail_at_once_but_a_webhook_does(database, notify, make_address):
    make_address(notify.user)
    make_address(notify.user, "webhook", "https://example.org/hook")
    prefer(database, notify.user, is_daily=True)
    notify()
    assert [row.channel for row in planned(database, notify.user)] == ["webhook"]


def test_jobs_of_one_window_become_one_notice_and_one_message(
    database, session, notify, make_address
):
    make_address(notify.user)
    prefer(database, notify.user, group_window_s=60)
    heard = []
    database.sinks.append(heard.extend)
    lead = notify("j1", data={"job_id": 1})
    for number in (2, 3):
        assert notify(f"j{number}", data={"job_id": number}) is not None
    assert notify("j3", data={"job_id": 3}) is None
    assert listed(session, notify.user) == [lead.id]
    shown = notifications.one(session, notify.user.id, lead.id)
    assert (shown.kind, shown.title) == ("batch_completed", "3 of your pictures are ready")
    assert shown.data == {"job_id": 1, "count": 3, "job_ids": [1, 2, 3]}
    assert notifications.unread_count(session, notify.user.id) == 1
    told = [event for event in heard if event.kind == "notification"]
    assert [(event.id, event.version) for event in told] == [(lead.id, n) for n in (1, 2, 3)]
    (row,) = planned(database, notify.user)
    assert row.available_at == lead.group_until + deliveries.GROUP_SETTLES
    notifications.delete(session, notify.user.id, lead.id)
    left = select(UserNotification.id).where(UserNotification.user_id == notify.user.id)
    assert session.scalars(left).all() == []


def test_what_fails_is_never_grouped_and_a_read_group_that_grows_is_unread(
    database, session, notify
):
    prefer(database, notify.user, group_window_s=60)
    lead = notify("j1", data={"job_id": 1})
    notifications.mark(session, notify.user.id, lead.id, read=True)
    session.flush()
    notify("j2", data={"job_id": 2})
    assert notifications.unread_count(session, notify.user.id) == 1
    with database.transaction() as other:
        failed = notifications.notify(
            other, notify.user.id, "job_failed", dedupe_key="j3", title="Failed"
        )
    assert not failed.is_hidden


def test_many_who_end_at_once_become_one_notice(committed_database, notify):
    prefer(committed_database, notify.user, group_window_s=600)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: notify(f"j{n}", data={"job_id": n}), range(16)))
    with committed_database.transaction() as session:
        (shown,) = notifications.list_for(session, notify.user.id)
    assert shown.data["count"] == 16
    assert sorted(shown.data["job_ids"]) == list(range(16))


def test_other_pages_hear_of_reading_and_of_the_count(committed_database, notify):
    row = notify()
    heard = []
    committed_database.sinks.append(heard.extend)
    with committed_database.transaction() as session:
        notifications.mark(session, notify.user.id, row.id, read=True)
    with committed_database.transaction() as session:
        notifications.mark_all_read(session, notify.user.id)
    seen, first, second = heard
    assert (seen.kind, seen.version) == ("notification", 2)
    assert (first.kind, first.row) == ("unread", {"unread": 0})
    assert second.version > first.version


def test_operators_are_told_and_users_are_not(session, make_user):
    boss, olga, _ = make_user(role="admin"), make_user(role="operator"), make_user()
    make_user(role="operator", is_active=False)
    fact = {"dedupe_key": "run:1", "title": "It failed"}
    assert notifications.tell_operators(session, Kind.RUN_FAILED, **fact) == 2
    assert notifications.tell_operators(session, Kind.RUN_FAILED, **fact) == 0
    for user in (boss, olga):
        (row,) = notifications.list_for(session, user.id, kinds=["run_failed"])
        assert row.title == "It failed"


def test_an_announcement_reaches_one_or_all(session, make_user):
    ada, bob = make_user(), make_user()
    make_user(is_active=False)
    assert notifications.announce(session, ada.username, title="Hello", body="") == 1
    assert notifications.announce(session, None, title="Hello all", body="") >= 2
    assert len(listed(session, ada)) == 2
    assert len(listed(session, bob)) == 1
    with pytest.raises(NotFoundError):
        notifications.announce(session, "nobody", title="Hello", body="")


def test_a_kind_that_nobody_is_told_unasked_is_hidden_until_it_is_chosen(session, make_user):
    ada, bob = make_user(), make_user()
    wanted = Preferences({"recommendation": {"in_app": True}})
    preference_writing.save(session, bob.id, wanted, channels=["in_app"])
    told = [
        notifications.notify(session, user.id, "recommendation", dedupe_key="k", title="Look")
        for user in (ada, bob)
    ]
    assert [row.is_hidden for row in told] == [True, False]
    assert notifications.unread_count(session, ada.id) == 0
