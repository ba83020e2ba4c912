"""What a slow socket keeps: the newest of each row, every end, and no more than fits."""

import asyncio

from genonaut.api import live
from genonaut.api.live import Mailbox
from genonaut.clients.bus import Heard
from genonaut.domain.users import Role


def heard(row_id: int, version: int, *, final: bool = False, kind: str = "job") -> Heard:
    return Heard(kind, row_id, version, final, f"{row_id}:{version}")


def taken(mailbox: Mailbox, count: int) -> list:
    async def take() -> list:
        return [await asyncio.wait_for(mailbox.take(), 1) for _ in range(count)]

    return asyncio.run(take())


def test_the_newest_version_of_a_row_replaces_the_older_one_that_waits():
    mailbox = Mailbox()
    for version in (1, 3, 2):
        mailbox.offer(heard(1, version))
    mailbox.offer(heard(2, 1))
    assert [item.text for item in taken(mailbox, 2)] == ["1:3", "2:1"]


def test_what_is_known_is_not_sent_again():
    mailbox = Mailbox()
    mailbox.offer(heard(1, 4))  # came while the snapshot was read
    mailbox.know("job", 1, 5, final=False)
    mailbox.offer(heard(1, 5))
    mailbox.offer(heard(1, 6))
    assert [item.text for item in taken(mailbox, 1)] == ["1:6"]
    assert mailbox.open_rows() == {("job", 1): 6}


def test_passing_states_give_way_and_ends_do_not():
    mailbox = Mailbox()
    for row_id in range(live._WAITING_MAX):
        mailbox.offer(heard(row_id, 1, final=row_id % 2 == 0))
    for row_id in range(1000, 1000 + live._WAITING_MAX // 2):
        mailbox.offer(heard(row_id, 1, final=True))
    assert not mailbox.overflowed
    items = taken(mailbox, live._WAITING_MAX)
    assert all(item.final for item in items)
    for row_id in range(5000, 5001 + live._WAITING_MAX):
        mailbox.offer(heard(row_id, 1, final=True))
    assert mailbox.overflowed
    assert taken(mailbox, 1) == [None]


def test_memory_is_bounded_and_open_rows_are_remembered():
    mailbox = Mailbox()
    mailbox.know("job", 1, 7, final=False)
    for row_id in range(2, 10_000):
        mailbox.know("notification", row_id, 1, final=True)
    assert len(mailbox._seen) <= live._SEEN_MAX + 1
    assert mailbox.open_rows() == {("job", 1): 7}


def test_of_preview_frames_the_newest_is_sent_after_what_happened():
    mailbox = Mailbox()
    for number in range(3):
        mailbox.offer_frame(bytes([number]))
    mailbox.offer(heard(1, 1))
    assert [getattr(item, "text", item) for item in taken(mailbox, 2)] == ["1:1", b"\x02"]


def test_rows_of_each_kind_are_told_apart_and_an_ended_one_is_let_go():
    mailbox = Mailbox()
    mailbox.know("job", 1, 5, final=False)
    mailbox.offer(heard(1, 2, kind="run"))
    assert mailbox.open_rows() == {("job", 1): 5, ("run", 1): 2}
    mailbox.offer(heard(1, 3, kind="run", final=True))
    assert [item.text for item in taken(mailbox, 1)] == ["1:3"]
    assert mailbox.open_rows() == {("job", 1): 5}


def test_nothing_is_let_out_to_a_login_that_ended_or_lost_its_role():
    for role, logged_out, demoted in (
        (None, True, False), (Role.USER, False, True), (Role.AUDITOR, False, False),
        (Role.ADMIN, False, False),
    ):  # fmt: skip
        mailbox = Mailbox(role=Role.AUDITOR)
        mailbox.offer(heard(1, 1, kind="run"))
        mailbox.check(role)
        assert (mailbox.logged_out, mailbox.demoted) == (logged_out, demoted)
        assert (taken(mailbox, 1) == [None]) is (logged_out or demoted)
