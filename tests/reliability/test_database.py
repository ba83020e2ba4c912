"""PostgreSQL restarted, read-only and rolled back, and a disk without room."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from genonaut.domain import generation
from tests.reliability.program import holds, until
from tests.reliability.rig import Rig, on_postgres
from tests.support.proxy import Proxy

KILL_ME = "SELECT pg_terminate_backend(pg_backend_pid())"
REQUEST = generation.NewJob(prompt="never", width=64, height=64)


@pytest.mark.parametrize("how", ["restart", pytest.param("crash", marks=pytest.mark.slow)])
def test_f15_a_restart_of_postgres_in_the_middle_costs_nothing(rig: Rig, how: str) -> None:
    worker = rig.worker()
    job_id = rig.submit(steps=100)
    rig.wait_until_drawing(job_id)
    if how == "restart":
        rig.postgres.restart()
    else:
        rig.postgres.kill9()
        rig.postgres.start()
    job = rig.wait_for(job_id, "completed", 60)
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["completed"]
    assert rig.comfy.runs() == 1
    assert rig.wait_for(rig.submit(), "completed").attempt == 1
    assert worker.is_alive()


@pytest.mark.slow
def test_f15_a_long_outage_of_postgres_is_waited_out(rig: Rig) -> None:
    rig.worker()
    job_id = rig.submit(steps=60)
    rig.wait_until_drawing(job_id)
    rig.postgres.stop()
    time.sleep(8)
    rig.postgres.start()
    rig.wait_for(job_id, "completed", 60)
    assert rig.outcomes(job_id) == ["completed"]
    assert rig.comfy.runs() == 1


@pytest.mark.slow
def test_f15_a_read_only_postgres_is_waited_out(rig: Rig) -> None:
    rig.worker()
    job_id = rig.submit(steps=60)
    rig.wait_until_drawing(job_id)
    on_postgres(rig.postgres, f"ALTER DATABASE {rig.ns} SET default_transaction_read_only = on")
    on_postgres(
        rig.postgres,
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{rig.ns}'",
    )
    until(lambda: not rig.comfy.busy(), "the picture is finished")
    holds(lambda: rig.job(job_id).status == "running", "nothing is written", 3)
    on_postgres(rig.postgres, f"ALTER DATABASE {rig.ns} RESET default_transaction_read_only")
    rig.database.engine.dispose()
    rig.wait_for(job_id, "completed", 60)
    assert rig.comfy.runs() == 1
    assert rig.wait_for(rig.submit(), "completed").attempt == 1


@pytest.mark.slow
def test_f15_a_worker_cut_off_from_postgres_is_replaced_and_fenced_out(rig: Rig) -> None:
    with Proxy(rig.postgres.port) as proxy:
        cut_off = rig.worker("late", DATABASE_URL_TEST=rig.database_url(proxy.port))
        job_id = rig.submit(steps=60)
        rig.wait_until_drawing(job_id)
        proxy.black_hole()
        rig.worker("second")
        job = rig.wait_for(job_id, "completed", 60)
        proxy.forward()
        cut_off.wait_for_log("lease_lost|fenced_out")
        assert rig.job(job_id).version == job.version
        assert rig.outcomes(job_id) == ["worker_lost", "completed"]
        assert rig.comfy.runs() == 1
        rig.stop()


def test_f16_a_job_that_is_rolled_back_is_never_delivered(rig: Rig) -> None:
    rig.database.sinks[:] = [rig.dispatcher().on_events]
    with pytest.raises(ZeroDivisionError):
        _create_and(rig, lambda _: 1 / 0)
    with pytest.raises(DBAPIError):
        _create_and(rig, lambda session: session.execute(text(KILL_ME)))
    worker = rig.worker()
    last = rig.submit()
    rig.wait_for(last, "completed")
    assert [job.id for job in rig.jobs()] == [last]
    assert worker.log.count("received") == 1
    assert rig.waiting_messages() == 0


def _create_and(rig: Rig, fail: Callable[[Session], object]) -> None:
    with rig.database.transaction() as session:
        generation.create(session, rig.user_id, REQUEST, max_attempts=4)
        fail(session)


def test_f17_no_worker_hears_of_a_job_before_its_commit(rig: Rig) -> None:
    worker = rig.worker()
    rig.database.sinks[:] = [rig.dispatcher().on_events]
    with rig.database.transaction() as session:
        job = generation.create(session, rig.user_id, REQUEST, max_attempts=4)
        holds(lambda: "received" not in worker.log, "nothing is delivered", 2)
    assert rig.wait_for(job.id, "completed").attempt == 1
    rig.publish_unknown(job.id + 1000)
    worker.wait_for_log(f"not_claimed +job_id={job.id + 1000}")
    until(lambda: not rig.redis.exists(f"{rig.ns}:unacked"), "its message is acknowledged")
    rig.wait_for(rig.submit(), "completed")


def fill(path: Path) -> None:
    """Write until the disk has no room."""
    with suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 65536):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB for the pictures."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_f36_a_full_disk_makes_jobs_wait_for_room(small_disk: Path, rig: Rig) -> None:
    filler = small_disk / "filler"
    fill(filler)
    rig.worker(STORAGE_DIR=str(small_disk))
    job_id = rig.submit()
    job = rig.wait_for_phase(job_id, "waiting_for_storage")
    assert "no room" in job.progress["reason"]
    assert _files(small_disk) == [filler]
    filler.unlink()
    job = rig.wait_for(job_id, "completed")
    assert job.attempt == 1
    assert rig.outcomes(job_id) == ["waiting", "completed"]
    assert rig.comfy.runs() == 1
    stored = _files(small_disk)
    assert stored
    assert ".tmp" not in {path.parent.name for path in stored}


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
