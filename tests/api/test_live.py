"""Sockets: a snapshot first, higher versions after it, the end always, and nobody else's."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import redis
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed

from genonaut.core.events import Event
from genonaut.db.models import GenerationJob
from genonaut.domain import accounts, attempts, generation, notifications
from genonaut.domain.attempts import Claim
from tests.api.conftest import Account, closed_with, hear

JOBS = "/api/v1/generation-jobs"


def submit(who: Account) -> int:
    return who.client.post(JOBS, json={"prompt": "a cat"}).json()["id"]


@pytest.fixture
def claim(database, make_claim):
    def make(job_id: int) -> Claim:
        with database.transaction() as session:
            job = session.get_one(GenerationJob, job_id)
        return make_claim(job)

    return make


def report(database, held: Claim, percent: int) -> None:
    with database.transaction() as session:
        attempts.report(session, held, {"phase": "executing", "percent": percent})


def finish(database, held: Claim) -> None:
    with database.transaction() as session:
        attempts.complete(session, held, [], details={})


def test_a_job_is_followed_from_its_snapshot_to_its_end(
    api, ada, database, claim, sockets, publishing
):
    job = submit(ada)
    socket = sockets(f"{api.ws}/ws/jobs/{job}", ada)
    first = hear(socket)
    assert (first["type"], first["final"], first["data"]["status"]) == (
        "snapshot",
        False,
        "pending",
    )
    held = claim(job)
    report(database, held, 40)
    finish(database, held)
    seen = [first]
    while not seen[-1]["final"]:
        seen.append(hear(socket))
    assert [m["version"] for m in seen] == sorted({m["version"] for m in seen})
    assert seen[-1]["data"]["status"] == "completed"
    assert closed_with(socket) == 1000


def test_a_job_that_has_ended_is_told_at_once(api, ada, sockets):
    job = submit(ada)
    ada.client.post(f"{JOBS}/{job}/cancel")
    socket = sockets(f"{api.ws}/ws/jobs/{job}", ada)
    assert (hear(socket)["data"]["status"], closed_with(socket)) == ("cancelled", 1000)


def test_a_socket_gives_the_row_that_a_get_gives_but_for_its_place(api, ada, sockets):
    job = submit(ada)
    told = hear(sockets(f"{api.ws}/ws/jobs/{job}", ada))["data"]
    assert ada.client.get(f"{JOBS}/{job}").json() == {**told, "queue_position": 1}


def test_lost_events_are_healed_by_reading_the_rows_again(api, ada, database, claim, sockets):
    job = submit(ada)
    socket, own = sockets(f"{api.ws}/ws/jobs/{job}", ada), sockets(f"{api.ws}/ws/me", ada)
    hear(socket)
    hear(own)
    held = claim(job)
    finish(database, held)  # nothing is published
    began = time.monotonic()
    assert hear(socket)["data"]["status"] == "completed"
    kinds = {(message["type"], message["final"]) for message in (hear(own), hear(own))}
    assert kinds == {("job", True), ("notification", True)}
    assert time.monotonic() - began < 8


def test_a_job_that_came_and_ended_while_events_were_lost_is_told(
    api, ada, bob, database, make_job, claim, sockets
):
    own, of_another = (sockets(f"{api.ws}/ws/me", account) for account in (ada, bob))
    hear(own)
    hear(of_another)
    job = make_job(ada).id  # nothing is published
    finish(database, claim(job))
    told = set()
    while not {("job", True), ("notification", True)} <= told:  # it may be read in between, too
        message = hear(own)
        assert message["type"] != "job" or message["id"] == job
        told.add((message["type"], message["final"]))
    with pytest.raises(TimeoutError):
        of_another.recv(timeout=0.1)


def test_a_notice_that_the_snapshot_counted_is_not_sent_again(api, ada, database, sockets):
    with database.transaction() as session:
        notifications.notify(session, ada.id, "news", dedupe_key="1", title="before")
    socket = sockets(f"{api.ws}/ws/me", ada)
    assert hear(socket)["data"]["unread"] == 1
    with database.transaction() as session:
        notifications.notify(session, ada.id, "news", dedupe_key="2", title="after")
    assert hear(socket)["data"]["title"] == "after"  # by reading the rows again
    with pytest.raises(TimeoutError):
        socket.recv(timeout=0.1)


def test_a_group_that_grew_is_told_though_its_event_was_lost(api, ada, database, sockets):
    ada.client.put("/api/v1/notification-preferences", json={"group_window_s": 600})

    def end_job(key: str) -> None:
        with database.transaction() as session:
            notifications.notify(session, ada.id, "job_completed", dedupe_key=key, title="Ready")

    end_job("1")
    with database.transaction() as session:
        session.execute(text("UPDATE user_notifications SET created_at = now() - interval '1 min'"))
    socket = sockets(f"{api.ws}/ws/me", ada)
    assert hear(socket)["data"]["unread"] == 1
    end_job("2")  # nothing is published
    message = hear(socket)
    assert (message["type"], message["data"]["data"]["count"]) == ("notification", 2)


def test_stale_and_malformed_messages_are_not_passed_on(
    api, ada, database, claim, sockets, publishing
):
    job = submit(ada)
    held = claim(job)
    socket = sockets(f"{api.ws}/ws/jobs/{job}", ada)
    version = hear(socket)["version"]
    client = redis.Redis.from_url(api.settings.redis_url)
    channel = f"{api.settings.redis_ns}:events:job:{job}"
    stale = Event("job", job, version, (f"job:{job}",), {"stale": True})
    for message in (b"{", b"\xff", json.dumps(stale.payload()).encode()):
        client.publish(channel, message)
    client.close()
    report(database, held, 10)
    assert hear(socket)["version"] == version + 1


def test_ones_own_socket_tells_of_jobs_and_notifications(
    api, ada, bob, database, claim, sockets, publishing
):
    job = submit(ada)
    with database.transaction() as session:
        notifications.notify(session, ada.id, "news", dedupe_key="1", title="before")
    socket = sockets(f"{api.ws}/ws/me", ada)
    first = hear(socket)
    assert [j["id"] for j in first["data"]["jobs"]] == [job]
    assert first["data"]["unread"] == 1
    submit(bob)
    second = submit(ada)
    message = hear(socket)
    assert (message["type"], message["id"], message["final"]) == ("job", second, False)
    finish(database, claim(job))
    rest = [hear(socket)]
    while not (rest[-1]["final"] and rest[-1]["type"] == "notification"):
        rest.append(hear(socket))
    assert {m["id"] for m in rest if m["type"] == "job"} == {job}
    assert rest[-1]["data"]["data"]["job_id"] == job


def test_previews_are_sent_as_they_are_to_those_who_ask(api, ada, claim, sockets, publishing):
    job = submit(ada)
    claim(job)
    asking = sockets(f"{api.ws}/ws/jobs/{job}?previews=1", ada)
    hear(asking)
    assert publishing.publish_preview(job, b"\xff\xd8frame") == 1
    assert asking.recv(timeout=5) == b"\xff\xd8frame"


def until_heard(publisher, job: int, receivers: int) -> None:
    deadline = time.monotonic() + 8
    while publisher.publish_preview(job, b"\xff\xd8frame") != receivers:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_previews_of_all_ones_jobs_carry_the_job_and_end_with_it(
    api, ada, bob, database, claim, sockets, publishing
):
    first, others = submit(ada), submit(bob)
    socket = sockets(f"{api.ws}/ws/me?previews=1", ada)
    hear(socket)
    second = submit(ada)  # one that the snapshot did not know
    held = {job: claim(job) for job in (first, second)}
    for job in held:
        until_heard(publishing, job, 1)
    assert publishing.publish_preview(others, b"x") == 0
    frames = set()
    while len(frames) < 2:
        message = socket.recv(timeout=8)
        if isinstance(message, bytes):
            frames.add(message)
    assert frames == {job.to_bytes(8, "big") + b"\xff\xd8frame" for job in held}
    finish(database, held[first])
    until_heard(publishing, first, 0)
    until_heard(publishing, second, 1)
    socket.close()
    until_heard(publishing, second, 0)


def test_who_may_not_listen_is_told_why(api, ada, bob, sockets, database):
    job = submit(ada)
    cases = [
        (f"/ws/jobs/{job}", None, 4401),
        ("/ws/me", None, 4401),
        ("/ws/me?ticket=gn_wrong", None, 4401),
        (f"/ws/jobs/{job}", bob, 4403),
        ("/ws/jobs/999999", ada, 4404),
        ("/ws/jobs/0", ada, 4404),
        ("/ws/jobs/abc", ada, 4404),
        (f"/ws/jobs/{'9' * 30}", ada, 4404),
    ]
    for path, who, code in cases:
        assert closed_with(sockets(api.ws + path, who)) == code, path
    with database.transaction() as session:
        session.execute(text("UPDATE api_tokens SET expires_at = now() - interval '1 s'"))
    assert closed_with(sockets(f"{api.ws}/ws/me", ada)) == 4401


def test_a_ticket_opens_one_socket(api, ada, sockets):
    ticket = ada.client.post("/api/v1/session/ticket").json()["ticket"]
    assert hear(sockets(f"{api.ws}/ws/me?ticket={ticket}"))["type"] == "snapshot"
    assert closed_with(sockets(f"{api.ws}/ws/me?ticket={ticket}")) == 4401


@pytest.mark.parametrize(("path", "code"), [("jobs/1", 4404), ("runs/1", 4403), ("admin", 4403)])
def test_a_ticket_is_used_up_by_a_socket_that_is_refused_too(api, ada, sockets, path, code):
    ticket = ada.client.post("/api/v1/session/ticket").json()["ticket"]
    assert closed_with(sockets(f"{api.ws}/ws/{path}?ticket={ticket}")) == code
    assert closed_with(sockets(f"{api.ws}/ws/me?ticket={ticket}")) == 4401


def test_a_cookie_opens_sockets_for_our_own_pages_only(api, ada, anyone, sockets):
    anyone.post("/api/v1/session", json={"token": ada.token})
    name, value = next(iter(anyone.cookies.items()))
    cookie = {"Cookie": f"{name}={value}"}
    url = f"{api.ws}/ws/me"
    assert hear(sockets(url, **cookie, Origin=api.url))["type"] == "snapshot"
    for origin in ("https://evil.example", "http://[", api.url + "/"):
        assert closed_with(sockets(url, **cookie, Origin=origin)) == 4403
    assert closed_with(sockets(url, **cookie)) == 4403


def test_sockets_survive_the_loss_of_their_redis_connection(
    api, ada, database, claim, sockets, publishing
):
    job = submit(ada)
    socket = sockets(f"{api.ws}/ws/jobs/{job}", ada)
    hear(socket)
    client = redis.Redis.from_url(api.settings.redis_url)
    client.client_kill_filter(_type="pubsub")
    client.close()
    held = claim(job)
    report(database, held, 50)
    finish(database, held)
    while not (message := hear(socket))["final"]:
        pass
    assert message["data"]["status"] == "completed"


def test_a_client_that_never_reads_leaves_the_others_alone_and_gets_the_end(
    api, ada, database, claim, sockets, publishing
):
    job = submit(ada)
    held = claim(job)
    slow = sockets(f"{api.ws}/ws/jobs/{job}", ada, max_queue=1)
    quick = sockets(f"{api.ws}/ws/jobs/{job}", ada)
    hear(quick)
    with database.transaction() as session:
        row = generation.public(session.get_one(GenerationJob, job))
    flood = [
        Event("job", job, 1000 + n, (f"job:{job}",), {**row, "prompt": "x" * 20_000})
        for n in range(500)
    ]
    publishing.publish(flood)
    with database.transaction() as session:
        session.execute(text("UPDATE generation_jobs SET version = 5000"))
    finish(database, held)
    versions = []
    while not (message := hear(quick))["final"]:
        versions.append(message["version"])
    assert versions == sorted(versions)
    last = None
    with suppress(ConnectionClosed):
        while True:
            last = json.loads(slow.recv(timeout=8))
    assert last is not None
    assert last["data"]["status"] == "completed"


def test_a_client_that_takes_nothing_for_too_long_is_let_go(api, ada, publishing, monkeypatch):
    monkeypatch.setattr("genonaut.api.routes.sockets._SEND_TIMEOUT_S", 0.3)
    job = submit(ada)
    channel = f"{api.settings.redis_ns}:events:job:{job}"
    address = urlsplit(api.url)
    with (
        redis.Redis.from_url(api.settings.redis_url) as client,
        socket.create_connection((address.hostname, address.port)) as stuck,
    ):
        stuck.sendall(
            f"GET /ws/jobs/{job} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"Authorization: Bearer {ada.token}\r\n\r\n".encode()
        )
        deadline = time.monotonic() + 20
        while not client.pubsub_numsub(channel)[0][1]:
            assert time.monotonic() < deadline
        version = 1000
        while client.pubsub_numsub(channel)[0][1]:
            assert time.monotonic() < deadline
            version += 1
            row = {"prompt": "x" * 100_000}
            publishing.publish([Event("job", job, version, (f"job:{job}",), row)])
            time.sleep(0.005)


def test_many_sockets_share_one_redis_connection_and_leave_nothing_behind(
    api, ada, database, claim, sockets, publishing
):
    job = submit(ada)
    client = redis.Redis.from_url(api.settings.redis_url)
    threads = threading.active_count()
    with ThreadPoolExecutor(20) as pool:
        opened = list(pool.map(lambda _: sockets(f"{api.ws}/ws/jobs/{job}", ada), range(60)))
        list(pool.map(hear, opened))
        assert len(client.client_list(_type="pubsub")) == 1
        held = claim(job)
        report(database, held, 10)
        assert {message["data"]["status"] for message in pool.map(hear, opened)} <= {"running"}
        for socket in opened:
            socket.close()
    channel = f"{api.settings.redis_ns}:events:job:{job}"
    deadline = time.monotonic() + 5
    while client.pubsub_numsub(channel)[0][1] and time.monotonic() < deadline:
        time.sleep(0.02)
    assert client.pubsub_numsub(channel)[0][1] == 0
    assert threading.active_count() <= threads + 8
    client.close()


def test_a_socket_ends_with_the_login_that_opened_it(api, ada, bob, anyone, database, sockets):
    me = f"{api.ws}/ws/me"
    anyone.post("/api/v1/session", json={"token": bob.token})
    name, value = next(iter(anyone.cookies.items()))
    cookie = {"Cookie": f"{name}={value}", "Origin": api.url}
    job = submit(ada)
    revoked = [sockets(me, ada), sockets(f"{api.ws}/ws/jobs/{job}", ada)]
    ticket = ada.client.post("/api/v1/session/ticket").json()["ticket"]
    revoked.append(sockets(f"{me}?ticket={ticket}"))
    unused = ada.client.post("/api/v1/session/ticket").json()["ticket"]
    logged_out, kept = sockets(me, **cookie), sockets(me, bob)
    for one in (*revoked, logged_out, kept):
        hear(one)
    csrf = anyone.get("/api/v1/me").json()["csrf_token"]
    assert anyone.delete("/api/v1/session", headers={"X-CSRF-Token": csrf}).status_code == 204
    with database.transaction() as session:
        (token,) = accounts.list_tokens(session, ada.id)
        accounts.revoke_token(session, token.id)
    for one in (*revoked, logged_out):
        assert closed_with(one) == 4401
    assert closed_with(sockets(f"{me}?ticket={unused}")) == 4401
    with pytest.raises(TimeoutError):
        kept.recv(timeout=0.1)
    with database.transaction() as session:
        session.execute(text("UPDATE users SET is_active = false"))
    assert closed_with(kept) == 4401


def test_a_ticket_of_a_session_ends_with_it(api, ada, anyone, sockets):
    csrf = anyone.post("/api/v1/session", json={"token": ada.token}).json()["csrf_token"]
    headers = {"X-CSRF-Token": csrf}
    opened, unused = (
        anyone.post("/api/v1/session/ticket", headers=headers).json()["ticket"] for _ in range(2)
    )
    socket = sockets(f"{api.ws}/ws/me?ticket={opened}")
    hear(socket)
    forged = unused.rpartition(".")[0] + ".token1"
    assert closed_with(sockets(f"{api.ws}/ws/me?ticket={forged}")) == 4401
    assert anyone.delete("/api/v1/session", headers=headers).status_code == 204
    assert closed_with(sockets(f"{api.ws}/ws/me?ticket={unused}")) == 4401
    assert closed_with(socket) == 4401


def test_a_socket_nobody_serves_is_closed_as_unknown(api, sockets):
    for path in ("/ws/nothing", "/ws/jobs", "/ws/jobs/1/2"):
        assert closed_with(sockets(api.ws + path)) == 4404
