"""Read jobs: ``GET /api/v1/generation-jobs/{id}`` against a bare SELECT by key."""

from sqlalchemy import text

from benchmarks.harness import load
from benchmarks.harness.load import request
from benchmarks.harness.report import Goal, in_turns, tell
from benchmarks.harness.stage import Account, Stage, stage
from genonaut.db.models import GenerationJob
from genonaut.domain import generation
from genonaut.domain.generation import NewJob

GOAL = Goal("api_read", "requests/s", 0.5)
USERS = 40
JOBS = 50
WAITING = 5
ROUNDS = 5


def main() -> None:
    """Measure; every tenth job read still waits, so that its place in the queue is counted."""
    with stage() as on:
        owned = [(account, _jobs_of(on, account)) for account in on.make_accounts(USERS)]
        ours = on.serve("genonaut.api.main:app")
        peer = on.serve("benchmarks.harness.peers:store", "--no-access-log")
        gets = [
            request("GET", f"/api/v1/generation-jobs/{job_id}", token=account.token)
            for account, ids in owned
            for job_id in ids
        ]
        selects = [request("GET", f"/jobs/{job_id}") for _, ids in owned for job_id in ids]

        load.rate(ours, gets, 200, 1)
        load.rate(peer, selects, 200, 1)
        tell(
            GOAL,
            in_turns(
                ROUNDS,
                lambda: load.rate(ours, gets, 200),
                lambda: load.rate(peer, selects, 200),
            ),
        )


def _jobs_of(on: Stage, account: Account) -> list[int]:
    with on.database.transaction() as session:
        ids = [
            generation.create(
                session, account.user_id, NewJob("a lighthouse at dawn"), max_attempts=4
            ).id
            for _ in range(JOBS)
        ]
        session.execute(
            text(
                f"UPDATE {GenerationJob.__tablename__} SET status = 'completed',"
                ' completed_at = now(), progress = \'{"phase": "completed"}\''
                " WHERE id = ANY(:ids)"
            ),
            {"ids": ids[WAITING:]},
        )
    return ids


if __name__ == "__main__":
    main()
