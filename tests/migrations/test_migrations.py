"""Every old row survives the way up and down; the schema is the models'."""

import io
import subprocess
import sys
import threading

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, inspect, text
from sqlalchemy.exc import SQLAlchemyError

from genonaut.api.config import ROOT, environment_variables, get_settings
from genonaut.local import processes
from tests.support import legacy
from tests.support.database import TEMPLATE, alembic_config, new_database

BASELINE, MERGE, HEAD = "704ba727e23b", "9872ef1e50c3", "head"
UPGRADE_LOCK = 0x67656E6F


@pytest.fixture
def old(postgres):
    """A connection to a database at the baseline, with rows."""
    with new_database(postgres) as url:
        engine = create_engine(url)
        with engine.connect() as connection:
            up(connection, BASELINE)
            legacy.fill(connection)
            connection.commit()
            yield connection
        engine.dispose()


def up(connection, revision) -> None:
    command.upgrade(alembic_config(connection), revision)
    connection.commit()


def down(connection, revision) -> None:
    command.downgrade(alembic_config(connection), revision)
    connection.commit()


def rows(connection, table, *, key="id") -> dict:
    found = connection.execute(text(f"SELECT * FROM {table} ORDER BY {key}")).mappings()
    return {row[key]: dict(row) for row in found}


def everything(connection) -> dict:
    tables = ("users", "content_items", "generation_jobs", "comfyui_generation_requests")
    return {table: rows(connection, table) for table in tables}


def schema(connection) -> dict:
    """Columns, keys, indexes and defaults of every table."""
    looked = inspect(connection)
    return {
        table: {
            "columns": {
                column["name"]: (str(column["type"]), column["nullable"], column["default"])
                for column in looked.get_columns(table)
            },
            "foreign keys": sorted(
                (key["name"], str(key["constrained_columns"]), str(key["options"]))
                for key in looked.get_foreign_keys(table)
            ),
            "unique": sorted(
                str(one["column_names"]) for one in looked.get_unique_constraints(table)
            ),
            "checks": sorted(check["name"] for check in looked.get_check_constraints(table)),
            "indexes": sorted(index["name"] for index in looked.get_indexes(table)),
        }
        for table in looked.get_table_names()
        if table != "alembic_version"
    }


def test_the_merge_moves_every_request(old):
    before = rows(old, "comfyui_generation_requests")
    up(old, MERGE)
    moved = {
        job["params"]["migrated_from"]["id"]: job
        for job in rows(old, "generation_jobs").values()
        if job["params"]["migrated_from"]["table"] == "comfyui_generation_requests"
    }
    assert moved.keys() == before.keys()
    same = [
        *("user_id", "prompt", "negative_prompt", "checkpoint_model", "lora_models"),
        *("width", "height", "batch_size", "comfyui_prompt_id"),
        *("created_at", "updated_at", "started_at"),
    ]
    for number, request in before.items():
        job = moved[number]
        assert {name: job[name] for name in same} == {name: request[name] for name in same}
        assert job["job_type"] == "image"
        for name in ("output_paths", "thumbnail_paths", "sampler_params"):
            assert (name in job["params"]) == (request[name] is not None)
        half_done = request["status"] in {"processing", "running", "started"}
        assert job["status"] == ("failed" if half_done else request["status"])
        if half_done:
            assert "no worker" in job["error_message"]
            assert job["completed_at"] == request["updated_at"]
        else:
            assert job["error_message"] == request["error_message"]
            assert job["completed_at"] == request["completed_at"]
    assert not inspect(old).has_table("comfyui_generation_requests")


def test_the_merge_keeps_every_job(old):
    before = rows(old, "generation_jobs")
    up(old, MERGE)
    after = rows(old, "generation_jobs")
    for number, job in before.items():
        now, was = after[number], job["parameters"]
        params = {k: v for k, v in now["params"].items() if k != "migrated_from"}
        if was is None:
            assert params == {}
        else:
            assert params == (was if isinstance(was, dict) else {"parameters": was})
        assert now["prompt"] == job["prompt"]
        assert now["job_type"] == job["job_type"]
    # Of two jobs with one item, the older keeps it.
    kept = [job["content_id"] for job in after.values() if job["content_id"] == 1]
    assert len(kept) == 1


def test_at_the_head_every_job_is_one_the_platform_can_run_or_show(old):
    up(old, HEAD)
    jobs = rows(old, "generation_jobs").values()
    statuses = {"pending", "completed", "failed", "cancelled"}
    assert {job["status"] for job in jobs} <= statuses
    assert all(job["error_code"] for job in jobs if job["status"] == "failed")
    assert all(job["completed_at"] for job in jobs if job["status"] != "pending")
    waiting = [job for job in jobs if job["status"] == "pending"]
    assert {job["job_type"] for job in waiting} == {"image"}
    assert all(job["celery_task_id"] for job in waiting)
    assert all(job["created_at"].utcoffset().total_seconds() == 0 for job in jobs)


