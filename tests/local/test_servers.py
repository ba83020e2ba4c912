"""Embedded servers: started, shared, adopted, replaced, and refused in one clear line."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
import redis

from genonaut.api.config import Settings, load_settings
from genonaut.local import processes
from genonaut.local.errors import LocalError
from genonaut.local.servers import (
    Lease,
    Postgres,
    ServerError,
    Valkey,
    accounts,
    base,
    ensure_database,
    ensure_postgres,
    ensure_valkey,
)
from tests.support.servers import (
    RunningPostgres,
    free_port,
    running_postgres,
    running_valkey,
    server_dir,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="about root")
as_plain_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may do anything")

HOLDER = """
import sys
from pathlib import Path
from genonaut.local.servers import Lease, Valkey
folder, port = Path(sys.argv[1]), int(sys.argv[2])
lease = Lease(Valkey(folder / "kv", port), folder / "run")
assert lease.take()
print(lease.server.pid, flush=True)
sys.stdin.readline()
print(lease.release(), flush=True)
"""


class Holder:
    """Another process with a share in the server."""

    def __init__(self, folder: Path, port: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(folder), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def server_pid(self) -> int:
        return int(self.process.stdout.readline())

    def leave(self) -> str:
        out, _ = self.process.communicate("\n", timeout=30)
        assert self.process.returncode == 0
        return out.strip()

    def kill9(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def folder() -> Iterator[Path]:
    with server_dir() as path:
        yield path


@pytest.fixture(scope="module")
def postgres() -> Iterator[RunningPostgres]:
    with running_postgres() as server:
        yield server


@contextmanager
def listener(answer: bytes) -> Iterator[int]:
    """Listen like a program of another kind: say ``answer``, then hang up."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(100)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def one_line(error: pytest.ExceptionInfo[LocalError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


def test_postgres_keeps_its_rows_through_a_stop_and_a_kill(postgres: RunningPostgres) -> None:
    connection = psycopg2.connect(postgres.url())
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE kept AS SELECT 1 AS n")
    connection.close()
    for end in (postgres.stop, postgres.kill9):
        end()
        assert not postgres.is_port_taken()
        postgres.start()
        connection = psycopg2.connect(postgres.url())
        with connection.cursor() as cursor:
            cursor.execute("SELECT n FROM kept")
            assert cursor.fetchone() == (1,)
            cursor.execute("SHOW max_connections")
            assert cursor.fetchone() == ("200",)
        connection.close()


def test_postgres_is_durable_unless_a_test_says_otherwise(folder: Path) -> None:
    assert "fsync=on" in Postgres(folder, 1).arguments()
    assert "fsync=off" in Postgres(folder, 1, durable=False).arguments()


