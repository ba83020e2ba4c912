"""Look for what is due at 10,000 schedules, against the same look at 10.

Beside the result: a repair pass of the projection, and a tick of plain RedBeat with as many.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from celery import Celery
from celery.schedules import schedule
from redbeat import RedBeatScheduler, RedBeatSchedulerEntry
from sqlalchemy import delete, insert

from benchmarks.harness.report import Goal, in_turns, note, tell
from benchmarks.harness.stage import NAMESPACE, Stage, stage
from genonaut.db.models import Schedule
from genonaut.domain import schedule_clock
from genonaut.worker.projection import Projection
from genonaut.worker.queue_app import celery, configuration

GOAL = Goal("beat_loop", "us a look", 1.2, better="lower")
FEW, MANY = 10, 10_000
LOOKS = 300
ROUNDS = 7


def main() -> None:
    """Measure both numbers in turns; what is due is a day away, so that each look is idle."""
    with stage() as on:
        celery.conf.update(configuration(on.settings))

        def look(count: int) -> float:
            fill(on, count)
            return microseconds(lambda: looked(on), LOOKS)

        pairs = in_turns(ROUNDS, lambda: look(MANY), lambda: look(FEW))
        fill(on, MANY)
        projection = Projection(celery, on.database)
        for name in ("first", "later"):
            took_s = microseconds(projection.repair, 1) / 1e6
            note(f"{name} repair pass of {MANY:,} entries: {took_s:.2f} s")
        note(f"plain RedBeat, {MANY:,} entries: {plain_tick(on):.0f} us a tick")
    tell(GOAL, pairs)


def looked(on: Stage) -> None:
    """Look as beat does on every round of its loop."""
    with on.database.looking() as session:
        schedule_clock.look(session)


def fill(on: Stage, count: int) -> None:
    """Have so many schedules, none of them due soon."""
    later = datetime.now(UTC) + timedelta(days=1)
    row = {"task": "content.refresh_stats", "every_s": 100_000}
    with on.database.transaction() as session:
        session.execute(delete(Schedule))
        session.execute(
            insert(Schedule),
            [
                {**row, "name": f"bench.{n}", "next_due_at": later + timedelta(seconds=n)}
                for n in range(count)
            ],
        )
    with on.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
            "VACUUM ANALYZE schedules"  # as autovacuum would have
        )


def plain_tick(on: Stage) -> float:
    """Give what a tick of RedBeat alone takes with as many entries, microseconds."""
    app = Celery("plain", broker=on.environment["BENCH_REDIS_URL"], set_as_current=False)
    app.conf.redbeat_redis_url = on.environment["BENCH_REDIS_URL"]
    app.conf.redbeat_key_prefix = f"{NAMESPACE}:plain:"
    app.conf.redbeat_lock_key = None
    for number in range(MANY):
        every = schedule(timedelta(seconds=100_000))
        RedBeatSchedulerEntry(f"plain.{number}", "plain", every, app=app).save()
    scheduler = RedBeatScheduler(app, lazy=True)
    return microseconds(scheduler.tick, LOOKS)


def microseconds(act: Callable[[], object], times: int) -> float:
    """Give the mean time of one act."""
    began = time.perf_counter()
    for _ in range(times):
        act()
    return (time.perf_counter() - began) / times * 1e6


if __name__ == "__main__":
    main()
