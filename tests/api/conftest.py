"""The API as it is served: uvicorn in a thread, real PostgreSQL and Valkey, and its clients."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest
import uvicorn
from sqlalchemy import Engine, event, text
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from genonaut.api.config import Settings
from genonaut.api.main import create_app
from genonaut.clients.bus import EventPublisher
from genonaut.core.events import Event
from genonaut.core.log import configure_logging
from genonaut.db.models import Base, ContentImage, ContentItem
from genonaut.db.session import Database
from genonaut.domain import users
from genonaut.domain.users import Role
from tests.support.database import TEMPLATE, new_database
from tests.support.servers import RunningPostgres

WEBHOOK_SECRET = "a-secret-of-the-webhook"


class Dispatched:
    """Stands where the queue's dispatcher does, and remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def on_events(self, events: list[Event]) -> None:
        self.events += events


@dataclass
class Account:
    id: UUID
    username: str
    token: str
    client: httpx.Client


@dataclass
class Api:
    url: str
    settings: Settings
    dispatched: Dispatched

    @property
    def ws(self) -> str:
        return self.url.replace("http://", "ws://")


@pytest.fixture(scope="session")
def api_database_url(postgres: RunningPostgres) -> Iterator[str]:
    with new_database(postgres, template=TEMPLATE) as url:
        yield url


@pytest.fixture(scope="session")
def api_settings(api_database_url, valkey_server, tmp_path_factory) -> Callable[..., Settings]:
    def make(**overrides) -> Settings:
        values = {
            "app_env": "test",
            "database_url_test": api_database_url,
            "redis_url_test": valkey_server.url(3),
            "redis_ns_test": "genonaut_apitest",
            "storage_dir": tmp_path_factory.mktemp("storage"),
            "comfyui_url": "http://127.0.0.1:9",
            "comfyui_webhook_secret": WEBHOOK_SECRET,
            "jobs_per_minute": 100_000,
            "jobs_unfinished_max": 100_000,
            "storage_min_free_mb": 0,
            **overrides,
        }
        return Settings(**values)

    return make


@pytest.fixture(scope="session")
def serve(api_database_url, valkey_server) -> Iterator[Callable[[Settings], Api]]:
    """Serve the application in a thread until the end of the session."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(settings: Settings) -> Api:
        configure_logging("INFO")
        dispatched = Dispatched()
        app = create_app(settings, dispatcher=dispatched)
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                port=0,
                log_config=None,
                ws="websockets-sansio",
                lifespan="on",
                timeout_graceful_shutdown=3,
            )
        )
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        deadline = time.monotonic() + 10
        while not server.started:
            assert thread.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.append((server, thread))
        port = server.servers[0].sockets[0].getsockname()[1]
        return Api(f"http://127.0.0.1:{port}", settings, dispatched)

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(timeout=10)
        assert not thread.is_alive(), "the server did not stop"


@pytest.fixture(scope="session")
def api(serve, api_settings) -> Api:
    return serve(api_settings())


@pytest.fixture(scope="session")
def api_database(api_database_url: str) -> Iterator[Database]:
    made = Database.connect(api_database_url, pool_size=5)
    yield made
    made.close()


@pytest.fixture
def database(api_database: Database) -> Iterator[Database]:
    """The API's own database, emptied after the test without cutting off the API."""
    yield api_database
    with api_database.engine.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for table in Base.metadata.sorted_tables:
            connection.execute(table.delete())


@pytest.fixture
def make_account(api: Api, database: Database) -> Iterator[Callable[..., Account]]:
    clients: list[httpx.Client] = []

    def make(username: str, role: Role = Role.USER, *, at: Api = api) -> Account:
        with database.transaction() as session:
            user = users.create_user(session, username, role=role)
            token = users.issue_token(session, user.id, name="test")
        client = httpx.Client(
            base_url=at.url, headers={"Authorization": f"Bearer {token}"}, timeout=15
        )
        clients.append(client)
        return Account(user.id, username, token, client)

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def ada(make_account) -> Account:
    return make_account("ada")


@pytest.fixture
def bob(make_account) -> Account:
    return make_account("bob")


@pytest.fixture
def anyone(api: Api) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.url, timeout=15) as client:
        yield client


@pytest.fixture
def sockets() -> Iterator[Callable[..., ClientConnection]]:
    """Open WebSockets, closed after the test."""
    with ExitStack() as opened:

        def open_socket(
            url: str, who: Account | None = None, *, max_queue: int | None = 16, **headers: str
        ) -> ClientConnection:
            if who is not None:
                headers["Authorization"] = f"Bearer {who.token}"
            return opened.enter_context(
                connect(
                    url,
                    additional_headers=headers,
                    close_timeout=2,
                    max_queue=max_queue,
                    proxy=None,
                )
            )

        yield open_socket


@pytest.fixture
def publishing(api, database):
    """Publish what the test's own transactions change, as a worker does."""
    publisher = EventPublisher(api.settings.redis_url, api.settings.redis_ns)
    database.sinks.append(publisher.publish)
    yield publisher
    database.sinks.remove(publisher.publish)
    publisher.close()


def hear(socket: ClientConnection, timeout_s: float = 8) -> dict:
    message = socket.recv(timeout=timeout_s)
    assert isinstance(message, str), message
    return json.loads(message)


def closed_with(socket: ClientConnection) -> int:
    try:
        while True:
            socket.recv(timeout=8)
    except ConnectionClosed as ended:
        return ended.rcvd.code


@pytest.fixture
def visit(api, make_account):
    """Log somebody in with a browser."""
    opened = []

    def log_in(username: str, role: Role = Role.USER) -> httpx.Client:
        account = make_account(username, role)
        client = httpx.Client(base_url=api.url, timeout=15)
        client.post("/login", data={"token": account.token})
        opened.append(client)
        return client

    yield log_in
    for client in opened:
        client.close()


def csrf_of(page: httpx.Response) -> str:
    return re.search(r'name="csrf" value="(\w+)"', page.text).group(1)


@pytest.fixture
def act(visit) -> Callable[..., httpx.Response]:
    """Post a form as a page of ours does; give the page it leads to."""

    def post(browser: httpx.Client, path: str, **fields: object) -> httpx.Response:
        token = browser.get("/api/v1/me").json()["csrf_token"]
        answer = browser.post(path, data={"csrf": token, **fields})
        if answer.status_code == 303:
            return browser.get(answer.headers["location"])
        return answer

    return post


@pytest.fixture
def queries(database: Database, api_database: Database) -> Callable[..., int]:
    """Count the statements that the server was sent while a block ran."""

    def count(work: Callable[[], object]) -> int:
        seen = 0

        def note(*_: object) -> None:
            nonlocal seen
            seen += 1

        event.listen(Engine, "before_cursor_execute", note)
        try:
            work()
        finally:
            event.remove(Engine, "before_cursor_execute", note)
        return seen

    return count


@pytest.fixture
def put(database):
    """Store an item of somebody, with images that have thumbnails."""

    def make(
        username: str, prompt: str = "a fox", *, images: int = 1, private: bool = False
    ) -> int:
        with database.transaction() as session:
            owner = users.find_user(session, username)
            item = ContentItem(title=prompt, prompt=prompt, creator_id=owner.id, is_private=private)
            session.add(item)
            session.flush()
            session.add_all(
                ContentImage(
                    content_id=item.id,
                    position=n,
                    storage_key=f"images/{item.id}-{n}",
                    sha256=f"{item.id:032}{n:032}",
                    mime="image/png",
                    width=768,
                    height=512,
                    bytes=400_000,
                )
                for n in range(images)
            )
            return item.id

    return make