def test_valkey_keeps_its_keys_and_evicts_nothing() -> None:
    with running_valkey() as server:
        client = redis.Redis.from_url(server.url(5))
        client.set("kept", "1")
        server.restart()
        assert client.get("kept") == b"1"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("appendonly") == {"appendonly": "yes"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        client.close()


def test_data_folders_are_private(postgres: RunningPostgres) -> None:
    assert postgres.home.stat().st_mode & 0o777 == 0o700
    assert postgres.data_dir.stat().st_mode & 0o777 == 0o700


def test_a_paused_server_hangs_and_goes_on(postgres: RunningPostgres) -> None:
    postgres.pause()
    try:
        assert postgres.ask() is base.Answer.SILENT
    finally:
        postgres.cont()
    assert postgres.ask() is base.Answer.READY


def test_a_database_is_made_once_by_whoever_comes_first(postgres: RunningPostgres) -> None:
    url = postgres.url("genonaut_odd-name").replace("postgresql://", "postgresql+psycopg2://")
    made: list[bool] = []
    threads = [threading.Thread(target=lambda: made.append(ensure_database(url))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False, False, False, True]
    assert ensure_database(url) is False


def test_an_unreachable_database_is_named_without_its_password() -> None:
    with pytest.raises(ServerError) as error:
        ensure_database(f"postgresql://u:secret@127.0.0.1:{free_port()}/x")
    assert "cannot reach PostgreSQL at 127.0.0.1:" in one_line(error)
    assert "secret" not in str(error.value)


def test_an_operators_url_is_never_replaced_by_an_empty_server() -> None:
    port = free_port()
    settings = load_settings(
        app_env="dev",
        database_url_dev=f"postgresql://postgres@127.0.0.1:{port}/genonaut_dev",
        redis_url_dev=f"redis://localhost:{port}/4",
    )
    assert ensure_postgres(settings) is None
    assert ensure_valkey(settings) is None


def test_default_urls_are_served_from_var(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "is_default", lambda self, stem: True)
    redis_port = free_port()
    settings = load_settings(
        app_env="demo",
        var_dir=folder / "var",
        database_url_demo=f"postgresql://postgres@127.0.0.1:{free_port()}/genonaut_demo",
        redis_url_demo=f"redis://localhost:{redis_port}/2",
    )
    database, keys = ensure_postgres(settings), ensure_valkey(settings)
    assert database is not None
    assert keys is not None
    try:
        assert ensure_database(settings.database_url)
        client = redis.Redis.from_url(settings.redis_url)
        assert client.ping()
        client.close()
        assert {p.name for p in (folder / "var").iterdir()} == {"postgres", "valkey", "run"}
    finally:
        assert [keys.release(), database.release()] == [True, True]
    assert not database.server.is_port_taken()
    assert [keys.release(), keys.revive()] == [False, False]


def test_the_last_one_out_stops_the_server(folder: Path) -> None:
    port = free_port()
    first, second = Holder(folder, port), Holder(folder, port)  # at the same moment
    server_pid = first.server_pid()
    assert second.server_pid() == server_pid
    assert first.leave() == "False"
    assert Valkey(folder / "kv", port).pid == server_pid
    assert second.leave() == "True"
    assert not Valkey(folder / "kv", port).is_port_taken()


def test_the_next_start_adopts_what_a_killed_holder_left(folder: Path) -> None:
    port = free_port()
    killed = Holder(folder, port)
    server_pid = killed.server_pid()
    killed.kill9()
    heir = Holder(folder, port)
    assert heir.server_pid() == server_pid
    assert heir.leave() == "True"
    assert processes.start_mark(server_pid) is None


def test_a_dead_server_is_revived_and_a_live_one_left_alone(folder: Path) -> None:
    lease = Lease(Valkey(folder / "kv", free_port()), folder / "run")
    assert lease.take()
    try:
        assert lease.revive() is False
        before = lease.server.pid
        processes.send(before, signal.SIGKILL)
        assert processes.wait_until(lambda: lease.server.pid is None, 10)
        assert lease.revive() is True
        assert lease.server.pid not in {None, before}
    finally:
        lease.release()


def test_a_server_of_ours_that_hangs_is_replaced(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "ADOPT_TIMEOUT_S", 0.1)
    with running_valkey() as server:
        frozen = server.pid
        server.pause()
        server.start()
        assert server.pid not in {None, frozen}
        assert server.ask() is base.Answer.READY


def test_a_server_whose_data_were_removed_can_still_be_stopped() -> None:
    with running_valkey() as server:
        shutil.rmtree(server.home)
        server.stop()
        assert not server.is_port_taken()


def test_an_interrupted_start_leaves_no_server(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(server: Valkey) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Valkey, "ask", interrupt)
    server = Valkey(folder / "kv", free_port())
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert not server.is_port_taken()


def test_anothers_server_is_used_as_it_is_and_never_stopped(folder: Path) -> None:
    with running_valkey() as theirs:
        lease = Lease(Valkey(folder / "kv", theirs.port), folder / "run")
        assert lease.take() is False
        assert lease.release() is False
        assert theirs.ask() is base.Answer.READY
        assert not (folder / "kv").exists()


def test_anothers_postgres_is_recognised(postgres: RunningPostgres, folder: Path) -> None:
    assert Postgres(folder / "pg", postgres.port).is_served_by_another()


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_a_port_taken_by_something_else_is_one_clear_line(
    kind: type[Postgres] | type[Valkey], folder: Path
) -> None:
    with listener(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        lease = Lease(kind(folder / "x", port, setting="THE_URL_DEV"), folder / "run")
        with pytest.raises(ServerError) as error:
            lease.take()
    assert f"port {port} is taken by something that is not {kind.title}" in one_line(error)
    assert "set THE_URL_DEV" in str(error.value)


def test_a_redis_with_a_password_is_one_clear_line(folder: Path) -> None:
    with (
        listener(b"-NOAUTH Authentication required.\r\n") as port,
        pytest.raises(ServerError) as error,
    ):
        Lease(Valkey(folder / "kv", port), folder / "run").take()
    assert "wants a password" in one_line(error)


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_the_reason_for_a_failed_start_is_taken_from_the_log(
    kind: type[Postgres] | type[Valkey], folder: Path
) -> None:
    with listener(b"") as port, pytest.raises(ServerError) as error:
        kind(folder / "x", port).start()
    assert "did not start" in one_line(error)
    assert "tcp" in str(error.value).lower()
    assert str(folder / "x" / "log") in str(error.value)


def test_a_pid_file_whose_id_now_belongs_to_a_stranger_is_no_obstacle() -> None:
    with running_postgres() as server:
        account = server.account.popen_arguments()
        server.kill9()
        with subprocess.Popen(["sleep", "60"], **account) as stranger:
            try:
                lines = server.pid_path.read_text().split("\n")
                server.pid_path.write_text("\n".join([str(stranger.pid), *lines[1:]]))
                assert server.pid is None
                server.start()
                assert stranger.poll() is None
            finally:
                stranger.kill()


def test_a_first_start_cut_short_is_begun_again(folder: Path) -> None:
    home = folder / "pg"
    (home / "data.new").mkdir(parents=True)
    (home / "data.new" / "half").touch()
    server = Postgres(home, free_port(), durable=False)
    server.start()
    server.stop()
    assert not (home / "data.new").exists()


def test_data_of_another_version_are_left_alone(folder: Path) -> None:
    data = folder / "pg" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    with pytest.raises(ServerError) as error:
        Postgres(folder / "pg", free_port()).start()
    assert "is of PostgreSQL 17" in one_line(error)


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_a_full_disk_is_one_clear_line(
    kind: type[Postgres] | type[Valkey], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "min_free_mb", 1 << 40)
    with pytest.raises(ServerError) as error:
        kind(folder / "x", free_port()).start()
    assert "disk full" in one_line(error)


def test_a_folder_that_cannot_be_made_is_one_clear_line(folder: Path) -> None:
    (folder / "var").touch()
    with pytest.raises(ServerError) as error:
        Valkey(folder / "var" / "kv", free_port()).start()
    assert "Not a directory" in one_line(error)
    with pytest.raises(LocalError) as error:
        Lease(Valkey(folder / "kv", free_port()), folder / "var" / "run").take()
    assert "cannot use" in one_line(error)


@as_plain_user
def test_anothers_data_folder_is_one_clear_line(folder: Path) -> None:
    home = folder / "pg"
    home.mkdir(mode=0o500)
    with pytest.raises(ServerError) as error:
        Postgres(home, free_port(), setting="DATABASE_URL_DEV").start()
    assert "set VAR_DIR or DATABASE_URL_DEV" in one_line(error)


@as_root
def test_root_starts_servers_as_nobody(postgres: RunningPostgres) -> None:
    if postgres.account.prefix:  # only root can reach this checkout: see local/servers/accounts.py
        spaces = [Path(f"/proc/{pid}/ns/user").readlink() for pid in (postgres.pid, "self")]
        assert spaces[0] != spaces[1]
    else:
        assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0


@as_root
@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare")
def test_data_only_root_can_reach_are_served_from_a_user_namespace(folder: Path) -> None:
    folder.chmod(0o700)
    server = Postgres(folder / "pg", free_port(), durable=False)
    try:
        server.start()
        assert server.account.prefix
        server.stop()
        folder.chmod(0o711)
        server.start()  # the data are root's now, so they stay root's
        assert server.pid is not None
    finally:
        server.stop()


@as_root
def test_without_any_account_one_line_names_the_setting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.chmod(0o700)
    monkeypatch.setattr(accounts.shutil, "which", lambda name: None)
    with pytest.raises(ServerError) as error:
        Postgres(folder / "pg", free_port(), setting="DATABASE_URL_DEV").start()
    assert "cannot run as root" in one_line(error)
    assert "DATABASE_URL_DEV" in str(error.value)


def test_start_marks_tell_processes_apart() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        mark = processes.start_mark(child.pid)
        assert mark is not None
        assert processes.is_alive(child.pid, mark)
        assert not processes.is_alive(os.getpid(), mark)
        child.kill()
        time.sleep(0.1)
        assert not processes.is_alive(child.pid, mark)  # a zombie
    assert processes.start_mark(child.pid) is None


def test_waits_for_an_outgoing_connection_that_happens_to_use_the_port():
    with server_dir() as folder, socket.socket() as listener, socket.socket() as outgoing:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Valkey(folder / "kv", free_port())
        outgoing.bind(("127.0.0.1", server.port))
        outgoing.connect(listener.getsockname())
        outgoing.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        threading.Timer(0.5, outgoing.close).start()
        try:
            server.start()
            assert server.ask() is base.Answer.READY
        finally:
            server.stop()
