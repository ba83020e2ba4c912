"""Read recommendations at 100,000 users, against reading one job: p99 of ``GET``, same server."""

import numpy as np
from sqlalchemy import func, select, text

from benchmarks.harness import load
from benchmarks.harness.load import Work, request
from benchmarks.harness.report import Goal, in_turns, note, tell
from benchmarks.harness.stage import Account, Stage, stage
from genonaut.db.models import User
from genonaut.domain import generation
from genonaut.domain import recommendation_generations as generations
from genonaut.domain import recommendation_writing as writing
from genonaut.domain.generation import NewJob
from genonaut.domain.recommendations import Lists

GOAL = Goal("recommend_read", "ms, p99", 2.0, better="lower")
USERS, ITEMS, LENGTH = 100_000, 20_000, 50
READERS = 200
BLOCK = 5_000
CONNECTIONS = 4
ROUNDS = 5

_FILL = (
    "INSERT INTO users (username) SELECT 'reader' || n FROM generate_series(1, {users}) n",
    "INSERT INTO content_items (title, prompt, creator_id) SELECT 'a lighthouse, no. ' || n,"
    " 'a lighthouse in a storm, oil painting, no. ' || n, (SELECT min(id::text)::uuid FROM users)"
    " FROM generate_series(1, {items}) n",
    "INSERT INTO content_images"
    " (content_id, position, storage_key, sha256, mime, width, height, bytes)"
    " SELECT id, 0, 'images/' || id, md5(id::text), 'image/png', 768, 512, 401322"
    " FROM content_items",
)


def main() -> None:
    """Measure both in turns, few at a time: what one reader waits for, not a queue of others."""
    with stage() as on:
        accounts = on.make_accounts(READERS)
        jobs = [_job_of(on, account) for account in accounts]
        fill(on)
        server = on.serve("genonaut.api.main:app")
        lists = [request("GET", "/api/v1/recommendations", token=a.token) for a in accounts]
        reads = [
            request("GET", f"/api/v1/generation-jobs/{job}", token=account.token)
            for account, job in zip(accounts, jobs, strict=True)
        ]

        def p99_ms(asked: list[str], connections: int = CONNECTIONS) -> float:
            found = load.run(Work(server.port, asked, 200, connections=connections))
            note(f"  {connections} at a time: p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms")
            return found.p99_ms

        for asked in (lists, reads):
            p99_ms(asked)
            p99_ms(asked, 1)
        tell(GOAL, in_turns(ROUNDS, lambda: p99_ms(lists), lambda: p99_ms(reads)))


def fill(on: Stage) -> None:
    """Give every one of very many users a list."""
    for statement in _FILL:
        with on.database.transaction() as session:
            session.execute(text(statement.format(users=USERS - READERS, items=ITEMS)))
    with on.database.transaction() as session:
        ids = session.scalars(select(User.id).order_by(User.id)).all()
        now = session.scalars(select(func.now())).one()
        made = generations.begin(
            session, run_id=None, algorithm="x", as_of=now, fingerprint={}, evaluation=None
        )
    users = np.frombuffer(b"".join(one.bytes for one in ids), "V16")
    random = np.random.default_rng(1)
    for start in range(0, len(users), BLOCK):
        part = users[start : start + BLOCK]
        shape = (len(part), LENGTH)
        lists = Lists(
            item=random.integers(0, ITEMS, shape),
            score=random.random(shape, np.float32),
            reason=random.integers(1, 6, shape),
            because=random.integers(-1, ITEMS, shape),
        )
        with on.database.transaction() as session:
            writing.write(session, made, part, lists, np.arange(1, ITEMS + 1))
    with on.database.transaction() as session:
        generations.switch(session, made, users=len(users), rows=len(users) * LENGTH)
    with on.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM ANALYZE")
    note(f"{len(users):,} lists of {LENGTH}")


def _job_of(on: Stage, account: Account) -> int:
    with on.database.transaction() as session:
        job = generation.create(
            session, account.user_id, NewJob("a lighthouse at dawn"), max_attempts=4
        )
        session.execute(
            text("UPDATE generation_jobs SET status = 'completed', completed_at = now()")
        )
    return job.id


if __name__ == "__main__":
    main()
