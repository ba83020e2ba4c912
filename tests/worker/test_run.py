"""One claim of a run, in this process: every way it can end."""

import time
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from genonaut.core.errors import ConflictError, RetryableError
from genonaut.db.models import TaskRun
from genonaut.domain import run_attempts, run_families, run_history, runs
from genonaut.domain.runs import Trigger
from genonaut.worker import drain
from genonaut.worker.run_log import TAIL
from genonaut.worker.task import Failure, TaskContext, TaskParams, TaskResult
from tests.worker.conftest import work_on


class Params(TaskParams):
    """How far to count."""

    upto: int = Field(default=4, description="The last number.")


class Result(TaskResult):
    """What was counted."""

    total: int
    note: str = ""


class At(BaseModel):
    """Where the count is."""

    n: int


@pytest.fixture
def toy(declare):
    def make(act, **options):
        def work(ctx: TaskContext, params: Params) -> Result:
            """Do as the test says."""
            return act(ctx, params)

        return declare(work, **options)

    return make


def counting(ctx, params):
    for n in range(1, params.upto + 1):
        ctx.progress(n, params.upto, f"counted {n}")
        ctx.log.info("counted", n=n)
    return Result(total=params.upto)


def test_a_run_shows_its_progress_and_gives_its_result(toy, run_task):
    result, progress = run_task(toy(counting), upto=3)
    assert result == Result(total=3)
    assert progress == [(1, 3), (2, 3), (3, 3)]


def test_the_row_tells_the_whole_story(toy, start_run):
    row = start_run(toy(counting), upto=2)
    assert (row.status, row.attempt, row.worker) == ("completed", 1, "worker-1")
    assert row.progress == {
        "phase": "completed",
        "done": 2,
        "total": 2,
        "percent": 100,
        "message": "counted 2",
    }
    assert [(line["event"], line["n"], line["level"]) for line in row.log_tail] == [
        ("counted", 1, "info"),
        ("counted", 2, "info"),
    ]
    assert row.started_at <= row.completed_at


def test_only_the_last_lines_are_kept_and_anything_can_be_logged(toy, start_run):
    def chatty(ctx, params):
        for n in range(TAIL + 50):
            ctx.log.debug("line", n=n, odd=object(), bad="\0\ud800")
        return Result(total=0)

    lines = start_run(toy(chatty)).log_tail
    assert [line["n"] for line in lines] == list(range(50, TAIL + 50))


def test_progress_never_goes_back_nor_past_the_end(toy, start_run, task_services):
    def erratic(ctx, params):
        for done, total in [(5, 10), (3, 10), (4, 100), (200, 100), (200, 0), (1, None)]:
            ctx.progress(done, total)
        return Result(total=0)

    seen: list[Any] = []
    task_services.database.sinks.append(seen.extend)
    start_run(toy(erratic))
    shown = [e.row["progress"] for e in seen if "percent" in e.row["progress"]]
    assert [p["percent"] for p in shown] == sorted(p["percent"] for p in shown)
    assert all(p["percent"] <= 100 and p["done"] <= p["total"] for p in shown)


def test_a_second_delivery_finds_nothing_to_do(toy, start_run, task_services):
    done = start_run(toy_definition := toy(counting))
    again = work_on(task_services, toy_definition, done.id)
    assert (again.version, again.attempt) == (done.version, 1)


def crash(ctx, params):
    raise RuntimeError("out of cheese")


def test_a_bug_fails_the_run_and_is_not_hidden(toy, task_services):
    definition = toy(crash)
    run_id = _stored(task_services, definition)
    with pytest.raises(RuntimeError):
        work_on(task_services, definition, run_id)
    row = _read(task_services, run_id)
    assert (row.status, row.error_code) == ("failed", "internal_error")
    assert row.error_message == "RuntimeError: out of cheese"
    assert row.log_tail[-1]["event"] == "task_failed"


def test_an_error_of_ours_names_its_code(toy, start_run):
    def refuse(ctx, params):
        raise ConflictError("not now", code="too_early")

    row = start_run(toy(refuse))
    assert (row.status, row.error_code, row.error_message) == ("failed", "too_early", "not now")


def test_only_what_waiting_may_cure_is_tried_again(toy, start_run, task_services):
    tries = []

    def flaky(ctx, params):
        tries.append(ctx.attempt)
        if len(tries) < 3:
            raise RetryableError("busy")
        return Result(total=len(tries))

    definition = toy(flaky)
    row = start_run(definition)
    for _ in range(2):
        assert (row.status, row.progress["phase"]) == ("pending", "waiting_to_retry")
        with task_services.database.transaction() as session:
            runs.RUNS.note(session, row.id, (), available_at=row.created_at)
        row = work_on(task_services, definition, row.id)
    assert (row.status, row.result["total"], tries) == ("completed", 3, [1, 2, 3])


@pytest.mark.parametrize(
    "error",
    [OperationalError("SELECT 1", {}, Exception("gone")), PoolTimeoutError("no connection")],
)
def test_a_database_that_is_away_costs_a_run_no_more_than_an_attempt(toy, start_run, error):
    def cut_off(ctx, params):
        raise error

    row = start_run(toy(cut_off))
    assert (row.status, row.progress["phase"]) == ("pending", "waiting_to_retry")


