"""Make one pass over 1,000 stale jobs among a million finished ones, against five seconds.

Beside the result: an idle pass over the same table, the best of five, which is to take 20 ms at
most, and the same look for an auditor.
"""

import time

from sqlalchemy import text

from benchmarks.harness.report import Goal, note, tell
from benchmarks.harness.rows import finished_jobs, lost_jobs
from benchmarks.harness.stage import Stage, stage
from genonaut.worker import repair
from genonaut.worker.queue_app import celery, configuration
from genonaut.worker.reconciler import Reconciler

GOAL = Goal("reap_pass", "s a pass", 1.0, better="lower")
BOUND_S = 5.0
FINISHED, STALE = 1_000_000, 1_000
ROUNDS = 3


def main() -> None:
    """Measure whole passes of the reconciler: rows, messages, Redis and the lock."""
    with stage(postgres_grace_s=0) as on:
        celery.conf.update(configuration(on.settings))
        (account,) = on.make_accounts(1)
        finished_jobs(on, account.user_id, FINISHED)
        reconciler = Reconciler(on.database, on.settings)
        reconciler.run_once()
        pairs = []
        for _ in range(ROUNDS):
            lost_jobs(on, account.user_id, STALE)
            took_s = timed(reconciler)
            note(f"a pass over {STALE:,} stale jobs: {took_s:.2f} s; {mended(on)} mended")
            pairs.append((took_s, BOUND_S))
            with on.database.transaction() as session:
                session.execute(
                    text("UPDATE generation_jobs SET status = 'cancelled' WHERE status = 'pending'")
                )
        vacuum(on)
        idle = sorted(timed(reconciler) for _ in range(5))
        note(f"an idle pass, of five: {idle[0] * 1000:.1f} to {idle[-1] * 1000:.1f} ms (bound 20)")
        began = time.perf_counter()
        with on.database.transaction() as session:
            repair.look(session, on.settings, epoch=None, limit=50)
        note(f"a look for an auditor: {(time.perf_counter() - began) * 1000:.1f} ms")
        reconciler.close()
    tell(GOAL, pairs)


def timed(reconciler: Reconciler) -> float:
    """Make a pass; give its seconds."""
    began = time.perf_counter()
    reconciler.run_once()
    return time.perf_counter() - began


def mended(on: Stage) -> int:
    """Count the acts on record."""
    with on.database.transaction() as session:
        return int(session.execute(text("SELECT count(*) FROM repairs")).scalar_one())


def vacuum(on: Stage) -> None:
    """Tidy up as autovacuum would have."""
    with on.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")


if __name__ == "__main__":
    main()
