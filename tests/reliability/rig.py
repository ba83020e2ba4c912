"""A whole platform on free ports for one test: what runs, what it holds, and how it is broken."""

import importlib
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg2
import redis
from celery.app.control import Control

from genonaut.api.config import Settings, load_settings
from genonaut.core.errors import ConflictError
from genonaut.db.session import Database
from genonaut.domain import generation, runs, users
from genonaut.domain.delivery import Message
from genonaut.domain.lifecycle import Status
from genonaut.domain.runs import Trigger
from genonaut.worker.dispatch import Broker, Dispatcher
from genonaut.worker.queue_app import celery, configuration
from genonaut.worker.queues import GENERATION, RUN_COMFY_JOB
from genonaut.worker.task import TaskDefinition, find
from tests.reliability.observe import Heard, Monitor
from tests.reliability.program import Program, base_environment
from tests.reliability.rows import Rows
from tests.reliability.simulator import Comfy
from tests.reliability.web import Api
from tests.support.servers import RunningPostgres, RunningValkey, free_port

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
    "JOBS_PER_MINUTE": "1000",
}
"""Production's rules with short times."""

MEASURED: list[str] = []
"""Lines for the end of the session's report."""

TEMPLATE = "rig_template"
_NUMBERS = itertools.count(1)


def toy(name: str) -> TaskDefinition[Any, Any]:
    """Give a toy task."""
    importlib.import_module("tests.support.toys.counting")
    return find(name)


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


