"""Fire 100 schedules a second: how late each is told, at the 99th percentile, against one second.

A beat process of its own; what counts is from the due time to the event that follows the commit.
Beside the result: plain RedBeat with as many entries, from due to the message in its queue.
"""

import json
import re
import time
from datetime import UTC, datetime, timedelta

import redis
from celery.schedules import schedule
from redbeat import RedBeatSchedulerEntry
from sqlalchemy import func, insert, select

from benchmarks.harness.plain_beat import app
from benchmarks.harness.report import Goal, note, percentile, tell
from benchmarks.harness.stage import NAMESPACE, Stage, stage
from genonaut.db.models import Schedule

GOAL = Goal("beat_late", "s late, p99", 1.0, better="lower")
BOUND_S = 1.0
SCHEDULES = 10_000
EVERY_S = 100
SECONDS = 40.0
WARM_UP_S = 5.0


def main() -> None:
    """Have 10,000 schedules of 100 s each, spread evenly, and listen to what beat tells."""
    with stage(task_packages="tests.support.toys", database_pool_size=5) as on:
        late = ours(on)
    with stage() as on:
        theirs = plain(on)
    for name, found in (("ours", late), ("plain RedBeat", theirs)):
        note(
            f"{name}: {len(found)} fired, {len(found) / SECONDS:.0f} a second;"
            f" p50 {percentile(found, 0.5):.3f} s, p99 {percentile(found, 0.99):.3f} s,"
            f" at most {max(found):.3f} s"
        )
    tell(GOAL, [(percentile(late, 0.99), BOUND_S)])


def ours(on: Stage) -> list[float]:
    """Give how late each run was told of, seconds."""
    row = {"task": "toys.tick", "every_s": EVERY_S}
    with on.database.transaction() as session:
        now = session.scalar(select(func.now()))
        assert now is not None
        first = now.replace(microsecond=0) + timedelta(seconds=8)
        session.execute(
            insert(Schedule),
            [
                {
                    **row,
                    "name": f"bench.{number}",
                    "anchor_at": first + timedelta(seconds=number % EVERY_S),
                    "next_due_at": first + timedelta(seconds=number % EVERY_S),
                }
                for number in range(SCHEDULES)
            ],
        )
    bus = redis.Redis.from_url(on.settings.redis_url).pubsub()
    bus.psubscribe(f"{NAMESPACE}:events:run:*")
    on.run("-m", "celery", "--quiet", "--app=genonaut.worker.queue_app", "beat", "--pidfile=")
    late: list[float] = []
    counts_from = first.timestamp() + WARM_UP_S
    while time.time() < counts_from + SECONDS:
        message = bus.get_message(ignore_subscribe_messages=True, timeout=1)
        if message is None:
            continue
        run = json.loads(message["data"])["data"]
        due_at = datetime.fromisoformat(run["due_at"]).timestamp() if run["due_at"] else 0.0
        if run["version"] == 1 and due_at >= counts_from:
            late.append(time.time() - due_at)
    return late


def plain(on: Stage) -> list[float]:
    """Give how late each message of plain RedBeat was in its queue, seconds."""
    app.conf.update(redbeat_redis_url=on.environment["BENCH_REDIS_URL"])
    client = redis.Redis.from_url(on.environment["BENCH_REDIS_URL"])
    first = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=EVERY_S)
    every = schedule(timedelta(seconds=EVERY_S))
    for number in range(SCHEDULES):
        offset = number % EVERY_S
        entry = RedBeatSchedulerEntry(f"plain.{number}", "plain", every, args=(offset,), app=app)
        entry.save()
        entry.reschedule(first + timedelta(seconds=offset - EVERY_S))
    note(f"plain RedBeat has its entries {first.timestamp() - time.time():.0f} s before the first")
    on.run("-m", "celery", "--quiet", "--app=benchmarks.harness.plain_beat", "beat", "--pidfile=")
    late: list[float] = []
    counts_from = first.timestamp() + WARM_UP_S
    while time.time() < counts_from + SECONDS:
        popped = client.blpop(["celery"], 1)
        if popped is None:
            continue
        (offset,) = re.findall(r"\d+", json.loads(popped[1])["headers"]["argsrepr"])
        due_at = first.timestamp() + int(offset)
        if due_at >= counts_from:
            late.append(time.time() - due_at)
    return late


if __name__ == "__main__":
    main()
