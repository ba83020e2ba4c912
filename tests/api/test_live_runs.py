"""Sockets of runs: for auditors, with a snapshot, higher versions and always the end."""

import time

import pytest
from sqlalchemy import text

from genonaut.domain import run_attempts, runs
from genonaut.domain.run_attempts import RunClaim
from genonaut.domain.runs import NewRun, Overlap, Trigger
from genonaut.domain.users import Role
from tests.api.conftest import closed_with, hear

QUEUES = {"generation", "maintenance", "notifications", "default"}


@pytest.fixture
def eve(make_account):
    return make_account("eve", Role.AUDITOR)


@pytest.fixture
def make_run(database):
    def make() -> int:
        asked = NewRun("a.task", "maintenance", Trigger.API, overlap=Overlap.ALLOW)
        with database.transaction() as session:
            return runs.trigger(session, asked).run.id

    return make


@pytest.fixture
def claim(database):
    def take(run_id: int) -> RunClaim:
        with database.transaction() as session:
            held = run_attempts.claim(session, run_id, worker="w", lease_s=30)
        assert held is not None
        return held

    return take


def report(database, held: RunClaim, done: int) -> None:
    with database.transaction() as session:
        run_attempts.report(session, held, progress={"phase": "running", "done": done})


def finish(database, held: RunClaim) -> None:
    with database.transaction() as session:
        run_attempts.complete(session, held, {"rows": 1})


def test_a_run_is_followed_from_its_snapshot_to_its_end(
    api, eve, database, make_run, claim, sockets, publishing
):
    run_id = make_run()
    socket = sockets(f"{api.ws}/ws/runs/{run_id}", eve)
    first = hear(socket)
    assert (first["type"], first["id"], first["final"]) == ("snapshot", run_id, False)
    held = claim(run_id)
    report(database, held, 40)
    finish(database, held)
    seen = [first]
    while not seen[-1]["final"]:
        seen.append(hear(socket))
    assert {message["type"] for message in seen[1:]} == {"run"}
    assert [m["version"] for m in seen] == sorted({m["version"] for m in seen})
    assert (seen[-1]["data"]["status"], seen[-1]["data"]["result"]) == ("completed", {"rows": 1})
    assert closed_with(socket) == 1000


def test_a_run_that_has_ended_is_told_at_once(api, eve, database, make_run, sockets):
    run_id = make_run()
    with database.transaction() as session:
        runs.request_cancel(session, run_id)
    socket = sockets(f"{api.ws}/ws/runs/{run_id}", eve)
    assert (hear(socket)["data"]["status"], closed_with(socket)) == ("cancelled", 1000)


def test_auditors_hear_of_every_run_and_see_the_queues(
    api, ada, eve, database, make_run, claim, sockets, publishing
):
    ended, live = make_run(), make_run()
    finish(database, claim(ended))
    held = claim(live)
    ada.client.post("/api/v1/generation-jobs", json={"prompt": "a cat"})
    socket = sockets(f"{api.ws}/ws/admin", eve)
    first = hear(socket)
    assert (first["type"], first["id"]) == ("snapshot", None)
    assert [run["id"] for run in first["data"]["runs"]] == [live]
    assert set(first["data"]["queues"]) == QUEUES
    queues = first["data"]["queues"]
    assert (queues["maintenance"]["pending"], queues["maintenance"]["running"]) == (0, 1)
    assert (queues["generation"]["pending"], queues["generation"]["running"]) == (1, 0)
    new = make_run()
    message = hear(socket)
    assert (message["type"], message["id"], message["final"]) == ("run", new, False)
    finish(database, held)
    message = hear(socket)
    while message["id"] != live:  # what has just ended is told again
        message = hear(socket)
    assert (message["final"], message["data"]["status"]) == (True, "completed")


def test_lost_events_are_healed_by_reading_the_rows_again(
    api, eve, database, make_run, make_job, claim, sockets
):
    run_id = make_run()
    one, everything = (sockets(f"{api.ws}/ws/{path}", eve) for path in (f"runs/{run_id}", "admin"))
    hear(one)
    hear(everything)
    new, short = make_run(), make_run()  # nothing is published
    seen_by_another = sockets(f"{api.ws}/ws/runs/{new}", eve)
    hear(seen_by_another)
    both = sockets(f"{api.ws}/ws/me?runs=1", eve)
    hear(both)
    make_job(eve, id=new)  # of the same number as a run that this socket knows
    finish(database, claim(run_id))
    finish(database, claim(short))
    began = time.monotonic()
    assert hear(one)["data"]["status"] == "completed"
    told = {message["id"]: message["final"] for message in (hear(everything) for _ in range(3))}
    assert told == {run_id: True, new: False, short: True}
    of_both = {(message["type"], message["id"]) for message in (hear(both) for _ in range(3))}
    assert of_both == {("run", run_id), ("run", short), ("job", new)}
    assert time.monotonic() - began < 8


def test_who_may_not_listen_is_told_why(api, ada, eve, make_run, sockets):
    run_id = make_run()
    for path, who, code in (
        (f"/ws/runs/{run_id}", None, 4401),
        ("/ws/admin", None, 4401),
        (f"/ws/runs/{run_id}", ada, 4403),
        ("/ws/runs/999999", ada, 4403),
        ("/ws/admin", ada, 4403),
        ("/ws/runs/999999", eve, 4404),
        ("/ws/runs/abc", eve, 4404),
        ("/ws/runs", eve, 4404),
    ):
        assert closed_with(sockets(api.ws + path, who)) == code, path


def test_a_socket_ends_with_the_role_and_with_the_login(api, eve, database, make_run, sockets):
    run_id = make_run()
    paths = ("/ws/admin", f"/ws/runs/{run_id}")
    demoted = [sockets(api.ws + path, eve) for path in paths]
    own = sockets(f"{api.ws}/ws/me", eve)
    for socket in (*demoted, own):
        hear(socket)
    with database.transaction() as session:
        session.execute(text("UPDATE users SET role = 'user'"))
    for socket in demoted:
        assert closed_with(socket) == 4403
    with pytest.raises(TimeoutError):
        own.recv(timeout=0.1)
    with database.transaction() as session:
        session.execute(text("UPDATE users SET role = 'operator'"))
    ended = [sockets(api.ws + path, eve) for path in paths]
    for socket in ended:
        hear(socket)
    with database.transaction() as session:
        session.execute(text("UPDATE users SET is_active = false"))
    for socket in (*ended, own):
        assert closed_with(socket) == 4401


def test_one_socket_brings_an_auditor_their_own_rows_and_all_runs(
    api, ada, eve, database, make_run, claim, sockets, publishing
):
    before = make_run()
    mine = eve.client.post("/api/v1/generation-jobs", json={"prompt": "a fox"}).json()["id"]
    socket = sockets(f"{api.ws}/ws/me?runs=1", eve)
    first = hear(socket)["data"]
    assert [job["id"] for job in first["jobs"]] == [mine]
    assert [run["id"] for run in first["runs"]] == [before]
    assert set(first["queues"]) == QUEUES
    eve.client.post(f"/api/v1/generation-jobs/{mine}/cancel")
    assert hear(socket)["data"]["status"] == "cancelled"
    finish(database, claim(before))
    heard = hear(socket)
    while heard["type"] != "run" or not heard["final"]:
        heard = hear(socket)
    assert (heard["id"], heard["data"]["status"]) == (before, "completed")
    assert closed_with(sockets(f"{api.ws}/ws/me?runs=1", ada)) == 4403
