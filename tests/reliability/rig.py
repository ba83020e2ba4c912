"""A whole platform on free ports for one test: what runs, what it holds, and how it is broken."""

import itertools
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psycopg2
import redis
from sqlalchemy import func, select

from genonaut.api.config import Settings, load_settings
from genonaut.core.errors import ConflictError
from genonaut.db.models import (
    ContentImage,
    ContentItem,
    GenerationJob,
    JobAttempt,
    UserNotification,
)
from genonaut.db.session import Database
from genonaut.domain import generation, users
from genonaut.domain.lifecycle import FINAL, Status
from genonaut.worker.dispatch import Dispatcher
from genonaut.worker.queue_app import celery, configuration
from tests.reliability.program import NeverError, Program, base_environment, until
from tests.reliability.simulator import Comfy
from tests.support.servers import RunningPostgres, RunningValkey

SHORT: dict[str, str] = {
    "LEASE_S": "3",
    "LEASE_RENEW_S": "1",
    "LEASE_GRACE_S": "0.5",
    "POSTGRES_GRACE_S": "3",
    "RECONCILE_INTERVAL_S": "0.5",
    "REPUBLISH_AFTER_S": "3",
    "HEARTBEAT_INTERVAL_S": "1",
    "JOB_RETRY_BACKOFF_S": "0.3",
    "COMFYUI_POLL_INTERVAL_S": "0.3",
    "COMFYUI_CONNECT_TIMEOUT_S": "1",
    "COMFYUI_READ_TIMEOUT_S": "3",
    "WORKER_SHUTDOWN_GRACE_S": "5",
    "STORAGE_MIN_FREE_MB": "0",
}
"""Production's rules with short times."""

MEASURED: list[str] = []
"""Lines for the end of the session's report."""

TEMPLATE = "rig_template"
_NUMBERS = itertools.count(1)


def on_postgres(server: RunningPostgres, statement: str) -> None:
    """Run one statement as the superuser, outside any transaction."""
    connection = psycopg2.connect(server.url())
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@dataclass(frozen=True, slots=True)
class Servers:
    """What all tests of a session share."""

    postgres: RunningPostgres
    valkey: RunningValkey
    comfy: Comfy


