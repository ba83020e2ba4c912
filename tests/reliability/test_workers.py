"""Workers that die, hang, stop and are given the same job twice."""

import time

from tests.reliability.program import holds, until
from tests.reliability.rig import Rig

RECOVERY_S = 60.0


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


def test_f07_a_message_delivered_twice_is_claimed_once(rig: Rig) -> None:
    job_id = rig.submit(steps=20)
    until(lambda: rig.waiting_messages() == 1, "the message is in the queue")
    queue = f"{rig.ns}:generation"
    message = rig.redis.lindex(queue, 0)
    for _ in range(3):
        rig.redis.rpush(queue, message)
    one, two = rig.worker("one", wait=False), rig.worker("two", wait=False)
    job = rig.wait_for(job_id, "completed")
    until(lambda: (one.log + two.log).count("not_claimed") == 3, "the three copies were dropped")
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["completed"]
    assert rig.comfy.runs() == 1
    until(lambda: not rig.redis.exists(f"{rig.ns}:unacked"), "every delivery is acknowledged")
    holds(lambda: rig.job(job_id).version == job.version, "the row rests", 1)
