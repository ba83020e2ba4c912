"""Old rows go while everybody works: in small batches, in nobody's way, and never one too many."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from genonaut.core.errors import GenonautError
from genonaut.db.session import make_engine
from genonaut.domain import retention, runs
from genonaut.domain.retention_rules import rules
from genonaut.domain.runs import NewRun, Trigger
from genonaut.worker.tasks.retention import ages, purge
from tests.reliability.rig import MEASURED, Rig

LOCK_S = 0.5

OLD = """
INSERT INTO schedules (name, task, every_s, next_due_at)
SELECT 's' || n, 'toys.count', 60, now() + interval '1 year' FROM generate_series(1, 50) n;

INSERT INTO user_notifications (user_id, kind, dedupe_key, title, created_at, read_at)
SELECT :ada, 'system', 'old' || n, 't', now() - interval '500 days',
  CASE WHEN n % 2 = 0 THEN now() - n % 200 * interval '1 day' END
FROM generate_series(1, :many * 4 / 10) n;

INSERT INTO generation_jobs (user_id, prompt, status, completed_at)
SELECT :ada, 'old', CASE WHEN n % 10 > 0 THEN 'completed' ELSE 'pending' END,
  CASE WHEN n % 10 > 0 THEN now() - n % 360 * interval '1 day' END
FROM generate_series(1, :many / 50) n;

INSERT INTO job_attempts (job_id, number, worker, lease_token, started_at, ended_at, outcome)
SELECT id, n, 'w', gen_random_uuid(), coalesce(completed_at, now() - interval '900 days'),
  coalesce(completed_at, now() - interval '900 days'), 'retried'
FROM generation_jobs, generate_series(1, 10) n;

INSERT INTO task_runs (task, trigger, queue, celery_task_id, status, error_code, completed_at,
  created_at, available_at, schedule, due_at)
SELECT 'toys.count', CASE WHEN n % 4 = 0 THEN 'schedule' ELSE 'api' END, 'generation', 'c',
  CASE WHEN n % 50 = 0 THEN 'pending' WHEN n % 3 = 0 THEN 'failed' ELSE 'completed' END,
  CASE WHEN n % 3 = 0 THEN 'broken' END,
  CASE WHEN n % 50 > 0 THEN now() - (:many / 4 - n) * interval '180 days' / (:many / 4) END,
  now() - interval '200 days', now() + interval '1 year',
  CASE WHEN n % 4 = 0 THEN 's' || (n / 4 % 50 + 1) END,
  CASE WHEN n % 4 = 0 THEN now() - (:many / 4 - n) * interval '1 minute' END
FROM generate_series(1, :many / 4) n;

UPDATE task_runs SET parent_id = id - 7 WHERE id % 11 = 0 AND id > 7;
UPDATE task_runs SET retry_of = id - 3 WHERE id % 13 = 0 AND id > 3;

INSERT INTO run_failures (run_id, ref, error)
SELECT id, n, 'e' FROM task_runs, generate_series(1, 10) n WHERE id % 20 = 0;

INSERT INTO audit_log (at, actor, action, target)
SELECT now() - n % 1000 * interval '1 day', 'ada', 'a', 't'
FROM generate_series(1, :many * 15 / 100) n;

CREATE TABLE before AS SELECT id, parent_id, retry_of, status, completed_at FROM task_runs;
CREATE TABLE batches (transaction xid8, removed bigint);

