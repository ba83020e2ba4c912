"""An outage that PostgreSQL does not tell of is noticed, in every process of a worker."""

import os

import pytest

from genonaut.worker.contact import Contact, fresh

HOUR = 3600.0


@pytest.mark.parametrize(
    ("seen_at", "settling"),
    [
        ([0, 5, 10, 15], False),
        ([0, 5, 21], True),
        ([0, 5, 21, 25, 50], True),
        ([0, 5, 21, 25, 30, 35, 40, 45, 51], False),
        ([100], False),  # it has just started: who held rows before may be long gone
    ],
)
def test_a_gap_in_the_contact_with_postgres_is_an_outage_also_for_the_others(seen_at, settling):
    contact = Contact(lost_after_s=15, grace_s=30)
    assert [contact.note(now, HOUR + now) for now in seen_at][-1] == settling


@pytest.mark.parametrize(
    ("seen", "settling"),
    [
        ([(0, 0), (5, 600)], True),  # the machine slept, or somebody set the clock
        ([(0, 0), (5, 600), (30, 625)], True),
        ([(0, 0), (5, 600), (15, 610), (25, 620), (35, 630)], False),
        ([(0, 600), (5, 0), (10, 5)], False),  # set back: every lease only looks younger
        ([(n, 1.5 * n) for n in range(0, 100, 5)], False),  # a clock that is set slowly
        ([(0, 0), (5, 19)], False),
    ],
)
def test_a_jump_of_the_databases_clock_is_an_outage(seen, settling):
    contact = Contact(lost_after_s=15, grace_s=30)
    assert [contact.note(now, HOUR + clock) for now, clock in seen][-1] == settling


def test_an_outage_may_be_older_than_the_worker():
    contact = Contact(lost_after_s=15, grace_s=30)
    contact.missed()
    seen = [contact.note(now, HOUR + now) for now in (5, 15, 25, 34, 36)]
    assert seen == [True, True, True, True, False]
    contact.missed()  # a moment's absence of one that has had contact is no outage
    assert not contact.note(40, HOUR + 40)


def test_a_silence_before_the_first_answer_is_an_outage():
    slow, quick, failed = (Contact(lost_after_s=15, grace_s=30) for _ in range(3))
    for contact in (slow, quick, failed):
        contact.asks(0)
    assert slow.note(20, HOUR + 20)
    assert not quick.note(5, HOUR + 5)
    failed.missed()
    assert failed.note(5, HOUR + 5)
    quick.asks(30)  # it has answered before
    assert quick.is_settling(25, HOUR + 25)


def test_waiting_for_others_is_no_silence():
    contact = Contact(lost_after_s=15, grace_s=30)
    contact.elsewhere(60)
    assert not contact.note(0, HOUR)
    contact.elsewhere(60)
    assert not contact.is_settling(70, HOUR + 70)
    assert contact.is_settling(80, HOUR + 80)


def test_a_look_notes_nothing():
    contact = Contact(lost_after_s=15, grace_s=30)
    contact.note(0, 0)
    assert [contact.is_settling(now, now) for now in (10, 20, 10)] == [False, True, False]
    assert contact.is_settling(5, 100)
    assert not contact.is_settling(5, 5)


def test_a_forked_process_sees_what_is_noted_after_the_fork():
    memory = fresh()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.read(read, 1)
        seen = Contact(lost_after_s=15, grace_s=30, memory=memory).is_settling(21, 21)
        os._exit(0 if seen else 1)
    contact = Contact(lost_after_s=15, grace_s=30, memory=memory)
    contact.note(0, 0)
    contact.note(20, 20)
    os.write(write, b"x")
    for end in (read, write):
        os.close(end)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
