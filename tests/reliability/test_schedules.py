"""Each due time has one run, or is covered by one, whatever becomes of beat, Redis, PostgreSQL."""

import random
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from genonaut.db.models import Heartbeat
from genonaut.domain import schedules
from genonaut.domain.schedule_defaults import GONE
from tests.reliability.program import Program, holds, until
from tests.reliability.rig import Rig
from tests.reliability.ticking import (
    TOYS,
    check_accounts,
    every_second,
    measure_lateness,
    now_at,
    runs,
    schedule,
)
from tests.support.proxy import Proxy

NAMES = tuple(f"tick-{n:02}" for n in range(5))
YEARLY = "toys.tick.yearly"


def wait_for_runs(rig: Rig, count: int, *names: str, timeout_s: float = 30) -> None:
    """Wait until each schedule has so many runs more than now."""
    before = {name: len(runs(rig, name)) for name in names}
    until(
        lambda: all(len(runs(rig, name)) >= before[name] + count for name in names),
        f"{count} runs of each",
        timeout_s,
    )


def test_f20_two_beats_that_both_think_they_lead_make_one_run_per_due_time(rig: Rig) -> None:
    every_second(rig, *NAMES)
    beats = [rig.beat("beat1"), rig.beat("beat2")]
    wait_for_runs(rig, 1, *NAMES)
    for _ in range(4):
        rig.redis.delete(f"{rig.ns}:redbeat:lock")
        time.sleep(1)
    until(rig.has_beat, "one of them has the lock again")
    wait_for_runs(rig, 2, *NAMES)
    assert all(beat.is_alive() for beat in beats)
    rig.stop()
    assert check_accounts(rig, *NAMES) >= 5 * len(NAMES)
    measure_lateness(rig, "F20, lateness with the lock deleted each second", *NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "frozen", "frozen while it fires"])
def test_f21_a_standby_takes_over_within_half_a_minute(rig: Rig, how: str) -> None:
    every_second(rig, *NAMES)
    first = rig.beat("beat1", TASK_PACKAGES=f"{TOYS},tests.reliability.hooks.beat")
    until(rig.has_beat, "the first has the lock")
    wait_for_runs(rig, 1, *NAMES)
    rig.beat("beat2")
    until(lambda: roles(rig) == ["active", "standby"], "the second reports")
    if how == "killed":
        first.kill9()
    elif how == "frozen":
        first.pause()
    else:
        (rig.folder / "freeze").touch()
        until(first.is_frozen, "it stops in the middle of a batch")
    gone_at = time.monotonic()
    wait_for_runs(rig, 1, *NAMES)
    rig.measure(f"F21, beat {how} to the next run", gone_at)
    assert time.monotonic() - gone_at < 30
    if how != "killed":
        first.cont()
    wait_for_runs(rig, 3, *NAMES)
    rig.stop()
    check_accounts(rig, *NAMES)
    assert any(len(run.covers or []) > 5 for run in runs(rig, NAMES[0])), "one run for the gap"


@pytest.mark.slow
def test_f21_a_leader_cut_off_from_its_database_leaves_the_lead_to_a_standby(rig: Rig) -> None:
    every_second(rig, *NAMES)
    with Proxy(rig.postgres.port) as proxy:
        first = rig.beat("beat1", DATABASE_URL_TEST=rig.database_url(proxy.port))
        wait_for_runs(rig, 1, *NAMES)
        rig.beat("beat2")
        until(lambda: roles(rig) == ["active", "standby"], "the second reports")
        proxy.refuse()
        cut_at = time.monotonic()
        wait_for_runs(rig, 5, *NAMES)
        rig.measure("F21, beat without its database to the fifth run", cut_at)
        assert time.monotonic() - cut_at < 30
        proxy.forward()
        first.wait_for_log("beat_has_database")
        wait_for_runs(rig, 2, *NAMES)
        rig.stop()
    check_accounts(rig, *NAMES)


