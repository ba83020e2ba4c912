"""What the API does while a server it needs is away, and when it starts and stops."""

import subprocess
import sys
import threading
import time
from socket import create_server

import httpx
import pytest
import uvicorn
from sqlalchemy import func, text
from websockets.exceptions import ConnectionClosed

from genonaut.api.main import create_app
from genonaut.db.models import Heartbeat
from genonaut.db.session import Database
from genonaut.domain import users
from tests.api.conftest import Dispatched
from tests.support.database import migrate, sqlalchemy_url
from tests.support.servers import running_postgres, running_valkey
from tests.support.simulator import running_simulator, wait_until

JOBS = "/api/v1/generation-jobs"


@pytest.fixture(scope="module")
def fragile(serve, api_settings):
    """An API with a Redis of its own, to be taken away."""
    with running_valkey() as server:
        yield serve(api_settings(redis_url_test=server.url(3))), server


def test_without_redis_jobs_are_taken_within_two_seconds(fragile, make_account):
    api, server = fragile
    client = make_account("ada", at=api).client
    server.stop()
    try:
        for _ in range(3):
            answer = client.post(JOBS, json={"prompt": "x"})
            assert answer.status_code == 202
            assert answer.elapsed.total_seconds() < 2
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["redis"] == {"ok": False, "detail": "does not answer"}
        assert client.get("/livez").status_code == 200
        assert client.get("/health").json()["status"] == "degraded"
    finally:
        server.start()
    assert client.get("/readyz").status_code == 200


def test_a_redis_that_hangs_delays_nobody(fragile, make_account):
    api, server = fragile
    client = make_account("ada", at=api).client
    server.pause()
    try:
        for _ in range(5):
            answer = client.post(JOBS, json={"prompt": "x"})
            assert answer.status_code == 202
            assert answer.elapsed.total_seconds() < 1
    finally:
        server.cont()


def test_without_the_database_requests_are_503_and_work_again_afterwards(
    serve, api_settings, postgres
):
    with running_postgres() as server:
        url = sqlalchemy_url(server.url("genonaut_api"))
        migrate(url)
        api = serve(api_settings(database_url_test=url))
        headers = {"Authorization": "Bearer gn_x"}
        with httpx.Client(base_url=api.url, headers=headers, timeout=15) as client:
            assert client.get("/readyz").status_code == 200
            assert client.get("/api/v1/me").status_code == 401
            server.stop()
            answer = client.get("/api/v1/me")
            assert answer.status_code == 503
            assert answer.headers["retry-after"]
            assert answer.json()["code"] == "database_unavailable"
            assert client.get("/health").json()["status"] == "down"
            assert client.get("/readyz").status_code == 503
            assert client.get("/livez").status_code == 200
            assert client.get("/metrics").status_code == 200
            assert "\ngenonaut_up 0.0\n" in client.get("/metrics").text
            answer = client.get("/metrics", headers={"X-Real-IP": "192.0.2.7"})
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            server.start()
            assert client.get("/api/v1/me").status_code == 401
            assert "\ngenonaut_up 1.0\n" in client.get("/metrics").text


def test_health_is_ok_when_a_worker_that_draws_and_comfyui_are_there(
    serve, api_settings, anyone, database
):
    def seen(name: str, *queues: str) -> None:
        with database.transaction() as session:
            now = func.now()
            info = {"queues": queues}
            session.add(Heartbeat(name=name, kind="worker", started_at=now, seen_at=now, info=info))

    with running_simulator() as simulator:
        api = serve(api_settings(comfyui_url=simulator.url))
        seen("w1", "celery", "maintenance")
        health = httpx.get(f"{api.url}/health").json()
        assert (health["status"], health["checks"]["workers"]["ok"]) == ("degraded", False)
        seen("w2", "generation")
        health = httpx.get(f"{api.url}/health").json()
        assert health["status"] == "ok"
        assert health["checks"]["workers"] == {"ok": True, "detail": "1 at work"}
    without = anyone.get("/health")
    assert (without.status_code, without.json()["status"]) == (200, "degraded")
    assert not without.json()["checks"]["comfyui"]["ok"]
    assert anyone.get("/readyz").status_code == 200


