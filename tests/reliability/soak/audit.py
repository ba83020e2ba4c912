"""Judge the books: nothing lost, nothing doubled, nothing left over.

Each check is a function that gives what it finds wrong, a line each.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise

from genonaut.db.models import GenerationJob, Schedule, TaskRun
from genonaut.domain.kinds import Kind
from genonaut.domain.lifecycle import FINAL, UNFINISHED, Status
from tests.reliability.soak.books import TEMP, Books, File
from tests.reliability.soak.desk import Order

Check = Callable[[Books], Iterable[str]]

CHECKS: dict[str, Check] = {}
"""By what each of them promises."""

MAY_FAIL_RUNS = {"worker_lost", "database_unavailable"}
"""Why a run of a task that makes no mistakes may fail: its attempts were used up by others."""


def check(promise: str) -> Callable[[Check], Check]:
    """Make a function a check."""

    def register(function: Check) -> Check:
        CHECKS[promise] = function
        return function

    return register


def audit(books: Books) -> dict[str, list[str]]:
    """Make every check; give what each found wrong."""
    return {promise: list(function(books)) for promise, function in CHECKS.items()}


# --- what was asked for ---------------------------------------------------------------------


@check("every request was answered, and a repeated one as before")
def answered(books: Books) -> Iterator[str]:
    yield from books.asked.complaints
    counted = Counter(answer for answer in books.asked.answers if answer.startswith("5"))
    yield from (f"the API answered {answer}" for answer in counted if answer != "503")


@check("every job asked for is there once, and no other")
def jobs_are_those_asked_for(books: Books) -> Iterator[str]:
    yield from _compare("job", books.asked.of("job"), [job.id for job in books.jobs])


@check("every run asked for is there, and no other")
def runs_are_those_asked_for(books: Books) -> Iterator[str]:
    ids = [run.id for run in books.runs if run.schedule is None]
    yield from _compare("run", books.asked.of("run"), ids, shared=True)


def _compare(
    what: str, orders: list[Order], ids: list[int], *, shared: bool = False
) -> Iterator[str]:
    known = Counter(order.row_id for order in orders)
    yield from (f"{what} {row_id} is lost" for row_id in known if row_id not in ids)
    yield from (f"nobody asked for {what} {row_id}" for row_id in ids if row_id not in known)
    if not shared:
        yield from (f"{what} {row_id} was given {n} times" for row_id, n in known.items() if n > 1)


# --- jobs -----------------------------------------------------------------------------------


@check("every job ended as it had to: done, refused or cancelled")
def jobs_ended(books: Books) -> Iterator[str]:
    orders = {order.row_id: order for order in books.asked.of("job")}
    for job in books.jobs:
        order = orders.get(job.id)
        if order is None:
            continue
        expected = Status.FAILED if order.act.is_doomed else Status.COMPLETED
        expected = Status.CANCELLED if order.is_cancelled else expected
        if job.status != expected:
            yield f"job {job.id} is {job.status}, not {expected}{_why(job)}"


@check("one content item, with all its pictures, for each completed job and no other")
def items_match(books: Books) -> Iterator[str]:
    by_item = Counter(job.content_id for job in books.jobs if job.content_id is not None)
    positions = defaultdict(list)
    for image in books.images:
        positions[image.content_id].append(image.position)
    for job in books.jobs:
        if job.status == Status.COMPLETED and job.content_id is None:
            yield f"job {job.id} is completed without an item"
        elif job.status != Status.COMPLETED and job.content_id is not None:
            yield f"job {job.id} is {job.status} and has item {job.content_id}"
        elif job.content_id is not None:
            found = sorted(positions[job.content_id])
            if found != list(range(job.batch_size)):
                yield f"job {job.id} has the pictures {found}, not {job.batch_size}"
    for item in books.items:
        if by_item[item.id] != 1:
            yield f"item {item.id} belongs to {by_item[item.id]} jobs"
    ids = {item.id for item in books.items}
    yield from (f"item {item_id} is gone" for item_id in by_item if item_id not in ids)


@check("one notification for each job's end, that says how it ended")
def notices_match(books: Books) -> Iterator[str]:
    told = defaultdict(list)
    of_jobs = [notice for notice in books.notices if notice.data.get("job_id") is not None]
    for notice in of_jobs:
        told[notice.data["job_id"]].append(notice.kind)
    for job in books.jobs:
        expected = [f"job_{job.status}"] if job.status in FINAL else []
        found = told.pop(job.id, [])
        if found != expected:
            yield f"job {job.id} is {job.status}, and its owner was told {found}"
    for notice in of_jobs:
        if (about := notice.data["job_id"]) in told:
            yield f"somebody was told {notice.kind} about {about}: {notice.title}"


@check("the operator was told once of each run that failed, and of no other")
def failed_runs_are_told_of(books: Books) -> Iterator[str]:
    told = Counter(
        notice.data["run_id"] for notice in books.notices if notice.kind == Kind.RUN_FAILED
    )
    for run in books.runs:
        times = told.pop(run.id, 0)
        if times != (run.status == Status.FAILED):
            yield f"run {run.id} is {run.status}, and the operator was told {times} times"
    yield from (f"the operator was told of run {run_id}, which is not there" for run_id in told)


@check("every attempt is closed, and the one that completed a job was the only one to do so")
def attempts_closed(books: Books) -> Iterator[str]:
    outcomes = defaultdict(list)
    for attempt in books.attempts:
        outcomes[attempt.job_id].append(attempt.outcome)
    for job in books.jobs:
        found = outcomes[job.id]
        if None in found:
            yield f"job {job.id} is {job.status} and has an attempt at work"
        if found.count("completed") != (job.status == Status.COMPLETED):
            yield f"job {job.id} is {job.status}; its attempts: {found}"
        if job.attempt > job.max_attempts:
            yield f"job {job.id} had {job.attempt} attempts of {job.max_attempts}"


@check("ComfyUI draws nothing that nobody waits for")
def comfyui_is_idle(books: Books) -> Iterator[str]:
    yield from (f"prompt {prompt_id} is at ComfyUI still" for prompt_id in books.at_comfyui)
    yield from (f"prompt {each.prompt_id} was never removed" for each in books.abandoned)


# --- files ----------------------------------------------------------------------------------


@check("every picture and thumbnail a row names is stored whole")
def files_are_whole(books: Books) -> Iterator[str]:
    stored = {file.path: file for file in books.files}
    for key in books.named_files():
        if key not in stored:
            yield f"{key} is named by a row and not there"
    for image in books.images:
        file = stored.get(image.storage_key)
        if file is not None and (file.sha256, file.size) != (image.sha256, image.bytes):
            yield f"{file.path} is not what its row says"
    for file in books.files:
        if not is_temp(file) and _digest_of(file) != file.sha256:
            yield f"{file.path} does not hold what its name says"


@check("a file that no row names was left by an attempt that did not complete its job")
def strays_are_explained(books: Books) -> Iterator[str]:
    yield from (f"{file.path} is nobody's" for file in books.stray_files() if not _of(books, file))


def is_temp(file: File) -> bool:
    """Whether a file is one that was being written."""
    return file.path.startswith(f"{TEMP}/")


def _digest_of(file: File) -> str:
    return file.path.rpartition("/")[2].partition(".")[0]


def _of(books: Books, file: File) -> bool:
    """Whether an attempt that ended otherwise was there to put the file.

    Attempts store pictures before they name them in a row, so one that is killed, cancelled or
    fenced in between leaves its files, under the hash of their bytes, to be swept later. A file
    that is being written lies in a folder of its own under the same hash.
    """
    for drawn in books.drawn.get(_digest_of(file), ()):
        for attempt in books.attempts_of(drawn.job_id):
            had_it = attempt.prompt_id == drawn.prompt_id or is_temp(file)
            if had_it and attempt.outcome != "completed" and attempt.started_at <= file.modified_at:
                return True
    return False


# --- runs -----------------------------------------------------------------------------------


@check("every run ended as it had to")
def runs_ended(books: Books) -> Iterator[str]:
    cancelled = {order.row_id for order in books.asked.of("run") if order.is_cancelled}
    for run in books.runs:
        if run.id in cancelled:
            is_right = run.status == Status.CANCELLED
        elif run.status == Status.FAILED:
            is_right = run.error_code in MAY_FAIL_RUNS and run.attempt == run.max_attempts
        elif run.status == Status.SKIPPED:
            is_right = run.schedule is not None and bool(run.reason)
        else:
            is_right = run.status == Status.COMPLETED
        if not is_right:
            yield f"run {run.id} of {run.task} is {run.status}{_why(run)}"


@check("every run did all its work, and again only what an attempt left unfinished")
def work_is_done_once(books: Books) -> Iterator[str]:
    chains = defaultdict(list)
    for run in books.runs:
        if run.params.get("diary"):
            chains[run.params["diary"]].append(run)
    for diary, runs in chains.items():
        counted = books.diaries.get(diary, [])
        upto = runs[0].params["upto"]
        repeated = len(counted) - len(set(counted))
        attempts = sum(run.attempt for run in runs)
        if any(run.status == Status.COMPLETED for run in runs) and set(counted) != set(
            range(1, upto + 1)
        ):
            yield f"{diary}: counted {sorted(set(counted))}, not up to {upto}"
        if repeated > max(0, attempts - 1):
            yield f"{diary}: {repeated} numbers counted again in {attempts} attempts"
    for run in books.runs:
        upto = run.params.get("upto")
        if run.status == Status.COMPLETED and upto and run.result != {"counted": upto}:
            yield f"run {run.id} gave {run.result}, not {upto}"


@check("runs that must not overlap did not")
def runs_did_not_overlap(books: Books) -> Iterator[str]:
    by_key = defaultdict(list)
    for run in books.runs:
        if run.overlap_key is not None and run.started_at and run.completed_at:
            by_key[run.task, run.overlap_key].append(run)
    for runs in by_key.values():
        for one, two in pairwise(sorted(runs, key=lambda run: run.started_at or run.created_at)):
            assert one.completed_at
            assert two.started_at
            if two.started_at < one.completed_at:
                yield f"runs {one.id} and {two.id} of {one.task} ran at once"


@check("nothing is unfinished")
def nothing_is_unfinished(books: Books) -> Iterator[str]:
    for what, rows in (("job", books.jobs), ("run", books.runs)):
        yield from (f"{what} {row.id} is {row.status}" for row in rows if row.status in UNFINISHED)


# --- schedules ------------------------------------------------------------------------------


@check("every due time of every schedule has one run, or is covered by one")
def due_times_are_accounted_for(books: Books) -> Iterator[str]:
    for schedule in books.schedules:
        first = books.asked.first_due.get(schedule.name)
        if first is not None:
            yield from _account(schedule, datetime.fromisoformat(first), books.runs)


def _account(schedule: Schedule, first: datetime, runs: list[TaskRun]) -> Iterator[str]:
    found: Counter[datetime] = Counter()
    for run in runs:
        if run.schedule == schedule.name and run.due_at is not None:
            found[run.due_at] += 1
            found.update(map(datetime.fromisoformat, run.covers or ()))
    if schedule.last_due_at is None or schedule.every_s is None or schedule.disabled_reason:
        yield f"{schedule.name} never ran: {schedule.disabled_reason}"
        return
    every = timedelta(seconds=schedule.every_s)
    count = (schedule.last_due_at - first) // every + 1
    expected = {first + n * every for n in range(count)}
    for moment in sorted(expected - found.keys()):
        yield f"{schedule.name}: nothing is known of {moment:%H:%M:%S}"
    for moment in sorted(found.keys() - expected):
        yield f"{schedule.name}: it was not due at {moment:%H:%M:%S.%f}"
    for moment, times in found.items():
        if times > 1:
            yield f"{schedule.name}: {moment:%H:%M:%S} has {times} runs"


# --- Redis and processes --------------------------------------------------------------------


@check("no key in Redis lies outside the prefix")
def keys_are_ours(books: Books) -> Iterator[str]:
    for number, keys in books.keys.items():
        yield from (f"db {number}: {key}" for key in keys if not key.startswith(books.prefix))


@check("no program ended, hung or left a process behind by itself")
def programs_behaved(books: Books) -> Iterator[str]:
    yield from books.surprises


def _why(row: GenerationJob | TaskRun) -> str:
    return f" ({row.error_code}: {row.error_message})" if row.error_code else ""
