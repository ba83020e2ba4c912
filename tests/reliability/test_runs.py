"""Runs of tasks, with real workers that are killed, frozen and stopped."""

import itertools
import time
from pathlib import Path

import pytest
from sqlalchemy import text

from genonaut.domain.runs import AlreadyRunningError
from genonaut.domain.users import Role
from tests.reliability.program import holds, until
from tests.reliability.rig import Rig

RECOVERY_S = 60.0


def diary_of(rig: Rig) -> Path:
    return rig.folder / "diary"


def counted(rig: Rig) -> list[int]:
    path = diary_of(rig)
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def test_f38_a_killed_run_goes_on_from_its_checkpoint(rig: Rig) -> None:
    worker = rig.runner("one")
    run_id = rig.trigger("toys.count", upto=60, diary=str(diary_of(rig)), bad=[7, 50])
    until(lambda: len(counted(rig)) >= 24, "40 % are done")
    worker.kill9()
    rig.runner("two")
    run = rig.wait_for_run(run_id, "completed", RECOVERY_S)
    assert (run.result, run.attempt, run.failed_items) == ({"counted": 60}, 2, 2)
    assert run.progress["percent"] == 100
    numbers = counted(rig)
    assert sorted(set(numbers)) == list(range(1, 61))
    assert len(numbers) <= 61, "at most the number that was being counted is counted again"


@pytest.mark.slow
def test_f38_a_stopping_worker_hands_its_run_on_and_no_attempt_is_counted(rig: Rig) -> None:
    worker = rig.runner("one", WORKER_SHUTDOWN_GRACE_S="0.5")
    run_id = rig.trigger("toys.count", upto=100, diary=str(diary_of(rig)))
    until(lambda: len(counted(rig)) >= 5, "it counts")
    worker.terminate()
    until(lambda: not worker.is_alive(), "the worker has stopped")
    run = rig.run_row(run_id)
    assert (run.status, run.attempt) == ("pending", 0)
    rig.runner("two")
    run = rig.wait_for_run(run_id, "completed", RECOVERY_S)
    assert run.attempt == 1
    assert counted(rig) == list(range(1, 101))


@pytest.mark.slow
def test_f03_a_task_that_kills_its_process_ends_and_the_queue_goes_on(rig: Rig) -> None:
    rig.runner()
    poison = rig.trigger("toys.count", upto=9, die_at=2)
    other = rig.trigger("toys.beside", upto=3)
    assert rig.wait_for_run(other, "completed").result == {"counted": 3}
    run = rig.wait_for_run(poison, "failed", RECOVERY_S)
    assert (run.error_code, run.attempt) == ("worker_lost", 4)


def test_a_cancel_stops_a_run_within_five_seconds(rig: Rig) -> None:
    rig.runner()
    run_id = rig.trigger("toys.count", upto=2000)
    until(lambda: rig.run_row(run_id).progress.get("done", 0) > 3, "it counts")
    began = time.monotonic()
    rig.cancel_run(run_id)
    rig.wait_for_run(run_id, "cancelled", 5)
    rig.measure("cancel of a running task to its end", began)


@pytest.mark.slow
def test_f34_a_cancel_survives_the_loss_of_every_worker(rig: Rig) -> None:
    worker = rig.runner("one")
    run_id = rig.trigger("toys.count", upto=2000, diary=str(diary_of(rig)))
    until(lambda: counted(rig), "it counts")
    worker.kill9()
    done = len(counted(rig))
    rig.cancel_run(run_id)
    rig.runner("two")
    rig.wait_for_run(run_id, "cancelled", RECOVERY_S)
    assert len(counted(rig)) == done


def test_f11_runs_survive_a_flush_of_redis(rig: Rig) -> None:
    ids = [rig.trigger("toys.beside", upto=1, step_s=0) for _ in range(50)]
    until(lambda: all(rig.run_row(i).dispatched_at for i in ids), "all are published")
    rig.redis.flushdb()
    rig.runner()
    for run_id in ids:
        assert rig.wait_for_run(run_id, "completed").attempt == 1


def test_f42_two_who_click_at_once_get_one_run(rig: Rig) -> None:
    rig.runner()
    first = rig.trigger("toys.count", upto=40)
    assert rig.trigger("toys.count", upto=40) == first
    with pytest.raises(AlreadyRunningError):
        rig.trigger("toys.count", upto=41)
    rig.wait_for_run(first, "completed")
    assert rig.trigger("toys.count", upto=41) != first


