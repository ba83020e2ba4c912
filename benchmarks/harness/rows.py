"""Fill tables with rows that are over, and with rows whose worker is gone."""

from uuid import UUID

from sqlalchemy import text

from benchmarks.harness.stage import Stage

_FINISHED = text(
    "INSERT INTO generation_jobs"
    " (user_id, prompt, status, attempt, celery_task_id, started_at, completed_at)"
    " SELECT :user, 'a lighthouse at dawn', 'cancelled', 1, gen_random_uuid()::text, now(), now()"
    " FROM generate_series(1, :count)"
)
_LOST = text(
    "WITH lost AS (INSERT INTO generation_jobs"
    " (user_id, prompt, status, attempt, celery_task_id, worker, lease_token, lease_expires_at,"
    "  started_at, dispatched_at, available_at)"
    " SELECT :user, 'a lighthouse at dawn', 'running', 1, gen_random_uuid()::text, 'gone@host',"
    " gen_random_uuid(), now() - interval '1 minute', now() - interval '2 minutes', now(),"
    " now() - interval '2 minutes' FROM generate_series(1, :count) RETURNING id, lease_token)"
    " INSERT INTO job_attempts (job_id, number, worker, lease_token)"
    " SELECT id, 1, 'gone@host', lease_token FROM lost"
)
_STEP = 100_000


def finished_jobs(on: Stage, user_id: UUID, count: int) -> None:
    """Add jobs that have ended."""
    for start in range(0, count, _STEP):
        with on.database.transaction() as session:
            number = min(_STEP, count - start)
            session.execute(_FINISHED, {"user": user_id, "count": number})
    with on.database.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
            "VACUUM ANALYZE generation_jobs"
        )


def lost_jobs(on: Stage, user_id: UUID, count: int) -> None:
    """Add jobs whose lease ended a minute ago."""
    with on.database.transaction() as session:
        session.execute(_LOST, {"user": user_id, "count": count})
