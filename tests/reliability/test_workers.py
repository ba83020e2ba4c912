"""Workers that die, hang, stop, run late and are given the same job twice."""

import re
import time

import pytest

from tests.reliability.program import holds, until
from tests.reliability.rig import Rig

RECOVERY_S = 60.0
GRACE_S = 5.0


def test_f01_a_killed_worker_costs_one_attempt_and_nothing_else(rig: Rig) -> None:
    worker = rig.worker()
    job_id = rig.submit(steps=60)
    rig.wait_until_drawing(job_id)
    worker.kill9()
    killed_at = time.monotonic()
    rig.worker("second")
    job = rig.wait_for(job_id, "completed", RECOVERY_S)
    rig.measure("F1, killed worker to finished picture", killed_at)
    assert job.attempt == 2
    assert rig.outcomes(job_id) == ["worker_lost", "completed"]
    assert "worker generation@" in rig.timeline(job_id)
    assert "lost, attempt 1 of 4" in rig.timeline(job_id)
    assert rig.notices(job_id) == ["job_completed"]
    assert rig.comfy.runs() == 1, "the second attempt took over the first one's prompt"


@pytest.mark.slow
def test_f02_a_killed_pool_child_costs_one_attempt(rig: Rig) -> None:
    worker = rig.worker()
    job_id = rig.submit(steps=60)
    rig.wait_until_drawing(job_id)
    worker.kill_children()
    job = rig.wait_for(job_id, "completed", RECOVERY_S)
    assert job.attempt == 2
    assert rig.outcomes(job_id) == ["worker_lost", "completed"]
    assert worker.is_alive()
    assert rig.comfy.runs() == 1


@pytest.mark.slow
def test_f03_a_job_that_kills_its_worker_stops_at_its_last_attempt(rig: Rig) -> None:
    rig.worker(slots=1, hook="poison")
    poisoned = rig.submit(prompt="poison", max_attempts=3)
    before = rig.submit()
    rig.wait_for(before, "completed")
    job = rig.wait_for(poisoned, "failed", RECOVERY_S)
    assert job.error_code == "worker_lost"
    assert job.attempt == 3
    assert rig.outcomes(poisoned) == ["worker_lost"] * 3
    assert "no attempts are left" in rig.timeline(poisoned)
    assert rig.notices(poisoned) == ["job_failed"]
    rig.wait_for(rig.submit(), "completed")
    assert rig.comfy.runs() == 2


@pytest.mark.slow
def test_f04_a_task_delivered_again_while_it_runs_is_dropped(rig: Rig) -> None:
    one = rig.worker("one", hook="short_visibility", wait=False)
    two = rig.worker("two", hook="short_visibility", wait=False)
    job_id = rig.submit(steps=200)
    rig.wait_until_drawing(job_id)
    until(lambda: "not_claimed" in one.log + two.log, "a second delivery was dropped", 60)
    assert rig.job(job_id).status == "running"
    job = rig.wait_for(job_id, "completed", 60)
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["completed"]
    assert [p["received"] for p in rig.comfy.prompts()] == [1]
    assert rig.comfy.runs() == 1


@pytest.mark.slow
def test_f05_a_worker_frozen_before_its_commit_is_fenced_out(rig: Rig) -> None:
    late = rig.worker("late", hook="freeze_before_commit")
    job_id = rig.submit()
    until(late.is_frozen, "the worker stands still with its pictures")
    assert rig.job(job_id).status == "running"
    rig.worker("second")
    job = rig.wait_for(job_id, "completed", RECOVERY_S)
    assert job.worker is not None
    assert job.worker.startswith("second@")
    late.cont()
    late.wait_for_log("fenced_out")
    assert rig.job(job_id).version == job.version
    assert rig.job(job_id).content_id == job.content_id
    assert rig.outcomes(job_id) == ["worker_lost", "completed"]
    assert rig.comfy.runs() == 1


@pytest.mark.slow
def test_f05_a_worker_frozen_while_it_reconciles_does_not_keep_others_from_it(rig: Rig) -> None:
    late = rig.worker("late", hook="freeze_in_pass")
    job_id = rig.submit(steps=80)
    rig.wait_until_drawing(job_id)
    until(lambda: rig.freeze_reconciler(late), "the worker stands still in its pass")
    frozen_at = time.monotonic()
    rig.worker("second")
    job = rig.wait_for(job_id, "completed", RECOVERY_S)
    rig.measure("F5, worker frozen while it reconciles to finished picture", frozen_at)
    late.cont()
    late.wait_for_log("lease_lost")
    assert rig.job(job_id).version == job.version
    assert rig.outcomes(job_id) == ["worker_lost", "completed"]
    assert rig.comfy.runs() == 1


@pytest.mark.slow
def test_f05_a_worker_frozen_while_drawing_leaves_its_successor_alone(rig: Rig) -> None:
    late = rig.worker("late")
    job_id = rig.submit(steps=250)
    rig.wait_until_drawing(job_id)
    late.pause()
    rig.worker("second")
    until(lambda: rig.outcomes(job_id) == ["worker_lost", None], "the second one has it")
    late.cont()
    late.wait_for_log("fenced_out")
    job = rig.wait_for(job_id, "completed", RECOVERY_S)
    assert job.attempt == 2
    assert rig.outcomes(job_id) == ["worker_lost", "completed"]
    assert rig.comfy.runs() == 1, "the late worker did not interrupt the adopted prompt"


