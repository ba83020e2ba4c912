"""Take 100 lost jobs from a table of five million rows, against the same from one million."""

import time

from benchmarks.harness.report import Goal, note, tell
from benchmarks.harness.rows import finished_jobs, lost_jobs
from benchmarks.harness.stage import Stage, stage
from genonaut.domain import reaping
from genonaut.worker.repair import limits_of

GOAL = Goal("reap_claim", "ms a claim", 1.3, better="lower")
SMALL, LARGE = 1_000_000, 5_000_000
CLAIMED = 100
CLAIMS = 40


def main() -> None:
    """Measure in the growing table; the best of each, since other work only adds."""
    with stage(postgres_grace_s=0) as on:
        (account,) = on.make_accounts(1)
        finished_jobs(on, account.user_id, SMALL)
        lost_jobs(on, account.user_id, 2 * CLAIMED)
        small_ms = claim_ms(on)
        note(f"among {SMALL:,} rows: {small_ms:.2f} ms")
        finished_jobs(on, account.user_id, LARGE - SMALL)
        large_ms = claim_ms(on)
        note(f"among {LARGE:,} rows: {large_ms:.2f} ms")
    tell(GOAL, [(large_ms, small_ms)])


def claim_ms(on: Stage) -> float:
    """Give the best time of finding and locking them, as a sweep does, milliseconds."""
    found = reaping.WORKER_LOST.found(limits_of(on.settings)).limit(CLAIMED)
    locking = found.with_for_update(of=reaping.WORKER_LOST.model, skip_locked=True)
    took = []
    for _ in range(CLAIMS):
        with on.database.transaction() as session:
            began = time.perf_counter()
            rows = session.execute(locking).all()
            took.append((time.perf_counter() - began) * 1000)
            session.rollback()
        assert len(rows) == CLAIMED
    return min(took)


if __name__ == "__main__":
    main()