class Rig(Rows):
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
        self.brought = set()
        self.web: Api | None = None
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
            "TASK_PACKAGES": "tests.support.toys",
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
        queues: str = "generation",
        slots: int = 2,
        hook: str | None = None,
        wait: bool = True,
        **environment: str,
    ) -> Program:
        """Start a worker, with a fault from ``hooks``; ``wait`` until it consumes."""
        program = self.start(
            name,
            *("-m", "celery", "-A", "genonaut.worker.queue_app", "worker"),
            *("-Q", queues, "-c", str(slots), "-n", f"{name}@%h"),
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

    def beat(self, name: str = "beat", **environment: str) -> Program:
        """Start a beat."""
        command = ("-m", "celery", "-A", "genonaut.worker.queue_app", "beat", "--pidfile=")
        return self.start(name, *command, **environment)

    def api(self, *, port: int | None = None) -> Api:
        """Start the API; from now on jobs are submitted and cancelled through it."""
        port = port or free_port()
        program = self.api_program(f"api{len(self.programs)}", port)
        self.web = Api(program, port, self.token(self.user_id))
        self._stack.callback(self.web.http.close)
        self.web.wait_until_ready()
        return self.web

    def api_program(self, name: str, port: int, **environment: str) -> Program:
        """Start the API's process alone."""
        return self.start(
            name,
            *("-m", "uvicorn", "genonaut.api.main:app", "--host", "127.0.0.1"),
            *("--port", str(port), "--log-level", "warning"),
            **environment,
        )

    def token(self, user_id: UUID) -> str:
        """Make an API token."""
        with self.database.transaction() as session:
            return users.issue_token(session, user_id, name="test")

    def dispatcher(self) -> Dispatcher:
        """Give what publishes after our commits, as in the API."""
        if self._dispatcher is None:
            settings = self.settings()
            celery.conf.update(configuration(settings))
            self._dispatcher = Dispatcher(self.database, settings)
            self._dispatcher.start()
            self._stack.callback(self._dispatcher.stop)
        return self._dispatcher

    def freeze_reconciler(self, worker: Program) -> bool:
        """Have a worker with the hook ``freeze_in_pass`` stop in its next pass; whether it has."""
        if worker.is_frozen():
            return True
        (self.folder / "freeze").touch()
        return False

    def database_url(self, port: int) -> str:
        """Give the database's URL on another port."""
        return self.postgres.url(self.ns).replace(f":{self.postgres.port}/", f":{port}/")

    # --- runs ------------------------------------------------------------------------------

    def runner(self, name: str = "default", **options: Any) -> Program:
        """Start a worker for tasks."""
        return self.worker(name, queues="default,maintenance,notifications", **options)

    def trigger(self, task: str, **params: Any) -> int:
        """Ask for a run of a toy task as the API does; give its id."""
        definition = toy(task)
        self.database.sinks[:] = [self.dispatcher().on_events]
        request = definition.request(definition.validate(params), trigger=Trigger.API)
        with self.database.transaction() as session:
            return runs.trigger(session, request).run.id

    def cancel_run(self, run_id: int) -> None:
        """Ask for a run's end."""
        with self.database.transaction() as session:
            runs.request_cancel(session, run_id)

    # --- jobs ------------------------------------------------------------------------------

    def add_user(self, name: str, role: users.Role = users.Role.USER) -> UUID:
        """Open an account."""
        with self.database.transaction() as session:
            return users.create_user(session, name, role=role).id

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
        """Take jobs, through the API if there is one, else as it does; give the (first) id.

        Without ``publish`` it is as if the process died right after the commit.
        """
        body: dict[str, Any] = {
            "prompt": prompt,
            "width": 64,
            "height": 64,
            "batch_size": batch_size,
            "sampler_params": {"steps": steps},
        }
        if self.web is not None and publish:
            return min(self.web.submit(**body) for _ in range(count))
        self.database.sinks[:] = [self.dispatcher().on_events] if publish else []
        with self.database.transaction() as session:
            jobs = [
                generation.create(
                    session, self.user_id, generation.NewJob(**body), max_attempts=max_attempts
                )
                for _ in range(count)
            ]
        return jobs[0].id

    def cancel(self, job_id: int) -> None:
        """Ask for a job's end, as its owner.

        Raises: ConflictError: it has ended otherwise.
        """
        if self.web is not None:
            status = self.web.cancel(job_id)
            if status == 409:
                raise ConflictError
            assert status in {200, 202}
            return
        with self.database.transaction() as session:
            generation.request_cancel(session, self.user_id, job_id)

    def try_cancel(self, job_id: int) -> bool:
        """Ask for a job's end; whether it had not ended before."""
        try:
            self.cancel(job_id)
        except ConflictError:
            return False
        return True

    def hear_jobs(self) -> Heard:
        """Listen to what is told about every job."""
        return self.hear("job")

    def hear(self, kind: str) -> Heard:
        """Listen to what is told about every row of a kind."""
        return Heard(self.redis, f"{self.ns}:events:{kind}:*")

    def monitor(self) -> Monitor:
        """Collect the channels that anybody uses."""
        return Monitor(self.valkey.port)

    # --- Redis -----------------------------------------------------------------------------

    def redis_away(self, how: str) -> tuple[Callable[[], None], Callable[[], None]]:
        """Give what takes Redis away (``down`` or ``frozen``) and what brings it back."""
        if how == "down":
            return self.valkey.kill9, self.valkey.start
        return self.valkey.pause, self.valkey.cont

    def cut_connections(self) -> None:
        """Have Redis close every connection but our own (CLIENT KILL)."""
        for kind in ("normal", "pubsub"):
            self.redis.client_kill_filter(_type=kind, skipme=True)

    def redis_connections(self) -> int:
        """Count the connections that anybody has to Redis."""
        return len(self.redis.client_list())

    def has_beat(self) -> bool:
        """Whether a beat holds the lock of this environment."""
        return bool(self.redis.exists(f"{self.ns}:redbeat:lock"))

    def ping_workers(self) -> None:
        """Ask every worker for a sign of life through Celery's remote control."""
        with self._control() as (control, connection):
            control.ping(timeout=0.3, connection=connection)

    def stop_consuming(self, queue: str) -> None:
        """Have the workers go on without taking anything from a queue."""
        with self._control() as (control, connection):
            replies = control.cancel_consumer(queue, reply=True, timeout=5, connection=connection)
        assert replies, "no worker hears"

    @contextmanager
    def _control(self) -> Iterator[tuple[Control, Any]]:
        """Give Celery's remote control and a connection: the app's pool is an earlier rig's."""
        self.dispatcher()
        control = Control(celery)
        control.mailbox.producer_pool = None  # it sends over the connection, then
        with celery.connection_for_write() as connection:
            yield control, connection

    def key_sizes(self) -> dict[str, int]:
        """Give the number of elements of each list, set and hash; 1 for the rest."""
        count = {b"list": "LLEN", b"set": "SCARD", b"hash": "HLEN", b"zset": "ZCARD"}
        client: Any = self.redis
        sizes: dict[str, int] = {}
        for key in self.all_keys():
            command = count.get(client.type(key))
            sizes[key] = client.execute_command(command, key) if command else 1
        return sizes

    # --- what must always hold -------------------------------------------------------------

    def check_keys(self) -> None:
        """Check that nothing in Redis lies outside the environment's prefix."""
        ours = tuple(f"{rig.ns}:" for rig in (self, *self.neighbours))
        strangers = [key for key in self.all_keys() if not key.startswith(ours)]
        assert strangers == []

    def copy_message(self, *, times: int) -> None:
        """Put copies of the oldest waiting message into the queue."""
        queue = f"{self.ns}:generation"
        message = self.redis.lindex(queue, -1)
        assert isinstance(message, bytes)
        for _ in range(times):
            self.redis.rpush(queue, message)

    def publish_unknown(self, job_id: int) -> None:
        """Publish a message for a row that does not exist."""
        self.dispatcher()
        with Broker(self.settings()) as broker:
            broker.send(
                [Message("job", job_id, RUN_COMFY_JOB, GENERATION, str(uuid4()), version=1)]
            )

    def unpublished(self) -> int:
        """Count the pending rows that were not published since Redis last lost its memory."""
        epoch = self.redis.get(f"{self.ns}:epoch")
        assert isinstance(epoch, bytes), "Redis has no epoch yet"
        return sum(
            job.status == Status.PENDING and job.dispatch_epoch != epoch.decode()
            for job in self.jobs()
        )

    def all_keys(self) -> list[str]:
        """List the keys of the logical database."""
        return sorted(key.decode() for key in self.redis.scan_iter(count=1000))

    def waiting_messages(self) -> int:
        """Count the messages in the queue that no worker has taken."""
        return int(self.redis.llen(f"{self.ns}:generation"))