def test_a_second_run_waits_for_the_first_and_then_begins(rig: Rig) -> None:
    rig.runner(slots=2)
    first = rig.trigger("toys.wait", upto=20)
    second = rig.trigger("toys.wait", upto=3)
    rig.wait_for_run(first, "running")
    holds(
        lambda: rig.run_row(first).status != "running" or rig.run_row(second).status == "pending",
        "the second waits",
        0.5,
    )
    rig.wait_for_run(second, "completed")
    one, two = rig.run_row(first), rig.run_row(second)
    assert one.completed_at is not None
    assert two.started_at is not None
    assert one.completed_at <= two.started_at


def test_f08_the_soft_limit_ends_a_run_and_keeps_its_checkpoint(rig: Rig) -> None:
    rig.runner()
    run_id = rig.trigger("toys.stubborn")
    run = rig.wait_for_run(run_id, "failed")
    assert (run.error_code, run.checkpoint) == ("timed_out", {"n": 1})


@pytest.mark.slow
def test_f40_what_is_shown_never_goes_back_across_attempts(rig: Rig) -> None:
    worker = rig.runner("one")
    with rig.hear("run") as heard:
        run_id = rig.trigger("toys.count", upto=50)
        until(lambda: rig.run_row(run_id).progress.get("done", 0) >= 15, "it counts")
        worker.kill9()
        rig.runner("two")
        rig.wait_for_run(run_id, "completed", RECOVERY_S)
        until(lambda: heard.finals().get(run_id) == ["completed"], "the end is told")
        percents = [
            row["progress"]["percent"] for row in heard.rows if "percent" in row["progress"]
        ]
    assert percents
    assert all(a <= b for a, b in itertools.pairwise(percents))
    assert percents[-1] == 100


@pytest.mark.slow
def test_a_run_of_a_task_that_is_gone_ends_and_says_so(rig: Rig) -> None:
    run_id = rig.trigger("toys.count", upto=1)
    worker = rig.runner(TASK_PACKAGES="", wait=True)
    with rig.database.transaction() as session:
        ago = "now() - interval '2 minutes'"
        session.execute(text(f"UPDATE task_runs SET updated_at = {ago}, available_at = {ago}"))
    run = rig.wait_for_run(run_id, "failed")
    assert run.error_code == "unknown_task"
    assert worker.is_alive()


@pytest.mark.slow
def test_f09_health_sees_a_worker_that_is_there_and_does_not_work(rig: Rig) -> None:
    rig.environment["HEALTH_STALLED_S"] = "2"
    rig.runner()
    auditor = rig.token(rig.add_user("eve", role=Role.AUDITOR))
    api = rig.api()

    def checks() -> dict[str, dict[str, object]]:
        headers = {"Authorization": f"Bearer {auditor}"}
        answer = api.http.get("/api/v1/admin/health", headers=headers)
        assert answer.status_code == 200, answer.text
        return {check["name"]: check for check in answer.json()["checks"]}

    until(lambda: checks()["workers.default"]["ok"], "the worker reports")
    rig.stop_consuming("default")
    run_id = rig.trigger("toys.count", upto=1)
    until(lambda: not checks()["queue.default"]["ok"], "health is red for the queue", 60)
    found = checks()
    assert found["workers.default"]["ok"], "a sign of life says nothing about work"
    assert "nobody works" in str(found["queue.default"]["detail"])
    rig.runner("another")
    rig.wait_for_run(run_id, "completed")
    until(lambda: checks()["queue.default"]["ok"], "health is well again")


@pytest.mark.slow
def test_f24_health_sees_a_beat_that_hangs_within_a_minute(rig: Rig) -> None:
    beat = rig.beat()
    auditor = rig.token(rig.add_user("eve", role=Role.AUDITOR))
    api = rig.api()

    def is_well() -> bool:
        headers = {"Authorization": f"Bearer {auditor}"}
        checks = api.http.get("/api/v1/admin/health", headers=headers).json()["checks"]
        return all(check["ok"] for check in checks if check["name"] == "beat")

    until(is_well, "beat reports")
    beat.pause()
    began = time.monotonic()
    until(lambda: not is_well(), "health is red for beat", 60)
    rig.measure("F24, frozen beat to red health", began)
    beat.cont()
    until(is_well, "health is well again")
