"""Write half a million rows of lists and switch to them, against ``execute_values``."""

import time

import numpy as np
from psycopg2.extras import execute_values
from sqlalchemy import func, select

from benchmarks.harness.report import Goal, in_turns, note, tell
from benchmarks.harness.stage import Stage, stage
from genonaut.domain import recommendation_generations as generations
from genonaut.domain import recommendation_writing as writing
from genonaut.domain.recommendations import Lists

GOAL = Goal("recommend_write", "rows/s", 5.0)
ROUNDS = 3
USERS, LENGTH, BLOCK = 10_000, 50, 1_000
COLUMNS = "generation_id, user_id, rank, content_id, score, reason, because_id"


def made() -> tuple[np.ndarray, Lists, np.ndarray]:
    """Give users, their lists, and ids of items."""
    random = np.random.default_rng(1)
    users = np.sort(np.frombuffer(random.bytes(16 * USERS), "S16")).view("V16")
    shape = (USERS, LENGTH)
    lists = Lists(
        item=random.integers(0, 20_000, shape),
        score=random.random(shape, np.float32),
        reason=random.integers(1, 6, shape),
        because=random.integers(-1, 20_000, shape),
    )
    return users, lists, np.arange(1, 20_001)


def begin(on: Stage) -> int:
    """Begin a generation."""
    with on.database.transaction() as session:
        now = session.scalars(select(func.now())).one()
        return generations.begin(
            session, run_id=None, algorithm="x", as_of=now, fingerprint={}, evaluation=None
        )


def main() -> None:
    """Measure both ways in turns, each with its switch."""
    users, lists, items = made()

    def ours() -> float:
        generation = begin(on)
        began = time.perf_counter()
        for start in range(0, USERS, BLOCK):
            part = slice(start, start + BLOCK)
            some = Lists(
                lists.item[part], lists.score[part], lists.reason[part], lists.because[part]
            )
            with on.database.transaction() as session:
                writing.write(session, generation, users[part], some, items)
        with on.database.transaction() as session:
            generations.switch(session, generation, users=USERS, rows=USERS * LENGTH)
        return USERS * LENGTH / (time.perf_counter() - began)

    def peer() -> float:
        generation = begin(on)
        rows = writing.records(generation, users, lists, items)
        began = time.perf_counter()
        plain = [
            (g, bytes(u).hex(), r, c, s, w, b)
            for g, u, r, c, s, w, b in zip(
                *(rows[n].tolist() for n in rows.dtype.names), strict=True
            )
        ]
        with on.database.transaction() as session:
            with session.connection().connection.cursor() as cursor:
                execute_values(
                    cursor,
                    f"INSERT INTO recommendations ({COLUMNS}) VALUES %s",
                    plain,
                    page_size=1000,
                )
            generations.switch(session, generation, users=USERS, rows=USERS * LENGTH)
        return USERS * LENGTH / (time.perf_counter() - began)

    with stage() as on:
        pairs = in_turns(ROUNDS, ours, peer)
        note(f"{USERS * LENGTH} rows a round; both sides keep their index")
    tell(GOAL, pairs)


if __name__ == "__main__":
    main()
