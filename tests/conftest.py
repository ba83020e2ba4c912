"""What every test shares: real servers, a database that forgets, and factories.

=====================  ==========================================================================
``database``           a ``Database`` whose commits are undone after the test: fast; for one thread
``committed_database`` a database that is emptied after the test: for threads, races, processes.
                       Asking for it makes it *the* ``database`` of all the fixtures below
``session``            a transaction of ``database``, committed after the test
``make_user``          ``make_user(username=..., role=..., is_active=...)`` -> ``User``
``make_job``           ``make_job(user, prompt=..., **columns)`` -> ``GenerationJob``, pending
``make_claim``         ``make_claim(job, worker=..., lease_s=...)`` -> ``Claim``
``make_address``       ``make_address(user, channel, address=..., **columns)`` -> one in use
``make_delivery``      ``make_delivery(address, kind=..., **columns)`` -> one about a new notice
``reload``             ``reload(row_or_claim)`` -> the row as it is now
``make_image``         ``make_image(data=..., creator=...)`` -> ``ContentImage``, its file stored
``storage``            the store of ``settings``
``left_at_comfyui``    ``left_at_comfyui()`` -> prompts that the reconciler has yet to remove
``postgres``           the server of this session: ``.url(name)``, ``.pause()``, ``.cont()`` …
``valkey``             the Redis of this session, emptied before each test; ``.url(number)``
``redis_client``       a client of the logical database that ``settings`` names
``settings``           ``Settings`` of environment ``test`` that point at these servers
``make_settings``      the same with overrides: ``make_settings(lease_s=1)``
``celery_app``         our Celery app, configured by ``settings``
=====================  ==========================================================================
"""

import io
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from PIL import Image
from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from genonaut.api.config import Settings, load_settings
from genonaut.clients.storage import LocalStorage
from genonaut.db.models import (
    AbandonedPrompt,
    Base,
    ContentImage,
    ContentItem,
    GenerationJob,
    NotificationAddress,
    NotificationDelivery,
    TaskRun,
    User,
)
from genonaut.db.session import Database, make_engine
from genonaut.domain import attempts, generation, notifications, run_attempts, runs
from genonaut.domain.attempts import Claim
from genonaut.domain.generation import NewJob
from genonaut.domain.run_attempts import RunClaim
from genonaut.domain.runs import NewRun, Overlap, Trigger
from tests.support.database import (
    TEMPLATE,
    empty,
    migrate,
    new_database,
    rolled_back,
    sqlalchemy_url,
)
from tests.support.servers import (
    RunningPostgres,
    RunningValkey,
    running_postgres,
    running_valkey,
)

# A busy machine is slow now and then; that is not what these tests are about.
hypothesis_settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("steady")

REDIS_DB = 3


@pytest.fixture(scope="session")
def postgres() -> Iterator[RunningPostgres]:
    with running_postgres() as server:
        migrate(sqlalchemy_url(server.url(TEMPLATE)))
        yield server


@pytest.fixture(scope="session")
def engine(postgres: RunningPostgres) -> Iterator[Engine]:
    with new_database(postgres, template=TEMPLATE) as url:
        made = make_engine(url, pool_size=5)
        yield made
        made.dispose()


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    if "committed_database" in request.fixturenames:
        yield request.getfixturevalue("committed_database")
        return
    with rolled_back(request.getfixturevalue("engine")) as made:
        yield made


@pytest.fixture(scope="session")
def committed_url(postgres: RunningPostgres) -> Iterator[str]:
    with new_database(postgres, template=TEMPLATE) as url:
        yield url


@pytest.fixture
def committed_database(committed_url: str) -> Iterator[Database]:
    made = Database.connect(committed_url, pool_size=10)
    yield made
    made.close()
    empty(made.engine)
    made.close()


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with database.transaction() as opened:
        yield opened


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RunningValkey]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def valkey(valkey_server: RunningValkey) -> RunningValkey:
    with redis.Redis.from_url(valkey_server.url()) as client:
        used = [int(name.removeprefix("db")) for name in client.info("keyspace")]
    for number in used:
        with redis.Redis.from_url(valkey_server.url(number)) as client:
            client.flushdb()
    return valkey_server


