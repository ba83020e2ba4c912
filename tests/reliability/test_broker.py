"""Redis flushed, forgetful, down, frozen, cut off and shared."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reliability.program import holds, until
from tests.reliability.rig import Rig
from tests.support.proxy import Proxy

ANSWER_S = 2.0
DELIVERY_S = 20.0

OUTAGES_S = {"down": 5.0, "frozen": 12.0}

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
    wait_until_done(rig, 50)
    assert [rig.outcomes(first + n) for n in range(50)] == [["completed"]] * 50
    assert rig.comfy.runs() == 50


@pytest.mark.parametrize("how", ["down", pytest.param("frozen", marks=pytest.mark.slow)])
def test_f12_a_job_taken_while_redis_is_away_is_delivered_on_its_return(rig: Rig, how: str) -> None:
    worker = rig.worker(wait=False)
    rig.api()
    at_work = rig.submit(steps=60)
    rig.wait_until_drawing(at_work)
    away, back = rig.redis_away(how)
    away()
    asked_at = time.monotonic()
    job_id = rig.submit()
    assert time.monotonic() - asked_at < ANSWER_S
    holds(lambda: rig.job(job_id).status == "pending", "the row waits", OUTAGES_S[how])
    back()
    returned_at = time.monotonic()
    until(lambda: rig.job(job_id).status != "pending", "the job is taken", DELIVERY_S)
    rig.measure(f"F12, return of a Redis that was {how} to the job's start", returned_at)
    for each in (at_work, job_id):
        assert rig.wait_for(each, "completed").attempt == 1
    assert rig.comfy.runs() == 2
    assert worker.is_alive()


@pytest.mark.slow
def test_f14_connections_that_redis_cuts_come_back(rig: Rig) -> None:
    worker = rig.worker(wait=False)
    api = rig.api()
    job_id = rig.submit(steps=40)
    rig.wait_until_drawing(job_id)
    with api.socket("/ws/me") as mine:
        assert mine.next()
        rig.cut_connections()
        cut_at = time.monotonic()
        later = rig.submit(steps=20)
        until(lambda: rig.job(later).status != "pending", "the next job is taken", DELIVERY_S)
        rig.measure("F14, connections cut to the next job's start", cut_at)
        for each in (job_id, later):
            assert rig.wait_for(each, "completed").attempt == 1
        told = until(lambda: mine.next() and mine.of("job", later, final=True), "the end is told")
    assert told
    assert len(mine.of("job", later)) > 2, "the socket hears events again, not only the rows"
    assert rig.comfy.runs() == 2
    assert worker.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize(("how", "for_s"), [("down", 28), ("frozen", 15)])
def test_f14_workers_and_beat_outlive_half_a_minute_without_redis(
    rig: Rig, how: str, for_s: float
) -> None:
    worker, beats = rig.worker(), [rig.beat()]
    lock = f"{rig.ns}:redbeat:lock"
    until(lambda: rig.redis.exists(lock), "beat holds its lock")
    job_id = rig.submit(steps=40)
    rig.wait_until_drawing(job_id)
    away, back = rig.redis_away(how)
    away()
    assert rig.wait_for(job_id, "completed").attempt == 1
    later = rig.submit()
    holds(lambda: rig.job(later).status == "pending", "the next job waits", for_s)
    back()
    back_at = time.monotonic()
    until(lambda: rig.job(later).status != "pending", "the next job is taken", DELIVERY_S)
    rig.measure(f"F14, {for_s} s with Redis {how}, its return to the next job's start", back_at)

    def beating() -> bool:
        # A beat that lost its lock ends, and whoever supervises it starts it again.
        if not beats[-1].is_alive():
            beats.append(rig.beat(f"beat{len(beats) + 1}"))
        return bool(rig.redis.exists(lock)) and rig.heartbeat_age("beat") < 3

    until(beating, "a beat holds the lock and beats", 40)
    rig.measure(f"F14, {for_s} s with Redis {how}, its return to beat's next tick", back_at)
    assert rig.wait_for(later, "completed").attempt == 1
    assert worker.is_alive()


@pytest.mark.slow
def test_f14_a_worker_cut_off_from_redis_resumes_by_itself(rig: Rig) -> None:
    with Proxy(rig.valkey.port) as proxy:
        worker = rig.worker(REDIS_URL_TEST=f"redis://127.0.0.1:{proxy.port}/5")
        job_id = rig.submit(steps=60)
        rig.wait_until_drawing(job_id)
        proxy.black_hole()
        assert rig.wait_for(job_id, "completed", 60).attempt == 1
        later = rig.submit()
        holds(lambda: rig.job(later).status == "pending", "the next job waits", 12)
        proxy.refuse()
        holds(lambda: rig.job(later).status == "pending", "the next job waits", 5)
        proxy.forward()
        back_at = time.monotonic()
        until(lambda: rig.job(later).status != "pending", "the next job is taken", DELIVERY_S)
        rig.measure("F14, end of a cut to Redis to the next job's start", back_at)
        assert rig.wait_for(later, "completed").attempt == 1
        assert worker.is_alive()
        rig.stop()


@pytest.mark.slow
def test_f18_two_environments_share_no_key_and_no_channel(rig: Rig, tmp_path: Path) -> None:
    other = rig.neighbour(tmp_path / "other")
    with rig.monitor() as commands:
        for each in (rig, other):
            each.worker(wait=False)
            each.beat()
            each.api()
        jobs = [(each, each.submit()) for each in (rig, other) for _ in range(3)]
        for each, job_id in jobs:
            assert each.wait_for(job_id, "completed").attempt == 1
        until(lambda: rig.has_beat() and other.has_beat(), "both beats are up")
    ours, theirs = (
        {key for key in rig.all_keys() if key.startswith(f"{each.ns}:")} for each in (rig, other)
    )
    assert ours
    assert theirs
    assert ours | theirs == set(rig.all_keys())
    assert commands.channels
    strangers = [
        name for name in commands.channels if not name.startswith((f"{rig.ns}:", f"{other.ns}:"))
    ]
    assert strangers == []


def wait_until_done(rig: Rig, count: int) -> None:
    """Wait until so many jobs are completed."""
    until(lambda: rig.count("completed") == count, f"{count} are done", 90)


@pytest.mark.slow
def test_f19_keys_do_not_pile_up(rig: Rig) -> None:
    """The one reliability case about growth: jobs, pings and killed workers leave nothing."""
    sizes = []
    for round_ in range(4):
        worker = rig.worker()
        rig.submit(count=10, steps=1)
        wait_until_done(rig, 10 * (round_ + 1))
        for _ in range(5):
            rig.ping_workers()
        worker.kill9()
        sizes.append(rig.key_sizes())
    until(lambda: "reply" not in " ".join(rig.all_keys()), "replies expire", 90)
    assert sizes[-1].keys() == sizes[1].keys()
    grown = {
        key: (sizes[1][key], sizes[-1][key]) for key in sizes[-1] if sizes[-1][key] > sizes[1][key]
    }
    assert grown == {}