def test_f21_a_beat_that_ends_in_good_order_leaves_at_once(rig: Rig) -> None:
    every_second(rig, *NAMES)
    first = rig.beat("beat1")
    wait_for_runs(rig, 1, *NAMES)
    second = rig.beat("beat2")
    until(lambda: roles(rig) == ["active", "standby"], "both report")
    first.terminate()
    assert first.wait() == 0
    until(lambda: roles(rig) == ["active"], "the other is active, the first has left", 6)
    wait_for_runs(rig, 1, *NAMES, timeout_s=6)
    assert second.is_alive()
    rig.stop()
    check_accounts(rig, *NAMES)


def roles(rig: Rig) -> list[str]:
    """Say what the beats are, as their heartbeats have it."""
    with rig.database.transaction() as session:
        infos = session.scalars(select(Heartbeat.info).where(Heartbeat.kind == "beat"))
        return sorted(info["role"] for info in infos)


def test_f25_a_pause_and_history_outlive_restarts_and_deploys(rig: Rig) -> None:
    every_second(rig, "paused")
    with rig.database.transaction() as session:
        schedules.pause(session, "paused", actor="ada", reason="disk", now=now_at(rig))

    def deployed(name: str, packages: str = TOYS) -> Program:
        beat = rig.beat(name, TASK_PACKAGES=packages)
        beat.wait_for_log("schedules_synchronised")
        return beat

    def restarted(beat: Program, name: str, packages: str = TOYS) -> Program:
        beat.terminate()
        beat.wait()
        return deployed(name, packages)

    beat = deployed("beat1")
    new = schedule(rig, YEARLY)
    assert (new.source, new.last_due_at, new.disabled_reason) == ("code", None, None)
    assert new.next_due_at
    assert new.next_due_at > now_at(rig)
    assert schedules.public(new)["last_due_at"] is None
    with rig.database.transaction() as session:
        schedules.write(session, YEARLY, (), last_due_at=new.next_due_at)
    beat = restarted(beat, "beat2", packages="")
    gone = schedule(rig, YEARLY)
    assert (gone.disabled_reason, gone.next_due_at) == (GONE, None)
    assert schedule(rig, "paused").disabled_reason == "there is no task 'toys.tick'"
    restarted(beat, "beat3")
    back = schedule(rig, YEARLY)
    assert (back.disabled_reason, back.next_due_at) == (None, new.next_due_at)
    assert back.last_due_at == new.next_due_at
    paused = schedule(rig, "paused")
    assert (paused.paused_by, paused.pause_reason) == ("ada", "disk")
    holds(lambda: runs(rig, "paused") == [], "what is paused does not run", 2)
    with rig.database.transaction() as session:
        schedules.resume(session, "paused", lambda _: now_at(rig).replace(microsecond=0))
    until(lambda: runs(rig, "paused"), "it runs again")


def test_f27_a_due_time_during_the_run_before_is_recorded_as_skipped(rig: Rig) -> None:
    every_second(rig, "slow", task="toys.linger", seconds=2.5)
    rig.worker("default", queues="default", wait=False)
    rig.beat()
    until(lambda: len(runs(rig, "slow", "completed")) >= 2, "two runs are done")
    skipped = runs(rig, "slow", "skipped")
    assert len(skipped) >= 2
    assert all(run.reason and "was still" in run.reason for run in skipped)
    rig.stop()
    check_accounts(rig, "slow")


@pytest.mark.slow
def test_f23_a_tick_without_redis_is_stored_and_run_on_its_return(rig: Rig) -> None:
    every_second(rig, *NAMES)
    rig.worker("default", queues="default")
    rig.beat()
    until(lambda: runs(rig, NAMES[0], "completed"), "a run is done")
    rig.valkey.kill9()
    wait_for_runs(rig, 3, *NAMES)
    stored = [run.id for name in NAMES for run in runs(rig, name)]
    rig.valkey.start()
    back_at = time.monotonic()

    def all_done() -> bool:
        done = {run.id for name in NAMES for run in runs(rig, name, "completed")}
        return done.issuperset(stored)

    until(all_done, "what was due meanwhile is run", 20)
    rig.measure("F23, Redis's return to the last run of its absence", back_at)
    rig.stop()
    check_accounts(rig, *NAMES)


