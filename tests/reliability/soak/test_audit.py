"""The checks of a soak find what is lost, doubled or left over; sound books pass them all."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from genonaut.db.models import (
    AbandonedPrompt,
    ContentImage,
    ContentItem,
    GenerationJob,
    JobAttempt,
    Schedule,
    TaskRun,
    UserNotification,
)
from tests.reliability.soak import audit
from tests.reliability.soak.books import Books, Drawn, File
from tests.reliability.soak.desk import Asked, Order
from tests.reliability.soak.plan import Act

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
DONE, CANCELLED, DOOMED = 1, 2, 3
ITEM = 70
PICTURES = ("aa" * 32, "bb" * 32)
THUMBNAIL = "cc" * 32
STRAY, HALF = "dd" * 32, "ee" * 32


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def key(digest: str) -> str:
    return f"{digest[:2]}/{digest[2:4]}/{digest}.png"


def job(job_id: int, status: str, **columns) -> GenerationJob:
    values = {"attempt": 1, "max_attempts": 20, "batch_size": 1, "content_id": None, **columns}
    return GenerationJob(id=job_id, status=status, **values)


def attempt(job_id: int, outcome: str | None, prompt_id: str = "p") -> JobAttempt:
    return JobAttempt(job_id=job_id, outcome=outcome, prompt_id=prompt_id, started_at=at(1))


def notice(job_id: int, kind: str) -> UserNotification:
    return UserNotification(kind=kind, data={"job_id": job_id})


def run(run_id: int, **columns) -> TaskRun:
    values = {
        "task": "toys.wait",
        "status": "completed",
        "params": {},
        "schedule": None,
        "overlap_key": "",
        "attempt": 1,
        "max_attempts": 4,
        "started_at": at(run_id),
        "completed_at": at(run_id + 0.5),
        **columns,
    }
    return TaskRun(id=run_id, **values)


def tick(run_id: int, due_s: float, *covers_s: float, **columns) -> TaskRun:
    covers = [at(second).isoformat() for second in covers_s]
    return run(run_id, schedule="tick", due_at=at(due_s), covers=covers, **columns)


def order(number: int, verb: str, row_id: int | None, **values) -> Order:
    doomed = values.pop("is_doomed", False)
    act = Act(0, verb, "ada", number=number, is_doomed=doomed)
    return Order(act, row_id, **values)


def image(position: int, **columns) -> ContentImage:
    digest = PICTURES[position]
    values = {"storage_key": key(digest), "sha256": digest, "bytes": 9, "thumbnails": {}, **columns}
    return ContentImage(content_id=ITEM, position=position, **values)


def file(digest: str, path: str | None = None) -> File:
    return File(path or key(digest), digest, 9, at(5))


@pytest.fixture
def books() -> Books:
    """What a soak leaves in which all went well, though workers were lost."""
    orders = [
        order(1, "submit_job", DONE),
        order(2, "submit_job", CANCELLED, is_cancelled=True),
        order(3, "retry_job", DOOMED, is_doomed=True),
        order(4, "start_run", 1),
        order(5, "start_run", 2),
        order(6, "start_run", 1),  # the same run stands for it
        order(8, "start_run", 6),
        order(7, "start_run", None),  # refused beside another
    ]
    return Books(
        asked=Asked(
            orders={each.act.number: each for each in orders},
            first_due={"tick": at(0).isoformat()},
            answers=Counter({"202": 6, "503": 4, "ReadError": 1}),
        ),
        jobs=[
            job(DONE, "completed", content_id=ITEM, batch_size=2, attempt=2),
            job(CANCELLED, "cancelled"),
            job(DOOMED, "failed", error_code="invalid_workflow"),
        ],
        attempts=[
            attempt(DONE, "worker_lost"),
            attempt(DONE, "completed"),
            attempt(CANCELLED, "cancelled", "stray"),
            attempt(DOOMED, "failed"),
        ],
        items=[ContentItem(id=ITEM)],
        images=[image(0, thumbnails={"256": {"key": key(THUMBNAIL)}}), image(1)],
        notices=[
            notice(DONE, "job_completed"),
            UserNotification(kind="run_failed", title="failed", data={"run_id": 6}),
            UserNotification(kind="schedule_late", title="late", data={"schedule": "tick"}),
            notice(CANCELLED, "job_cancelled"),
            notice(DOOMED, "job_failed"),
        ],
        runs=[
            run(1, params={"upto": 3, "diary": "4.diary"}, attempt=2, result={"counted": 3}),
            run(2),
            tick(3, 0),
            tick(4, 3, 1, 2),
            tick(5, 4, status="skipped", reason="run 4 was still running", overlap_key=None),
            run(6, status="failed", error_code="worker_lost", attempt=4),
        ],
        schedules=[Schedule(name="tick", every_s=1, last_due_at=at(4))],
        diaries={"4.diary": [1, 2, 2, 3]},
        files=[
            *map(file, (*PICTURES, THUMBNAIL, STRAY)),
            file("0" * 64, f".tmp/{HALF}.0123456789abcdef"),
        ],
        drawn={STRAY: {Drawn(CANCELLED, "stray")}, HALF: {Drawn(DONE, "p")}},
        prefix="ns:",
        keys={5: ["ns:epoch", "ns:redbeat:tick"]},
    )


def test_sound_books_pass_every_check(books):
    assert {name: found for name, found in audit.audit(books).items() if found} == {}


def _replace_file(books: Books, path: str, **values) -> None:
    books.files = [replace(each, **values) if each.path == path else each for each in books.files]


def _without(rows: list, row_id: int) -> list:
    return [row for row in rows if row.id != row_id]


def _lose_job(books):
    books.jobs = _without(books.jobs, CANCELLED)


def _double_job(books):
    books.jobs.append(job(9, "completed"))


def _give_one_job_twice(books):
    books.asked.orders[8] = order(8, "submit_job", DONE)


def _lose_run(books):
    books.runs = _without(books.runs, 2)


def _double_run(books):
    books.runs.append(run(9, overlap_key=None))


def _complain(books):
    books.asked.complaints.append("submit_job 1: TimeoutError: not answered within 120 s")


def _fail_inside(books):
    books.asked.answers["500"] += 1


def _complete_cancelled(books):
    books.jobs[1].status = "completed"


def _fail_job(books):
    books.jobs[0].status = "failed"


def _double_item(books):
    books.items.append(ContentItem(id=71))


def _lose_item(books):
    books.items.clear()


def _item_of_cancelled(books):
    books.jobs[1].content_id = ITEM


def _lose_picture(books):
    books.images.pop()


def _double_picture(books):
    books.images.append(image(1))


def _lose_notice(books):
    books.notices.pop()


def _double_notice(books):
    books.notices.append(notice(DONE, "job_completed"))


def _wrong_notice(books):
    books.notices[0].kind = "job_failed"


def _notice_of_nobody(books):
    books.notices.append(notice(99, "job_failed"))


def _forget_failed_run(books):
    books.notices.pop(1)


def _tell_of_run_twice(books):
    books.notices.append(books.notices[1])


def _tell_of_run_that_did_well(books):
    books.notices[1].data["run_id"] = 2


def _open_attempt(books):
    books.attempts.append(attempt(CANCELLED, None))


def _complete_twice(books):
    books.attempts.append(attempt(DONE, "completed"))


def _too_many_attempts(books):
    books.jobs[0].attempt = 21


def _still_drawing(books):
    books.at_comfyui.append("p9")


def _never_removed(books):
    books.abandoned.append(AbandonedPrompt(prompt_id="p9"))


def _lose_file(books):
    books.files = [each for each in books.files if each.path != key(THUMBNAIL)]


def _halve_file(books):
    _replace_file(books, key(PICTURES[0]), size=4, sha256="f" * 64)


def _wrong_size(books):
    _replace_file(books, key(PICTURES[0]), size=4)


def _halve_stray(books):
    _replace_file(books, key(STRAY), sha256="f" * 64)


def _stray_of_nobody(books):
    books.files.append(file("12" * 32))


def _stray_of_completed(books):
    books.drawn[STRAY] = {Drawn(DONE, "other")}


def _stray_before_its_attempt(books):
    _replace_file(books, key(STRAY), modified_at=at(0))


def _half_file_of_nobody(books):
    books.drawn.pop(HALF)


def _fail_run(books):
    books.runs[0].status, books.runs[0].error_code = "failed", "internal_error"


def _fail_run_too_early(books):
    books.runs[0].status, books.runs[0].error_code = "failed", "worker_lost"


def _complete_cancelled_run(books):
    books.asked.orders[4].is_cancelled = True


def _cancel_run_unasked(books):
    books.runs[1].status = "cancelled"


def _skip_without_reason(books):
    books.runs[4].reason = None


def _miss_a_number(books):
    books.diaries["4.diary"] = [1, 3]


def _count_too_often(books):
    books.diaries["4.diary"] = [1, 1, 2, 2, 3]


def _wrong_result(books):
    books.runs[0].result = {"counted": 2}


def _overlap(books):
    books.runs[0].completed_at = at(2.2)


def _unfinished_job(books):
    books.jobs[0].status = "running"


def _unfinished_run(books):
    books.runs[0].status = "pending"


def _lose_due_time(books):
    books.runs[3].covers = [at(1).isoformat()]


def _double_due_time(books):
    books.runs.append(tick(9, 1, overlap_key=None))


def _wrong_due_time(books):
    books.runs.append(tick(9, 1.5, overlap_key=None))


def _disable(books):
    books.schedules[0].disabled_reason = "broken"


def _stray_key(books):
    books.keys[5].append("celery")


def _key_elsewhere(books):
    books.keys[0] = ["unacked"]


def _leak(books):
    books.surprises.append("tasks-1: 2 processes outlive their parent 12")


PLANTED: dict[Callable[[Books], None], tuple[audit.Check, str]] = {
    _complain: (audit.answered, "not answered"),
    _fail_inside: (audit.answered, "the API answered 500"),
    _lose_job: (audit.jobs_are_those_asked_for, "job 2 is lost"),
    _double_job: (audit.jobs_are_those_asked_for, "nobody asked for job 9"),
    _give_one_job_twice: (audit.jobs_are_those_asked_for, "job 1 was given 2 times"),
    _lose_run: (audit.runs_are_those_asked_for, "run 2 is lost"),
    _double_run: (audit.runs_are_those_asked_for, "nobody asked for run 9"),
    _complete_cancelled: (audit.jobs_ended, "job 2 is completed, not cancelled"),
    _fail_job: (audit.jobs_ended, "job 1 is failed, not completed"),
    _double_item: (audit.items_match, "item 71 belongs to 0 jobs"),
    _lose_item: (audit.items_match, "item 70 is gone"),
    _item_of_cancelled: (audit.items_match, "job 2 is cancelled and has item 70"),
    _lose_picture: (audit.items_match, "job 1 has the pictures [0], not 2"),
    _double_picture: (audit.items_match, "job 1 has the pictures [0, 1, 1], not 2"),
    _lose_notice: (audit.notices_match, "job 3 is failed, and its owner was told []"),
    _double_notice: (audit.notices_match, "['job_completed', 'job_completed']"),
    _wrong_notice: (audit.notices_match, "['job_failed']"),
    _notice_of_nobody: (audit.notices_match, "about 99"),
    _forget_failed_run: (audit.failed_runs_are_told_of, "run 6 is failed, and the operator was"),
    _tell_of_run_twice: (audit.failed_runs_are_told_of, "told 2 times"),
    _tell_of_run_that_did_well: (audit.failed_runs_are_told_of, "run 2 is completed, and"),
    _open_attempt: (audit.attempts_closed, "job 2 is cancelled and has an attempt at work"),
    _complete_twice: (audit.attempts_closed, "job 1 is completed; its attempts"),
    _too_many_attempts: (audit.attempts_closed, "21 attempts of 20"),
    _still_drawing: (audit.comfyui_is_idle, "p9 is at ComfyUI still"),
    _never_removed: (audit.comfyui_is_idle, "p9 was never removed"),
    _lose_file: (audit.files_are_whole, "named by a row and not there"),
    _halve_file: (audit.files_are_whole, "does not hold what its name says"),
    _wrong_size: (audit.files_are_whole, "is not what its row says"),
    _halve_stray: (audit.files_are_whole, "does not hold what its name says"),
    _stray_of_nobody: (audit.strays_are_explained, "is nobody's"),
    _stray_of_completed: (audit.strays_are_explained, "is nobody's"),
    _stray_before_its_attempt: (audit.strays_are_explained, "is nobody's"),
    _half_file_of_nobody: (audit.strays_are_explained, "is nobody's"),
    _fail_run: (audit.runs_ended, "run 1 of toys.wait is failed"),
    _fail_run_too_early: (audit.runs_ended, "run 1 of toys.wait is failed"),
    _complete_cancelled_run: (audit.runs_ended, "run 1 of toys.wait is completed"),
    _cancel_run_unasked: (audit.runs_ended, "run 2 of toys.wait is cancelled"),
    _skip_without_reason: (audit.runs_ended, "run 5 of toys.wait is skipped"),
    _miss_a_number: (audit.work_is_done_once, "counted [1, 3], not up to 3"),
    _count_too_often: (audit.work_is_done_once, "2 numbers counted again in 2 attempts"),
    _wrong_result: (audit.work_is_done_once, "run 1 gave {'counted': 2}, not 3"),
    _overlap: (audit.runs_did_not_overlap, "runs 1 and 2 of toys.wait ran at once"),
    _unfinished_job: (audit.nothing_is_unfinished, "job 1 is running"),
    _unfinished_run: (audit.nothing_is_unfinished, "run 1 is pending"),
    _lose_due_time: (audit.due_times_are_accounted_for, "nothing is known of 12:00:02"),
    _double_due_time: (audit.due_times_are_accounted_for, "12:00:01 has 2 runs"),
    _wrong_due_time: (audit.due_times_are_accounted_for, "was not due at 12:00:01.5"),
    _disable: (audit.due_times_are_accounted_for, "tick never ran: broken"),
    _stray_key: (audit.keys_are_ours, "db 5: celery"),
    _key_elsewhere: (audit.keys_are_ours, "db 0: unacked"),
    _leak: (audit.programs_behaved, "outlive their parent"),
}


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__.strip("_"))
def test_what_is_planted_is_found(books, plant):
    check, words = PLANTED[plant]
    plant(books)
    assert any(words in line for line in check(books))


def test_something_is_planted_for_every_check():
    assert {check for check, _ in PLANTED.values()} == set(audit.CHECKS.values())