@pytest.fixture
def make_settings(
    request: pytest.FixtureRequest, tmp_path: Path, valkey: RunningValkey
) -> Callable[..., Settings]:
    def make(**overrides: Any) -> Settings:
        values: dict[str, Any] = {
            "app_env": "test",
            "redis_url_test": valkey.url(REDIS_DB),
            "redis_ns_test": "genonaut_test",
            "celery_broker_url_test": None,
            "celery_result_backend_test": None,
            "var_dir": tmp_path / "var",
        }
        if "database_url_test" not in overrides:
            url = request.getfixturevalue("database").engine.url
            values["database_url_test"] = url.render_as_string(hide_password=False)
        return load_settings(**{**values, **overrides})

    return make


@pytest.fixture
def settings(make_settings: Callable[..., Settings]) -> Settings:
    return make_settings()


@pytest.fixture
def redis_client(settings: Settings) -> Iterator["redis.Redis"]:
    with redis.Redis.from_url(settings.redis_url) as client:
        yield client


@pytest.fixture
def celery_app(settings: Settings) -> Iterator[Celery]:
    from genonaut.worker import queue_app

    app = queue_app.celery
    ours = queue_app.configuration(settings)
    before = {name: app.conf[name] for name in ours}
    app.conf.update(ours)
    yield app
    app.conf.update(before)


_names = count(1)


@pytest.fixture
def make_user(database: Database) -> Callable[..., User]:
    def make(username: str | None = None, **columns: Any) -> User:
        user = User(username=username or f"user{next(_names)}", **columns)
        with database.transaction() as session:
            session.add(user)
        return user

    return make


@pytest.fixture
def make_job(database: Database, make_user: Callable[..., User]) -> Callable[..., GenerationJob]:
    """Make a pending job through the rules; further keywords overwrite its columns."""

    def make(
        user: User | None = None,
        *,
        prompt: str = "a lighthouse at dawn",
        max_attempts: int = 4,
        request: NewJob | None = None,
        **columns: Any,
    ) -> GenerationJob:
        owner = user or make_user()
        with database.transaction() as session:
            job = generation.create(
                session, owner.id, request or NewJob(prompt), max_attempts=max_attempts
            )
            if columns:
                job = session.scalars(
                    update(GenerationJob)
                    .where(GenerationJob.id == job.id)
                    .values(**columns)
                    .returning(GenerationJob)
                    .execution_options(populate_existing=True)
                ).one()
        return job

    return make


@pytest.fixture
def make_claim(database: Database, make_job: Callable[..., GenerationJob]) -> Callable[..., Claim]:
    """Claim a job, a new one unless it is given."""

    def make(
        job: GenerationJob | None = None, *, worker: str = "worker-1", lease_s: float = 30
    ) -> Claim:
        target = job or make_job()
        with database.transaction() as session:
            held = attempts.claim(session, target.id, worker=worker, lease_s=lease_s)
        assert held is not None, f"job {target.id} is not there to be claimed"
        return held

    return make


@pytest.fixture
def make_run(database: Database) -> Callable[..., TaskRun]:
    """Make a pending run of a toy task through the rules; each has a key of its own."""

    def make(**fields: Any) -> TaskRun:
        overlap = fields.get("overlap", Overlap.SKIP)
        key = "" if overlap is Overlap.WAIT else f"key{next(_names)}"
        values = {"task": "toys.count", "queue": "default", "trigger": Trigger.API}
        with database.transaction() as session:
            request = NewRun(**{**values, "overlap_key": key, **fields})
            return runs.trigger(session, request).run

    return make


@pytest.fixture
def make_run_claim(database: Database, make_run: Callable[..., TaskRun]) -> Callable[..., RunClaim]:
    """Claim a run, a new one unless it is given."""

    def make(
        run: TaskRun | None = None, *, worker: str = "worker-1", lease_s: float = 30
    ) -> RunClaim:
        target = run or make_run()
        with database.transaction() as session:
            held = run_attempts.claim(session, target.id, worker=worker, lease_s=lease_s)
        assert held is not None, f"run {target.id} is not there to be claimed"
        return held

    return make