def test_attempts_are_used_up(toy, start_run):
    def busy(ctx, params):
        raise RetryableError("busy")

    row = start_run(toy(busy, max_attempts=1))
    assert (row.status, row.error_code) == ("failed", "unavailable")


@pytest.mark.parametrize("gives", [None, {"total": 1}, {"status": "error"}, Params(), "done"])
def test_what_is_no_result_is_no_success(toy, start_run, gives):
    row = start_run(toy(lambda ctx, params: gives))
    assert (row.status, row.error_code) == ("failed", "invalid_result")


def test_a_result_that_is_too_large_is_no_success(toy, start_run):
    row = start_run(toy(lambda ctx, params: Result(total=1, note="x" * 300_000)))
    assert (row.status, row.error_code) == ("failed", "invalid_result")


def test_parameters_that_no_longer_validate_fail_the_run(toy, task_services):
    definition = toy(counting)
    run_id = _stored(task_services, definition)
    with task_services.database.transaction() as session:
        runs.RUNS.note(session, run_id, (), params={"upto": "many"})
    row = work_on(task_services, definition, run_id)
    assert (row.status, row.error_code) == ("failed", "invalid_input")
    assert "params.upto" in row.error_message


def test_a_cancel_stops_at_the_next_progress_even_a_task_that_catches_everything(
    toy, start_run, task_services
):
    steps = []

    def stubborn(ctx, params):
        for n in range(100):
            try:
                steps.append(n)
                if n == 2:
                    with ctx.transaction() as session:
                        runs.request_cancel(session, ctx.run_id)
                ctx.progress(n, 100)
            except Exception:  # noqa: BLE001 - that is the point
                pytest.fail("a task may catch every Exception of an item")
        return Result(total=1)

    row = start_run(toy(stubborn))
    assert (row.status, row.result, steps) == ("cancelled", None, [0, 1, 2])


def test_a_cancel_wins_over_a_result(toy, start_run):
    def late(ctx, params):
        with ctx.transaction() as session:
            runs.request_cancel(session, ctx.run_id)
        return Result(total=1)

    assert start_run(toy(late)).status == "cancelled"


def test_a_stopping_worker_gives_the_run_back_with_its_checkpoint(
    toy, start_run, task_services, monkeypatch
):
    def work(ctx, params):
        at = ctx.resume(At) or At(n=0)
        while at.n < 4:
            at = At(n=at.n + 1)
            with ctx.transaction() as session:
                ctx.checkpoint(session, at)
            if at.n == 2:
                monkeypatch.setattr(drain, "is_over", lambda: True)
            ctx.progress(at.n, 4)
        return Result(total=at.n)

    definition = toy(work)
    row = start_run(definition)
    assert (row.status, row.attempt, row.checkpoint) == ("pending", 0, {"n": 2})
    monkeypatch.undo()
    row = work_on(task_services, definition, row.id)
    assert (row.status, row.attempt, row.result["total"]) == ("completed", 1, 4)


def test_a_checkpoint_that_no_longer_fits_begins_anew(toy, start_run, task_services):
    def work(ctx, params):
        return Result(total=-1 if ctx.resume(At) is None else 1)

    definition = toy(work)
    run_id = _stored(task_services, definition, checkpoint={"m": "?"})
    row = work_on(task_services, definition, run_id)
    assert row.result["total"] == -1
    assert row.log_tail[0]["event"] == "checkpoint_unusable"


def test_a_checkpoint_is_part_of_the_transaction_that_did_the_work(toy, start_run):
    def work(ctx, params):
        with ctx.transaction() as session:
            ctx.checkpoint(session, At(n=1))
        with ctx.transaction() as session:
            ctx.checkpoint(session, At(n=2))
            session.rollback()
        raise ConflictError("stop")

    assert start_run(toy(work)).checkpoint == {"n": 1}


def test_the_time_limit_ends_the_run_and_keeps_its_checkpoint(toy, start_run):
    def slow(ctx, params):
        with ctx.transaction() as session:
            ctx.checkpoint(session, At(n=1))
        while True:
            time.sleep(0.05)
            ctx.progress(1, 2)

    row = start_run(toy(slow, soft_limit_s=1))
    assert (row.status, row.error_code, row.checkpoint) == ("failed", "timed_out", {"n": 1})


def test_bad_items_are_listed_and_the_run_goes_on(toy, start_run, task_services):
    def work(ctx, params):
        with ctx.transaction() as session:
            ctx.fail_item(session, "a.png", "broken")
            ctx.fail_items(session, [Failure("b.png", "empty")])
        return Result(total=0)

    row = start_run(toy(work))
    assert (row.status, row.failed_items) == ("completed", 2)
    with task_services.database.transaction() as session:
        assert [f.ref for f in run_history.failures(session, row.id)] == ["a.png", "b.png"]