@pytest.mark.slow
def test_f06_a_stopping_worker_finishes_what_fits_into_its_grace(rig: Rig) -> None:
    worker = rig.worker(WORKER_SHUTDOWN_GRACE_S=str(RECOVERY_S))
    job_id = rig.submit(steps=50)
    rig.wait_until_drawing(job_id)
    worker.terminate()
    assert worker.wait(RECOVERY_S + 10) == 0
    job = rig.job(job_id)
    assert (job.status, job.attempt) == ("completed", 1)
    assert rig.outcomes(job_id) == ["completed"]


def test_f06_a_stopping_worker_gives_back_what_takes_longer(rig: Rig) -> None:
    worker = rig.worker(WORKER_SHUTDOWN_GRACE_S="1")
    job_id = rig.submit(steps=120)
    rig.wait_until_drawing(job_id)
    worker.terminate()
    assert worker.wait(GRACE_S + 10) == 0
    released = rig.job(job_id)
    assert (released.status, released.attempt) == ("pending", 0)
    rig.worker("second")
    job = rig.wait_for(job_id, "completed")
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["released", "completed"]
    assert "it does not count" in rig.timeline(job_id)
    assert rig.comfy.runs() == 1


def test_f07_a_message_delivered_twice_is_claimed_once(rig: Rig) -> None:
    job_id = rig.submit(steps=20)
    until(lambda: rig.waiting_messages() == 1, "the message is in the queue")
    rig.copy_message(times=3)
    one, two = rig.worker("one", wait=False), rig.worker("two", wait=False)
    job = rig.wait_for(job_id, "completed")

    # The reconciler may send another: copies share a tag, and the first that is done takes the
    # others off the broker's list of what is under way.
    def dropped_are_all() -> bool:
        log = one.log + two.log
        sent_again = sum(int(n) for n in re.findall(r"published +again=(\d+)", log))
        return log.count("not_claimed") == 3 + sent_again

    until(dropped_are_all, "the three copies were dropped")
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["completed"]
    assert rig.comfy.runs() == 1
    until(lambda: not rig.redis.exists(f"{rig.ns}:unacked"), "every delivery is acknowledged")
    holds(lambda: rig.job(job_id).version == job.version, "the row rests", 1)


@pytest.mark.slow
def test_f08_the_hard_limit_ends_the_attempt_as_timed_out(rig: Rig) -> None:
    worker = rig.worker(hook="stuck", TASK_SOFT_TIME_LIMIT_S="4", TASK_TIME_LIMIT_S="6")
    job_id = rig.submit(steps=1000, max_attempts=2)
    until(lambda: rig.outcomes(job_id)[:1] == ["timed_out"], "the first attempt is timed out")
    assert rig.job(job_id).status in {"pending", "running"}
    job = rig.wait_for(job_id, "failed", RECOVERY_S)
    assert job.error_code == "timed_out"
    assert rig.outcomes(job_id) == ["timed_out", "timed_out"]
    until(
        lambda: [p["ended"] for p in rig.comfy.prompts()] == [["interrupted"]] * 2,
        "both prompts are interrupted",
    )
    assert worker.is_alive()
    assert not rig.comfy.busy()


@pytest.mark.slow
def test_f08_a_job_that_nobody_ends_is_taken_from_its_live_worker(rig: Rig) -> None:
    limits = {"TASK_SOFT_TIME_LIMIT_S": "3", "TASK_TIME_LIMIT_S": "4", "STUCK_GRACE_S": "2"}
    stuck = rig.worker(slots=1, hook="stuck", **limits)
    job_id = rig.submit(steps=30)
    rig.wait_until_drawing(job_id)
    stuck.pause_main()  # so it kills nothing, and its child renews the lease
    rig.worker("second", **limits)
    until(lambda: rig.outcomes(job_id)[:1] == ["timed_out"], "the attempt is timed out")
    job = rig.wait_for(job_id, "completed", RECOVERY_S)
    # A busy machine may not draw it within the soft limit; then it is given back and found again.
    ended = [outcome for outcome in rig.outcomes(job_id) if outcome != "released"]
    assert (job.attempt, ended) == (2, ["timed_out", "completed"])
    assert "did not end it at its limit of 4 seconds" in rig.timeline(job_id)
    assert rig.mended() == [("overtime", "job", job_id, "pending")]
    stuck.cont()
    stuck.wait_for_log("lease_lost")
    assert rig.notices(job_id) == ["job_completed"]


@pytest.mark.slow
def test_f08_the_soft_limit_gives_the_job_back_and_its_prompt_is_found_again(rig: Rig) -> None:
    rig.worker(TASK_SOFT_TIME_LIMIT_S="3", TASK_TIME_LIMIT_S="30")
    job_id = rig.submit(steps=120)
    job = rig.wait_for(job_id, "completed", RECOVERY_S)
    assert job.attempt == 1
    assert rig.outcomes(job_id)[0] == "released"
    assert rig.outcomes(job_id)[-1] == "completed"
    assert rig.comfy.runs() == 1


@pytest.mark.slow
def test_f10_short_jobs_do_not_wait_behind_a_long_one(rig: Rig) -> None:
    rig.another_comfy()
    rig.worker("one", slots=1)
    long = rig.submit(steps=600)
    rig.wait_until_running(long)
    shorts = [rig.submit() for _ in range(4)]
    rig.worker("two", slots=1)
    for job_id in shorts:
        job = rig.wait_for(job_id, "completed")
        assert job.worker is not None
        assert job.worker.startswith("two@")
    assert rig.job(long).status == "running"
    rig.cancel(long)
    rig.wait_for(long, "cancelled")