class Heard:
    """Collect the events of the channels of a pattern; a context manager."""

    def __init__(self, client: redis.Redis, pattern: str) -> None:
        self._pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
        self._pubsub.psubscribe(**{pattern: self._take})
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._pubsub.get_message(timeout=1)
        self._thread = self._pubsub.run_in_thread(sleep_time=0.05, daemon=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.stop()
        self._thread.join()

    def _take(self, message: dict[str, Any]) -> None:
        self._rows.append(json.loads(message["data"])["data"])

    def finals(self) -> dict[int, list[str]]:
        """Give the final states told so far, by job, in the order they came."""
        told: dict[int, list[str]] = {}
        for row in list(self._rows):
            if row["status"] in FINAL:
                told.setdefault(row["id"], []).append(row["status"])
        return told


class Rig:
    """One environment of its own: database, namespace, storage, workers, a user."""

    def __init__(
        self, servers: Servers, folder: Path, stack: ExitStack, *, redis_db: int = 5
    ) -> None:
        self.postgres = servers.postgres
        self.valkey = servers.valkey
        self.comfy = servers.comfy
        self.folder = folder
        self.ns = f"rig{next(_NUMBERS)}"
        self.programs: list[Program] = []
        self.neighbours: list[Rig] = []
        self.environment: dict[str, str] = {
            **base_environment(),
            **SHORT,
            "APP_ENV": "test",
            "DATABASE_URL_TEST": servers.postgres.url(self.ns),
            "REDIS_URL_TEST": servers.valkey.url(redis_db),
            "REDIS_NS_TEST": self.ns,
            "COMFYUI_URL": servers.comfy.url,
            "STORAGE_DIR": str(folder / "storage"),
            "VAR_DIR": str(folder / "var"),
        }
        self._stack = stack
        self._dispatcher: Dispatcher | None = None
        self.redis = redis.Redis.from_url(servers.valkey.url(redis_db), socket_timeout=5)
        stack.callback(self.redis.close)
        stack.callback(self.redis.flushdb)
        on_postgres(servers.postgres, f"CREATE DATABASE {self.ns} TEMPLATE {TEMPLATE}")
        stack.callback(on_postgres, servers.postgres, f"DROP DATABASE {self.ns} WITH (FORCE)")
        self.database = Database.connect(self.settings().database_url)
        stack.callback(self.database.close)
        self.user_id = self.add_user("ada")

    def measure(self, what: str, since: float) -> None:
        """Note for the report how long something took, from a ``time.monotonic()`` on."""
        MEASURED.append(f"{what}: {time.monotonic() - since:.1f} s")

    def restore(self) -> None:
        """Bring back the shared servers, however the test left them."""
        for server in (self.postgres, self.valkey):
            server.cont()
            server.start()

    def stop(self) -> None:
        """End every program at once."""
        for program in self.programs:
            program.close()

    # --- parts -----------------------------------------------------------------------------

    def settings(self) -> Settings:
        """Give the settings that the programs read, for what runs in the test itself."""
        own = {name.lower(): value for name, value in self.environment.items()}
        return load_settings(**{k: v for k, v in own.items() if k in Settings.model_fields})

    def start(self, name: str, *arguments: str, **environment: str) -> Program:
        """Start a program of ours; it ends with the test at the latest."""
        program = Program(
            name,
            list(arguments),
            environment={**self.environment, **environment},
            folder=self.folder,
        )
        self.programs.append(program)
        self._stack.callback(program.close)
        return program

    def worker(
        self,
        name: str = "generation",
        *,
        slots: int = 2,
        hook: str | None = None,
        wait: bool = True,
        **environment: str,
    ) -> Program:
        """Start a generation worker, with a fault from ``hooks``; ``wait`` until it consumes."""
        program = self.start(
            name,
            *("-m", "celery", "-A", "genonaut.worker.queue_app", "worker"),
            *("-Q", "generation", "-c", str(slots), "-n", f"{name}@%h"),
            *("--without-mingle", "--without-gossip"),
            *(("-I", f"tests.reliability.hooks.{hook}") if hook else ()),
            **environment,
        )
        if wait:
            program.wait_for_log(r"\w ready\.")
        return program

    def another_comfy(self) -> Comfy:
        """Start one more simulator, for workers that are started from now on."""
        comfy = Comfy(self.folder, name="comfyui2")
        self._stack.callback(comfy.close)
        comfy.start()
        self.environment["COMFYUI_URL"] += f",{comfy.url}"
        return comfy

    def neighbour(self, folder: Path) -> "Rig":
        """Make a second environment on the same servers and the same logical Redis database."""
        folder.mkdir()
        made = Rig(Servers(self.postgres, self.valkey, self.comfy), folder, self._stack)
        self.neighbours.append(made)
        return made

    def beat(self) -> Program:
        """Start a beat."""
        return self.start("beat", "-m", "celery", "-A", "genonaut.worker.queue_app", "beat")

    def dispatcher(self) -> Dispatcher:
        """Give what publishes after our commits, as in the API."""
        if self._dispatcher is None:
            settings = self.settings()
            celery.conf.update(configuration(settings))
            self._dispatcher = Dispatcher(self.database, settings)
            self._dispatcher.start()
            self._stack.callback(self._dispatcher.stop)
        return self._dispatcher

    # --- jobs ------------------------------------------------------------------------------

    def add_user(self, name: str) -> UUID:
        """Open an account."""
        with self.database.transaction() as session:
            return users.create_user(session, name).id

    def submit(
        self,
        *,
        prompt: str = "a lighthouse in the rain",
        steps: int = 2,
        batch_size: int = 1,
        max_attempts: int = 4,
        publish: bool = True,
        count: int = 1,
    ) -> int:
        """Commit jobs and publish them, as the API does; give the (first) id.

        Without ``publish`` it is as if the process died right after the commit.
        """
        request = generation.NewJob(
            prompt=prompt,
            width=64,
            height=64,
            batch_size=batch_size,
            sampler_params={"steps": steps},
        )
        sinks = [self.dispatcher().on_events] if publish else []
        self.database.sinks[:] = sinks
        with self.database.transaction() as session:
            jobs = [
                generation.create(session, self.user_id, request, max_attempts=max_attempts)
                for _ in range(count)
            ]
        return jobs[0].id

    def cancel(self, job_id: int) -> None:
        """Ask for a job's end, as its owner."""
        with self.database.transaction() as session:
            generation.request_cancel(session, self.user_id, job_id)

    def try_cancel(self, job_id: int) -> bool:
        """Ask for a job's end; whether it had not ended before."""
        try:
            self.cancel(job_id)
        except ConflictError:
            return False
        return True

    def hear_jobs(self) -> "Heard":
        """Listen to what is told about every job."""
        return Heard(self.redis, f"{self.ns}:events:job:*")

    def job(self, job_id: int) -> GenerationJob:
        """Read a job's row."""
        with self.database.transaction() as session:
            return session.get_one(GenerationJob, job_id)

    def jobs(self) -> list[GenerationJob]:
        """Read every job's row."""
        with self.database.transaction() as session:
            return list(session.scalars(select(GenerationJob).order_by(GenerationJob.id)))

    def attempts(self, job_id: int) -> list[JobAttempt]:
        """Read a job's attempts, oldest first."""
        query = select(JobAttempt).where(JobAttempt.job_id == job_id).order_by(JobAttempt.id)
        with self.database.transaction() as session:
            return list(session.scalars(query))

    def outcomes(self, job_id: int) -> list[str | None]:
        """Say how a job's attempts ended, oldest first; None for one at work."""
        return [attempt.outcome for attempt in self.attempts(job_id)]

    def timeline(self, job_id: int) -> str:
        """Give the messages of a job's timeline, a line each."""
        with self.database.transaction() as session:
            entries = generation.timeline(session, session.get_one(GenerationJob, job_id))
        return "\n".join(entry["message"] for entry in entries)

    def notices(self, job_id: int) -> list[str]:
        """Give the kinds of the notifications about a job."""
        query = select(UserNotification.kind).where(
            UserNotification.data["job_id"].as_integer() == job_id
        )
        with self.database.transaction() as session:
            return list(session.scalars(query))

    def count(self, status: str) -> int:
        """Count the jobs in a state."""
        query = select(func.count()).where(GenerationJob.status == status)
        with self.database.transaction() as session:
            return session.scalars(query.select_from(GenerationJob)).one()

    def wait_for(self, job_id: int, status: str, timeout_s: float = 30) -> GenerationJob:
        """Wait until a job is in a state; another final one fails at once."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            if job.status != status and job.status in FINAL:
                why = f"{job.error_code}: {job.error_message}"
                raise NeverError(f"job {job_id} became {job.status} ({why})")
            return job if job.status == status else None

        return until(there, f"job {job_id} is {status}", timeout_s)  # type: ignore[return-value]

    def wait_for_phase(self, job_id: int, phase: str, timeout_s: float = 30) -> GenerationJob:
        """Wait until a job's progress says so."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            return job if job.progress.get("phase") == phase else None

        return until(there, f"job {job_id} is {phase}", timeout_s)  # type: ignore[return-value]

    def wait_until_claimed(self, job_id: int) -> None:
        """Wait until a worker has taken a job."""
        until(lambda: self.job(job_id).status != Status.PENDING, f"job {job_id} is taken")

    def wait_until_running(self, job_id: int) -> GenerationJob:
        """Wait until some ComfyUI works on a job."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            return job if job.execution_started_at is not None else None

        return until(there, f"job {job_id} is executed")  # type: ignore[return-value]

    def wait_until_drawing(self, job_id: int, timeout_s: float = 30) -> GenerationJob:
        """Wait until the simulator executes a job's prompt, and the row knows."""

        def there() -> GenerationJob | None:
            job = self.job(job_id)
            prompt_id = job.comfyui_prompt_id
            executing = job.status == Status.RUNNING and job.execution_started_at is not None
            return job if executing and prompt_id and self.comfy.runs_now(prompt_id) else None

        return until(there, f"job {job_id} is drawing", timeout_s)  # type: ignore[return-value]

    # --- what must always hold -------------------------------------------------------------

    def check_books(self) -> None:
        """Check that every job has what belongs to its state, once."""
        with self.database.transaction() as session:
            jobs = session.scalars(select(GenerationJob)).all()
            items = session.scalars(select(ContentItem.id)).all()
            images = session.scalars(select(ContentImage.content_id)).all()
        for job in jobs:
            expected = [f"job_{job.status}"] if job.status in FINAL else []
            assert self.notices(job.id) == expected, f"notices of job {job.id}"
            ended = [attempt for attempt in self.attempts(job.id) if attempt.ended_at]
            running = len(self.attempts(job.id)) - len(ended)
            assert running == (job.status == Status.RUNNING), f"attempts of job {job.id}"
            if job.status == Status.COMPLETED:
                assert images.count(job.content_id) == job.batch_size
        completed = [job.content_id for job in jobs if job.status == Status.COMPLETED]
        assert len(completed) == len(items), "a content item for each completed job and no other"
        assert set(completed) == set(items)

    def check_keys(self) -> None:
        """Check that nothing in Redis lies outside the environment's prefix."""
        ours = tuple(f"{rig.ns}:" for rig in (self, *self.neighbours))
        strangers = [key for key in self.keys() if not key.startswith(ours)]
        assert strangers == []

    def copy_message(self, *, times: int) -> None:
        """Put copies of the oldest waiting message into the queue."""
        queue = f"{self.ns}:generation"
        message = self.redis.lindex(queue, -1)
        assert isinstance(message, bytes)
        for _ in range(times):
            self.redis.rpush(queue, message)

    def unpublished(self) -> int:
        """Count the pending rows that were not published since Redis last lost its memory."""
        epoch = self.redis.get(f"{self.ns}:epoch")
        assert isinstance(epoch, bytes), "Redis has no epoch yet"
        return sum(
            job.status == Status.PENDING and job.dispatch_epoch != epoch.decode()
            for job in self.jobs()
        )

    def keys(self) -> list[str]:
        """List the keys of the logical database."""
        return sorted(key.decode() for key in self.redis.scan_iter(count=1000))

    def waiting_messages(self) -> int:
        """Count the messages in the queue that no worker has taken."""
        return int(self.redis.llen(f"{self.ns}:generation"))