def test_down_again_every_row_is_what_it_was(old):
    before, tables = everything(old), schema(old)
    up(old, MERGE)
    up(old, HEAD)
    down(old, MERGE)
    down(old, BASELINE)
    after = everything(old)
    assert after == before
    assert schema(old) == tables
    up(old, HEAD)


def test_a_row_of_unknown_status_ends_failed_with_the_reason(old):
    old.execute(text("UPDATE generation_jobs SET status = 'weird' WHERE id = 1"))
    up(old, HEAD)
    job = rows(old, "generation_jobs")[1]
    assert (job["status"], job["error_code"]) == ("failed", "unknown_status")
    assert "weird" in job["error_message"]
    assert job["completed_at"] is not None


def test_jobs_made_after_the_upgrade_survive_the_way_down(old):
    up(old, HEAD)
    old.execute(
        text(
            "INSERT INTO generation_jobs (user_id, prompt, checkpoint_model, width, params, status,"
            " lease_token, lease_expires_at, attempt) VALUES (:ada, 'new', 'sd', 512,"
            " '{\"sampler_params\": {\"seed\": 1}}', 'running', gen_random_uuid(), now(), 1)"
        ),
        {"ada": legacy.ADA},
    )
    old.execute(text("INSERT INTO users (username) VALUES ('new')"))
    old.commit()
    down(old, BASELINE)
    (job,) = old.execute(text("SELECT * FROM generation_jobs WHERE prompt = 'new'")).mappings()
    assert job["status"] == "pending"
    assert job["parameters"]["sampler_params"] == {"seed": 1}
    assert job["parameters"]["checkpoint_model"] == "sd"
    assert job["parameters"]["width"] == 512
    up(old, HEAD)


def test_a_picture_deleted_after_the_upgrade_does_not_stop_the_way_down(old):
    up(old, HEAD)
    old.execute(text("DELETE FROM content_items"))
    old.commit()
    down(old, BASELINE)
    assert {job["result_content_id"] for job in rows(old, "generation_jobs").values()} == {None}


def test_the_models_are_what_the_migrations_make(engine):
    with engine.connect() as connection:
        command.check(alembic_config(connection))


def test_the_way_down_from_an_empty_database_leaves_nothing(postgres):
    with new_database(postgres, template=TEMPLATE) as url:
        engine = create_engine(url)
        with engine.connect() as connection:
            down(connection, "base")
            assert schema(connection) == {}
        engine.dispose()


def test_upgrades_at_once_wait_for_each_other(postgres):
    with new_database(postgres) as url:
        hasty = create_engine(url, connect_args={"options": "-c lock_timeout=50"})
        other = create_engine(url)
        failures = []

        def upgrade() -> None:
            try:
                with hasty.connect() as connection:
                    up(connection, HEAD)
            except SQLAlchemyError as error:
                failures.append(error)

        def waiting() -> int:
            with other.connect() as connection:
                query = "SELECT count(*) FROM pg_locks WHERE locktype='advisory' AND NOT granted"
                return connection.scalar(text(query))

        thread = threading.Thread(target=upgrade)
        with other.begin() as first:
            first.execute(text(f"SELECT pg_advisory_xact_lock({UPGRADE_LOCK})"))
            thread.start()
            process = subprocess.Popen(
                [sys.executable, "-m", "alembic", "upgrade", "head"],
                cwd=ROOT,
                env={**environment_variables(), "APP_ENV": "test", "DATABASE_URL_TEST": url},
            )
            assert processes.wait_until(lambda: waiting() == 2 or bool(failures), 30)
            first.execute(text("SELECT pg_sleep(0.2)"))  # longer than the hasty one would wait
        thread.join(timeout=60)
        assert process.wait(timeout=60) == 0
        assert failures == []
        with other.connect() as connection:
            assert inspect(connection).has_table("job_attempts")
        hasty.dispose()
        other.dispose()


def test_the_sql_printed_offline_does_the_same(postgres, engine, monkeypatch):
    monkeypatch.setenv("APP_ENV", "test")
    get_settings.cache_clear()
    printed = io.StringIO()
    config = Config(str(ROOT / "alembic.ini"), output_buffer=printed)
    command.upgrade(config, "head", sql=True)
    get_settings.cache_clear()
    with new_database(postgres) as url:
        made = create_engine(url)
        with made.connect() as connection:
            with connection.connection.cursor() as cursor:  # as psql would: % is a character
                cursor.execute(printed.getvalue())
            with engine.connect() as migrated:
                assert schema(connection) == schema(migrated)
        made.dispose()
