"""Redis flushed, forgetful, down, frozen, cut off and shared."""

import time
from collections.abc import Callable

import pytest

from tests.reliability.program import holds, until
from tests.reliability.rig import Rig

ANSWER_S = 2.0
DELIVERY_S = 20.0

LOSSES: dict[str, Callable[[Rig], object]] = {
    "flush": lambda rig: rig.redis.flushdb(),
    "restart without persistence": lambda rig: rig.valkey.forget(),
}


@pytest.mark.parametrize(
    "how", ["flush", pytest.param("restart without persistence", marks=pytest.mark.slow)]
)
def test_f11_a_redis_that_lost_everything_gets_every_row_again(rig: Rig, how: str) -> None:
    first = rig.submit(count=50, steps=1)
    until(lambda: rig.waiting_messages() == 50, "all are published")
    worker = rig.worker(slots=4, REPUBLISH_AFTER_S="600")
    until(lambda: rig.count("completed") > 2, "some are done")
    worker.pause()
    assert rig.count("pending") > 30
    LOSSES[how](rig)
    worker.cont()
    lost_at = time.monotonic()
    until(lambda: not rig.unpublished(), "every pending row is published again", DELIVERY_S)
    rig.measure(f"F11, {how} to all rows published again", lost_at)
    until(lambda: rig.count("completed") == 50, "all are done", 90)
    assert [rig.outcomes(first + n) for n in range(50)] == [["completed"]] * 50
    assert rig.comfy.runs() == 50


@pytest.mark.parametrize("how", ["down", pytest.param("frozen", marks=pytest.mark.slow)])
def test_f12_a_job_taken_while_redis_is_away_is_delivered_on_its_return(rig: Rig, how: str) -> None:
    worker = rig.worker()
    rig.wait_for(rig.submit(), "completed")
    away, back = {
        "down": (rig.valkey.kill9, rig.valkey.start),
        "frozen": (rig.valkey.pause, rig.valkey.cont),
    }[how]
    away()
    asked_at = time.monotonic()
    job_id = rig.submit()
    assert time.monotonic() - asked_at < ANSWER_S
    holds(lambda: rig.job(job_id).status == "pending", "the row waits", 12)
    back()
    returned_at = time.monotonic()
    until(lambda: rig.job(job_id).status != "pending", "the job is taken", DELIVERY_S)
    rig.measure(f"F12, return of a Redis that was {how} to the job's start", returned_at)
    assert rig.wait_for(job_id, "completed").attempt == 1
    assert rig.comfy.runs() == 2
    assert worker.is_alive()