CREATE FUNCTION note_batch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO batches SELECT pg_current_xact_id(), count(*) FROM gone; RETURN NULL;
END $$
"""

NOTE = (
    "CREATE TRIGGER note_batch AFTER DELETE ON {0} REFERENCING OLD TABLE AS gone"
    " FOR EACH STATEMENT EXECUTE FUNCTION note_batch()"
)
PURGED = ("user_notifications", "job_attempts", "task_runs", "run_failures", "audit_log")

# What must not have happened, as a count of rows.
WRONGS = {
    "unfinished runs removed": (
        "SELECT count(*) FROM before LEFT JOIN task_runs USING (id)"
        " WHERE before.status = 'pending' AND task_runs.id IS NULL"
    ),
    "young runs removed": (
        "SELECT count(*) FROM before LEFT JOIN task_runs USING (id)"
        " WHERE before.completed_at > now() - interval '89 days' AND task_runs.id IS NULL"
    ),
    "runs that lost what they name": (
        "SELECT count(*) FROM before JOIN task_runs USING (id)"
        " WHERE (before.parent_id, before.retry_of)"
        " IS DISTINCT FROM (task_runs.parent_id, task_runs.retry_of)"
    ),
    "repeated runs removed": (
        "SELECT count(*) FROM task_runs WHERE trigger = 'cli' AND retry_of IS NULL"
    ),
    "schedules without a run": (
        "SELECT count(*) FROM schedules"
        " WHERE NOT EXISTS (SELECT FROM task_runs WHERE schedule = schedules.name)"
    ),
    "timelines that lost a part": (
        "SELECT count(*) FROM (SELECT count(*) FROM generation_jobs j"
        " LEFT JOIN job_attempts a ON a.job_id = j.id GROUP BY j.id"
        " HAVING count(a.id) NOT IN (0, 10)) torn"
    ),
    "timelines of unfinished jobs removed": (
        "SELECT count(*) FROM generation_jobs j WHERE status = 'pending'"
        " AND NOT EXISTS (SELECT FROM job_attempts WHERE job_id = j.id)"
    ),
    "runs that lost some failed items": (
        "SELECT count(*) FROM (SELECT count(*) FROM task_runs r"
        " LEFT JOIN run_failures f ON f.run_id = r.id WHERE r.id % 20 = 0 AND trigger <> 'cli'"
        " AND NOT EXISTS (SELECT FROM task_runs WHERE retry_of = r.id AND trigger = 'cli')"
        " AND task <> 'retention.purge' GROUP BY r.id HAVING count(f.id) <> 10) torn"
    ),
}


class Busy:
    """People and programs at work, whose every statement is timed and waits for no lock long."""

    def __init__(self, rig: Rig, many: int) -> None:
        self._rig = rig
        self._many = many
        self._engine = make_engine(rig.settings().database_url, pool_size=4)
        self.longest_s = 0.0
        self.acts = 0
        self.repeated = 0
        self.wrong: list[str] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Have all of them work for as long as the block lasts."""
        over = threading.Event()
        threads = [
            threading.Thread(target=self._keep_on, args=(act, over))
            for act in (self._read_and_unread, self._report, self._hear, self._repeat)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join(30)
            self._engine.dispose()

    def _keep_on(self, act: Callable[[], None], over: threading.Event) -> None:
        while not over.is_set():
            began = time.monotonic()
            try:
                act()
            except DBAPIError as error:
                self.wrong.append(f"{act.__name__}: {error.orig}")
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.acts += 1
            over.wait(0.002)

    def _do(self, statement: str, **values: Any) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_S * 1000:.0f}ms'"))
            connection.execute(text(statement), values)

    def _read_and_unread(self) -> None:
        self._do(
            "UPDATE user_notifications SET read_at = CASE WHEN read_at IS NULL THEN now() END"
            " WHERE id = :one",
            one=random.randint(1, self._many * 4 // 10),
        )

    def _report(self) -> None:
        self._do(
            "UPDATE task_runs SET version = version + 1, updated_at = now() WHERE id = :one",
            one=random.randint(1, self._many // 200) * 50,
        )

    def _hear(self) -> None:
        self._do(
            "INSERT INTO user_notifications (user_id, kind, dedupe_key, title)"
            " VALUES (:ada, 'system', gen_random_uuid(), 't')",
            ada=self._rig.user_id,
        )

    def _repeat(self) -> None:
        """Repeat an old run that failed, as an operator may until it is gone."""
        old = random.randint(1, self._many // 12) * 3
        request = NewRun("toys.count", "generation", Trigger.CLI, overlap_key=str(old))
        try:
            with self._rig.database.transaction() as session:
                session.execute(text(f"SET LOCAL lock_timeout = '{LOCK_S * 1000:.0f}ms'"))
                runs.again(session, old, request)
        except GenonautError:  # it is gone, is no failed one, or is being repeated
            return
        self.repeated += 1


def lay_out(connection: Connection, rig: Rig, many: int) -> None:
    for statement in OLD.split(";\n\n"):
        values = {"ada": rig.user_id, "many": many}
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        connection.execute(text(statement), used)
    for table in PURGED:
        connection.execute(text(NOTE.format(table)))
    connection.execute(text("ANALYZE"))


@pytest.mark.parametrize("many", [10_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_f48_old_rows_go_while_everybody_works(rig: Rig, many: int) -> None:
    with rig.database.engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        lay_out(connection, rig, many)
    rig.runner(RETENTION_TOKENS_DAYS="0")
    busy = Busy(rig, many)
    began = time.monotonic()
    with busy.at_work():
        run = rig.wait_for_run(rig.trigger(purge.name), "completed", 900)
    took_s = time.monotonic() - began
    removed = sum(run.result["removed"].values())

    with rig.database.engine.connect() as connection:
        (largest,) = connection.execute(
            text("SELECT max(n) FROM (SELECT sum(removed) n FROM batches GROUP BY transaction) b")
        ).one()
        (noted,) = connection.execute(text("SELECT sum(removed) FROM batches")).one()
        connection.execute(text("SET statement_timeout = 0"))
        wrongs = {what: connection.scalar(text(count)) for what, count in WRONGS.items()}
    assert busy.wrong == [], "nobody waited for a lock for half a second"
    assert wrongs == dict.fromkeys(WRONGS, 0)
    assert largest <= 1000
    assert removed == noted
    assert removed > many / 3
    MEASURED.append(
        f"F48, {removed:,} of {many:,} rows removed in {took_s:.0f} s, {largest} at once at most;"
        f" the longest of {busy.acts:,} acts beside it: {busy.longest_s * 1000:.0f} ms"
        f" ({busy.repeated} repeats)"
    )

    rig.wait_for_run(rig.trigger(purge.name), "completed", 60)  # what others held
    with rig.database.transaction() as session:
        left = [retention.count(session, rule) for rule in rules(ages(rig.settings()))]
        assert not any(number for counts in left for number in counts.values())
        session.execute(text("TRUNCATE generation_jobs CASCADE"))  # no books were kept for these
