"""Fire 100 schedules a second: how late each is told, at the 99th percentile, against one second.

A beat process of its own; what counts is from the due time to the event that follows the commit.
"""

import json
import time
from datetime import datetime, timedelta

import redis
from sqlalchemy import func, insert, select

from benchmarks.harness.report import Goal, note, percentile, tell
from benchmarks.harness.stage import NAMESPACE, stage
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
        on.run("-m", "celery", "--quiet", "--app=genonaut.worker.queue_app", "beat")
        late: list[float] = []
        end = first.timestamp() + WARM_UP_S + SECONDS
        while time.time() < end:
            message = bus.get_message(ignore_subscribe_messages=True, timeout=1)
            if message is None:
                continue
            run = json.loads(message["data"])["data"]
            due_at = datetime.fromisoformat(run["due_at"]).timestamp() if run["due_at"] else 0.0
            if run["version"] == 1 and due_at >= first.timestamp() + WARM_UP_S:
                late.append(time.time() - due_at)
    a_second = len(late) / SECONDS
    note(
        f"{len(late)} fired, {a_second:.0f} a second; p50 {percentile(late, 0.5):.3f} s,"
        f" p99 {percentile(late, 0.99):.3f} s, at most {max(late):.3f} s"
    )
    tell(GOAL, [(percentile(late, 0.99), BOUND_S)])


if __name__ == "__main__":
    main()