@pytest.fixture
def at_version(database):
    """Say that the database is at another version, until the test ends."""

    def write(version):
        with database.engine.begin() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})

    with database.engine.connect() as connection:
        newest = connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one()
    yield write
    write(newest)


def test_a_database_at_an_older_revision_is_not_ready(anyone, at_version):
    at_version("704ba727e23b")
    answer = anyone.get("/readyz")
    assert answer.status_code == 503
    assert not answer.json()["checks"]["migrations"]["ok"]


def test_a_database_that_the_next_version_has_migrated_is_served_on(anyone, at_version):
    at_version("ffffffffffff")
    answer = anyone.get("/readyz")
    assert answer.status_code == 200
    detail = "the database is newer than this version"
    assert answer.json()["checks"]["migrations"] == {"ok": True, "detail": detail}


def test_importing_the_module_contacts_nothing():
    code = "import socket; socket.socket.connect = None; import genonaut.api.main"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_server_stops_quickly_with_sockets_open(api_settings, make_account, sockets):
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(api_settings(), dispatcher=Dispatched()),
            port=0,
            log_config=None,
            ws="websockets-sansio",
            timeout_graceful_shutdown=10,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    who = make_account("ada")
    opened = [sockets(f"ws://127.0.0.1:{port}/ws/me", who) for _ in range(5)]
    for socket in opened:
        socket.recv(timeout=5)
    began = time.monotonic()
    server.should_exit = True
    thread.join(timeout=10)
    assert time.monotonic() - began < 5
    for socket in opened:
        with pytest.raises(ConnectionClosed) as ended:
            socket.recv(timeout=2)
        assert ended.value.rcvd.code == 1012


def test_a_database_that_hangs_delays_nobody_for_long(serve, api_settings):
    with running_postgres() as server:
        url = sqlalchemy_url(server.url("genonaut_api"))
        migrate(url)
        api = serve(api_settings(database_url_test=url))
        database = Database.connect(url)
        with database.transaction() as session:
            user = users.create_user(session, "ada")
            token = users.issue_token(session, user.id, name="test")
        database.close()
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=api.url, headers=headers, timeout=30) as client:
            assert client.get("/readyz").status_code == 200
            assert client.post(JOBS, json={"prompt": "x"}).status_code == 202
            server.pause()
            try:
                answer = client.post(JOBS, json={"prompt": "x"})
                assert answer.elapsed.total_seconds() < 9
                assert answer.status_code == 503
                assert answer.headers["retry-after"]
                assert answer.json()["code"] == "database_unavailable"
                for path, most_s in (("/readyz", 4), ("/health", 4), ("/livez", 1)) * 3:
                    answer = client.get(path)
                    assert answer.elapsed.total_seconds() < most_s, path
                    assert answer.status_code == (200 if path == "/livez" else 503), path
                answer = client.get("/metrics")
                assert answer.elapsed.total_seconds() < 6
                assert "\ngenonaut_up 0.0\n" in answer.text
            finally:
                server.cont()
            wait_until(lambda: client.get("/readyz").status_code == 200)
            assert client.post(JOBS, json={"prompt": "x"}).status_code == 202


def test_health_endpoints_take_head(anyone):
    for path in ("/livez", "/readyz", "/health"):
        answer = anyone.head(path)
        assert (answer.status_code, answer.content) == (200, b"")


def test_only_who_is_logged_in_waits_for_a_comfyui_that_hangs(serve, api_settings):
    with create_server(("127.0.0.1", 0)) as hanging:
        api = serve(api_settings(comfyui_url=f"http://127.0.0.1:{hanging.getsockname()[1]}"))
        took_s = []
        for _ in range(3):
            began = time.monotonic()
            headers = {"Authorization": "Bearer wrong"}
            answer = httpx.post(f"{api.url}{JOBS}", json={"prompt": "a fox"}, headers=headers)
            took_s.append(time.monotonic() - began)
            assert answer.status_code == 401
        assert min(took_s) < 0.9
