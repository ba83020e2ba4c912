"""Messages are planned once, wake their lane, and are sent again on demand under the same id."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, text
from sqlalchemy.exc import OperationalError

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.domain import addresses, deliveries, lanes
from genonaut.domain.deliveries import DELIVERIES, Wanted
from genonaut.domain.lifecycle import Status
from genonaut.local import processes
from genonaut.worker.dispatch import OUTBOXES


def due(session) -> list[int]:
    found = OUTBOXES["delivery"].unpublished(session, "epoch", settle_s=0, limit=100)
    assert {message.task for message in found} <= {"notifications.deliver"}
    assert {message.queue for message in found} <= {"notifications"}
    return [message.row_id for message in found]


def test_one_message_at_the_broker_stands_for_a_lane(session, make_address, make_delivery):
    mail, other = make_address(), make_address(address="bob@example.org")
    hook = make_address(channel="webhook")
    first, *_ = [make_delivery(mail), make_delivery(other), make_delivery(mail)]
    hooked, _ = make_delivery(hook), make_delivery(hook)
    assert due(session) == [first.id, hooked.id]


def test_what_is_not_due_does_not_stand_for_its_lane(session, make_address, make_delivery):
    mail = make_address()
    later = func.now() + func.make_interval(0, 0, 0, 0, 1)
    make_delivery(mail, available_at=later)
    second = make_delivery(mail)
    assert due(session) == [second.id]


def test_a_lane_that_has_its_holders_is_left_to_them(session, make_address, make_delivery):
    mail, hook = make_address(), make_address(channel="webhook")
    rows = [make_delivery(mail) for _ in range(3)]
    hooked = [make_delivery(hook) for _ in range(2)]
    for row in (rows[0], hooked[0]):
        lanes.claim_lane(session, row.id, worker="w", lease_s=30, limit=1)
    assert due(session) == [rows[1].id], "mail may have another holder"
    lanes.claim_lane(session, rows[1].id, worker="w", lease_s=30, limit=1)
    assert due(session) == []


def test_a_subject_is_planned_once_per_address(session, make_address):
    address, other = make_address(), make_address()
    rows = [deliveries.values(to, subject="s") for to in (address, address, other)]
    assert len(deliveries.store(session, rows)) == 2
    assert deliveries.store(session, rows) == []
    assert deliveries.store(session, []) == []


def test_a_message_to_an_address_that_is_gone_by_now_undoes_nothing(session, make_address):
    here, gone = make_address(), make_address(channel="webhook", address="https://example.org/")
    rows = [deliveries.values(one, subject="x") for one in (here, gone)]
    session.delete(session.get_one(type(gone), gone.id))
    session.flush()
    assert [made.address_id for made in deliveries.store(session, rows)] == [here.id]
    assert deliveries.store(session, rows[1:]) == []


def test_an_event_for_the_dispatcher_and_for_no_socket(database, make_delivery):
    heard = []
    database.sinks.append(heard.extend)
    row = make_delivery()
    (event,) = [one for one in heard if one.kind == "delivery"]
    assert (event.id, event.topics, event.row["status"]) == (row.id, (), "pending")


def test_only_the_owner_finds_a_message(session, make_delivery, make_user):
    row = make_delivery()
    assert deliveries.one(session, row.id, user_id=row.user_id).id == row.id
    found = deliveries.of_notification(session, row.user_id, row.notification_id)
    assert [one.id for one in found] == [row.id]
    with pytest.raises(NotFoundError):
        deliveries.one(session, row.id, user_id=make_user().id)
    with pytest.raises(NotFoundError):
        deliveries.of_notification(session, make_user().id, row.notification_id)


def test_messages_are_listed_newest_first_and_filtered(session, make_address, make_delivery):
    mail, hook = make_address(), make_address(channel="webhook")
    rows = [make_delivery(mail), make_delivery(hook), make_delivery(mail)]
    ids = [row.id for row in rows]

    def listed(before=None, **wanted) -> list[int]:
        found = deliveries.list_all(session, Wanted(**wanted), before=before)
        return [row.id for row in found if row.id in ids]

    assert listed() == ids[::-1]
    assert listed(channel="webhook") == [ids[1]]
    assert listed(user_id=mail.user_id, before=ids[2]) == [ids[0]]
    assert listed(notification_id=rows[1].notification_id) == [ids[1]]
    assert listed(statuses=["failed"]) == []


def test_one_that_ended_is_sent_again_under_the_same_id(session, make_delivery):
    row = make_delivery()
    with pytest.raises(ConflictError):
        deliveries.redeliver(session, row.id)
    DELIVERIES.move(session, row.id, Status.FAILED, error_code="refused")
    again = deliveries.redeliver(session, row.id)
    assert (again.message_id, again.retry_of) == (row.message_id, row.id)
    assert again.celery_task_id != row.celery_task_id
    DELIVERIES.move(session, again.id, Status.CANCELLED)
    third = deliveries.redeliver(session, again.id)
    assert (third.message_id, third.retry_of) == (row.message_id, again.id)


def test_one_is_sent_again_also_when_some_before_it_are_past_their_age(session, make_delivery):
    row = make_delivery()
    DELIVERIES.move(session, row.id, Status.FAILED, error_code="refused")
    sent = []
    for _ in range(11):
        again = deliveries.redeliver(session, row.id)
        sent.append(again)
        DELIVERIES.move(session, again.id, Status.CANCELLED)
        if len(sent) == 2:
            session.delete(sent[0])
    numbers = [again.subject.partition("#")[2] for again in sent]
    assert numbers == [str(n) for n in range(2, 13)]


def test_what_is_sent_again_is_not_removed_meanwhile(committed_database, make_delivery):
    row = make_delivery(status="completed", completed_at=func.now())
    with committed_database.transaction() as session, committed_database.transaction() as other:
        other.execute(text("SET LOCAL lock_timeout = '100ms'"))
        deliveries.one(session, row.id, stays=True)
        with pytest.raises(OperationalError):
            other.execute(text("DELETE FROM notification_deliveries"))
        other.rollback()


def test_nothing_is_sent_again_to_an_address_that_rests_or_is_gone(
    session, make_address, make_delivery
):
    address = make_address()
    row = make_delivery(address)
    addresses.disable(session, session.get_one(type(address), address.id), why="enough")
    with pytest.raises(ConflictError) as resting:
        deliveries.redeliver(session, row.id)
    addresses.remove(session, address.user_id, "email")
    session.expire_all()
    with pytest.raises(ConflictError) as gone:
        deliveries.redeliver(session, row.id)
    assert (resting.value.code, gone.value.code) == ("address_not_in_use", "address_gone")


def test_what_waits_is_cancelled_with_a_reason(session, make_address, make_delivery, reload):
    address = make_address()
    row = make_delivery(address)
    assert deliveries.cancel_pending(session, address.id, code="why_not", why="so") == 1
    session.expire_all()
    ended = deliveries.one(session, row.id)
    assert (ended.status, ended.error_code, ended.error_message) == ("cancelled", "why_not", "so")


def test_what_is_claimed_at_that_moment_is_left_to_its_worker(
    committed_database, make_address, make_delivery, reload
):
    address = make_address()
    row = make_delivery(address)

    def cancel() -> int:
        with committed_database.transaction() as session:
            return deliveries.cancel_pending(session, address.id, code="why_not", why="so")

    with ThreadPoolExecutor(1) as pool:
        with committed_database.transaction() as session:
            assert lanes.claim_lane(session, row.id, worker="w", lease_s=30, limit=20)
            cancelling = pool.submit(cancel)
            waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            assert processes.wait_until(lambda: session.scalar(waiting) > 0, 10)
        assert cancelling.result(10) == 0
    assert reload(row).status == "running"