@pytest.mark.slow
def test_f15_beat_goes_on_when_postgres_is_back(rig: Rig) -> None:
    every_second(rig, *NAMES)
    beat = rig.beat()
    wait_for_runs(rig, 1, *NAMES)
    rig.postgres.kill9()
    time.sleep(2)
    rig.postgres.start()
    wait_for_runs(rig, 2, *NAMES)
    assert beat.is_alive()
    assert "Traceback" not in beat.log
    rig.stop()
    check_accounts(rig, *NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["one hash", "everything"])
def test_f11_f13_what_redis_forgets_of_the_schedules_is_rebuilt(rig: Rig, loss: str) -> None:
    every_second(rig, *NAMES)
    rig.beat()
    entries = [f"{rig.ns}:redbeat:{name}" for name in NAMES]
    until(lambda: rig.redis.exists(*entries) == len(entries), "every schedule has its entry")
    if loss == "everything":
        rig.redis.flushdb()
    else:
        rig.redis.delete(entries[0])
    lost_at = time.monotonic()
    wait_for_runs(rig, 2, *NAMES)
    until(lambda: rig.redis.exists(*entries) == len(entries), "the entries are back", 20)
    rig.measure(f"F11/F13, {loss} lost to the entries rebuilt", lost_at)
    until(rig.has_beat, "beat has its lock")
    rig.stop()
    check_accounts(rig, *NAMES)


@pytest.mark.slow
def test_f18_two_environments_fire_their_own_schedules(rig: Rig, tmp_path: Path) -> None:
    other = rig.neighbour(tmp_path / "other")
    for each in (rig, other):
        every_second(each, "same-name")
        each.beat()
    for each in (rig, other):
        wait_for_runs(each, 2, "same-name")
        until(lambda each=each: each.redis.exists(f"{each.ns}:redbeat:same-name"), "it is shown")
    other.stop()
    wait_for_runs(rig, 2, "same-name")
    assert rig.redis.exists(f"{rig.ns}:redbeat:same-name")
    rig.stop()
    for each in (rig, other):
        check_accounts(each, "same-name")


@pytest.mark.slow
def test_twenty_schedules_of_a_second_lose_and_double_nothing(rig: Rig) -> None:
    seed = random.randrange(2**32)
    dice = random.Random(seed)
    names = tuple(f"tick-{n:02}" for n in range(20))
    every_second(rig, *names)
    beats = [rig.beat("beat1"), rig.beat("beat2")]
    for name in ("worker1", "worker2"):
        rig.worker(name, queues="default", wait=False)
    wait_for_runs(rig, 1, *names)
    began = time.monotonic()
    faults = {
        dice.uniform(5, 35): lambda: dice.choice(beats).kill9(),
        dice.uniform(5, 50): rig.redis.flushdb,
    }
    for at, fault in sorted(faults.items()):
        time.sleep(max(0.0, began + at - time.monotonic()))
        fault()
    time.sleep(max(0.0, began + 60 - time.monotonic()))
    until(rig.has_beat, f"a beat leads (seed {seed})")
    wait_for_runs(rig, 1, *names)
    for beat in beats:
        if beat.is_alive():
            beat.terminate()
            beat.wait()
    until(
        lambda: all(not runs(rig, name, "pending", "running") for name in names),
        f"every run is done (seed {seed})",
        60,
    )
    assert check_accounts(rig, *names) >= 20 * 58
    assert all(run.status == "completed" for name in names for run in runs(rig, name))
    measure_lateness(rig, f"20 schedules of 1 s, seed {seed}", *names)