@pytest.fixture
def make_address(
    database: Database, make_user: Callable[..., User]
) -> Callable[..., NotificationAddress]:
    """Make a verified address; further keywords overwrite its columns."""

    def make(
        user: User | None = None,
        channel: str = "email",
        address: str = "ada@example.org",
        **columns: Any,
    ) -> NotificationAddress:
        relayed = {"host": "email", "is_relayed": True, "takes_digest": True}
        usual: dict[str, Any] = relayed if channel == "email" else {"host": "example.org"}
        values = {"verified_at": func.now(), **usual, **columns}
        owner = user or make_user()
        with database.transaction() as session:
            row = NotificationAddress(user_id=owner.id, channel=channel, address=address, **values)
            session.add(row)
            session.flush()
            session.refresh(row)
        return row

    return make


@pytest.fixture
def make_delivery(
    database: Database, make_address: Callable[..., NotificationAddress]
) -> Callable[..., NotificationDelivery]:
    """Plan a message about a new notification; further keywords overwrite its columns."""

    def make(
        address: NotificationAddress | None = None,
        *,
        kind: str = "system",
        title: str = "Hello",
        body: str = "",
        data: dict[str, Any] | None = None,
        **columns: Any,
    ) -> NotificationDelivery:
        to = address or make_address()
        fact = {"dedupe_key": f"made:{next(_names)}", "title": title, "body": body, "data": data}
        with database.transaction() as session:
            told = notifications.notify(session, to.user_id, kind, **fact)
            assert told is not None
            row = session.scalars(
                select(NotificationDelivery).where(
                    NotificationDelivery.notification_id == told.id,
                    NotificationDelivery.address_id == to.id,
                )
            ).one()
            if columns:
                row = session.scalars(
                    update(NotificationDelivery)
                    .where(NotificationDelivery.id == row.id)
                    .values(columns)
                    .returning(NotificationDelivery)
                    .execution_options(populate_existing=True)
                ).one()
        return row

    return make


@pytest.fixture
def reload(database: Database) -> Callable[..., Any]:
    """Read a row anew; a claim stands for its job."""

    def read(row: Base | Claim) -> Any:
        row = row.job if isinstance(row, Claim) else row
        with database.transaction() as session:
            return session.get_one(type(row), row.id)  # type: ignore[attr-defined]

    return read


@pytest.fixture
def left_at_comfyui(database: Database) -> Callable[[], list[tuple[str, str]]]:
    """List the (backend, prompt id) that the reconciler has yet to remove."""

    def read() -> list[tuple[str, str]]:
        query = select(AbandonedPrompt.backend, AbandonedPrompt.prompt_id)
        with database.transaction() as session:
            return [(row.backend, row.prompt_id) for row in session.execute(query)]

    return read


@pytest.fixture
def storage(settings: Settings) -> LocalStorage:
    return LocalStorage(settings.storage_path, min_free_bytes=0)


@pytest.fixture
def make_image(
    database: Database, storage: LocalStorage, make_user: Callable[..., User]
) -> Callable[..., ContentImage]:
    """Make a stored picture, each its own, without thumbnails; ``data``: what the file holds."""

    def make(
        *, data: bytes | None = None, creator: User | None = None, **columns: Any
    ) -> ContentImage:
        content = _png(next(_names)) if data is None else data
        key = storage.put(content, mime="image/png")
        owner = creator or make_user()
        with database.transaction() as session:
            item = ContentItem(title="x", prompt="x", creator_id=owner.id)
            session.add(item)
            session.flush()
            values: dict[str, Any] = {
                "storage_key": key,
                "sha256": Path(key).stem,
                "mime": "image/png",
                "width": 64,
                "height": 48,
                "bytes": len(content),
                "position": 0,
            }
            image = ContentImage(content_id=item.id, **{**values, **columns})
            session.add(image)
        return image

    return make


def _png(n: int) -> bytes:
    out = io.BytesIO()
    ramp = Image.linear_gradient("L").resize((64, 48))
    Image.merge("RGB", (ramp, ramp.rotate(180), ramp.point(lambda v: (v + n) % 256))).save(
        out, "PNG"
    )
    return out.getvalue()