@pytest.mark.parametrize("fails", [False, True])
def test_a_time_limit_that_strikes_while_the_end_is_written_changes_nothing(
    toy, start_run, monkeypatch, fails
):
    def work(ctx, params):
        if fails:
            raise ConflictError("no")
        return Result(total=1)

    name = "fail" if fails else "complete"
    write, struck = getattr(run_attempts, name), []

    def strike_once(session, held, *args, **values):
        if not struck:
            struck.append(True)
            raise SoftTimeLimitExceeded
        write(session, held, *args, **values)

    strike_once.__name__ = name
    monkeypatch.setattr(run_attempts, name, strike_once)
    row = start_run(toy(work))
    assert (row.status, row.attempt) == ("failed" if fails else "completed", 1)


def test_a_run_that_lost_its_claim_writes_nothing(toy, start_run, task_services):
    def usurped(ctx, params):
        with ctx.transaction() as session:
            row = session.get_one(TaskRun, ctx.run_id)
            run_attempts.release(session, run_attempts.RunClaim(row, row.lease_token))
        return Result(total=1)

    row = start_run(toy(usurped))
    assert (row.status, row.result, row.attempt) == ("pending", None, 0)


def test_a_task_starts_another_as_its_child(toy, declare, start_run, task_services):
    def leaf(ctx: TaskContext, params: Params) -> Result:
        """Be started."""
        return Result(total=params.upto)

    child = declare(leaf, "toys.leaf")

    def parent(ctx, params):
        with ctx.transaction() as session:
            first = ctx.start(session, child, Params(upto=9))
            assert ctx.start(session, child, Params(upto=9)) == first
        return Result(total=first)

    row = start_run(toy(parent))
    started = _read(task_services, row.result["total"])
    assert (started.task, started.parent_id, started.trigger) == ("toys.leaf", row.id, "system")
    assert (started.params, started.actor) == ({"upto": 9}, "toys.one")


def test_a_run_waits_for_what_it_started_and_repeats_what_failed(
    toy, declare, start_run, task_services
):
    tries = []

    def leaf(ctx: TaskContext, params: Params) -> Result:
        """Fail once, at half of the way."""
        tries.append((params.upto, ctx.resume(At)))
        if len(tries) == 1:
            with ctx.transaction() as session:
                ctx.checkpoint(session, At(n=1))
            raise ConflictError("not now")
        return Result(total=params.upto)

    child = declare(leaf, "toys.leaf")

    def parent(ctx, params):
        at = ctx.resume(At)
        with ctx.transaction() as session:
            if at is None:
                at = At(n=ctx.start(session, child, Params(upto=9)))
            else:
                [made] = run_families.children(session, [at.n])
                if made.status == "completed":
                    return Result(total=made.result["total"])
                at = At(n=ctx.start_again(session, child, made.id))
            ctx.checkpoint(session, at)
        return ctx.await_children()

    definition = toy(parent)
    row = start_run(definition)
    for _ in range(2):
        assert (row.status, row.progress["phase"]) == ("pending", "waiting_for_children")
        work_on(task_services, child, row.checkpoint["n"])
        row = work_on(task_services, definition, row.id)
    assert (row.status, row.attempt, row.result["total"]) == ("completed", 1, 9)
    assert tries == [(9, None), (9, At(n=1))]


def test_a_paused_run_goes_on_later_from_its_checkpoint(toy, start_run, task_services):
    def work(ctx, params):
        if ctx.resume(At) is None:
            with ctx.transaction() as session:
                ctx.checkpoint(session, At(n=1))
            ctx.pause("others first", for_s=0)
        return Result(total=7)

    definition = toy(work)
    row = start_run(definition)
    assert (row.status, row.attempt, row.progress["phase"]) == ("pending", 0, "paused")
    assert row.progress["reason"] == "others first"
    row = work_on(task_services, definition, row.id)
    assert (row.status, row.attempt, row.result["total"]) == ("completed", 1, 7)
    assert "reason" not in row.progress


def test_a_dry_run_is_told_so(toy, start_run):
    def work(ctx, params):
        return Result(total=0, note=f"dry: {ctx.dry_run}")

    row = start_run(toy(work, dry_run=True), dry_run=True)
    assert row.result["note"] == "dry: True"


def _stored(services, definition, **values):
    request = definition.request(definition.validate({}), trigger=Trigger.API, **values)
    with services.database.transaction() as session:
        return runs.trigger(session, request).run.id


def _read(services, run_id):
    with services.database.transaction() as session:
        return session.get_one(TaskRun, run_id)


def test_a_child_shows_its_parent_how_far_it_is(toy, declare, start_run, task_services):
    def leaf(ctx: TaskContext, params: Params) -> Result:
        """Count."""
        ctx.progress(3, 4)
        return Result(total=3)

    child = declare(leaf, "toys.leaf")

    def parent(ctx, params):
        with ctx.transaction() as session:
            ctx.checkpoint(session, At(n=ctx.start(session, child, Params())))
        ctx.progress(0, 4)
        return ctx.await_children()

    row = start_run(toy(parent))
    work_on(task_services, child, row.checkpoint["n"])
    shown = _read(task_services, row.id).progress
    assert (shown["done"], shown["total"], shown["percent"]) == (3, 4, 75)
