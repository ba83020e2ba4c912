"""Sockets that come late, leave, are slow, are many, or have no business being there."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest
from websockets.asyncio.client import connect

from tests.reliability.program import holds, until
from tests.reliability.rig import Rig
from tests.reliability.web import Api

IDLE_S = 40.0
"""Longer than the listener takes to tell a dead connection from a silent one."""


def test_f43_a_socket_sees_the_state_now_and_then_every_change_in_order(rig: Rig) -> None:
    rig.worker(wait=False)
    api = rig.api()
    job_id = rig.submit(steps=60)
    with api.socket(f"/ws/jobs/{job_id}") as early:
        first = early.next()
        assert first is not None
        assert first["type"] == "snapshot"
        rig.wait_until_drawing(job_id)
        with api.socket(f"/ws/jobs/{job_id}") as dropped:
            snapshot = dropped.next()
            assert snapshot is not None
            assert snapshot["data"]["status"] == "running"
        early.read_to_end()
    assert early.closed_with == 1000
    assert early.versions() == sorted(set(early.versions()))
    assert early.statuses()[-2:] == ["running", "completed"]
    assert len(early.received) > 4
    with api.socket(f"/ws/jobs/{job_id}") as late:
        late.read_to_end()
    assert [message["type"] for message in late.received] == ["snapshot"]
    assert late.statuses() == ["completed"]
    assert late.closed_with == 1000


@pytest.mark.slow
def test_f43_a_client_that_was_gone_for_ten_seconds_catches_up(rig: Rig) -> None:
    rig.worker(wait=False)
    api = rig.api()
    rig.comfy.faults(step_delay_s=0.15)
    job_id = rig.submit(steps=120)
    rig.wait_until_drawing(job_id)
    with api.socket(f"/ws/jobs/{job_id}") as before:
        for _ in range(3):
            assert before.next()
    holds(lambda: rig.job(job_id).status == "running", "it goes on", 10)
    with api.socket(f"/ws/jobs/{job_id}") as after:
        snapshot = after.next()
        assert snapshot is not None
        assert snapshot["version"] > before.versions()[-1]
        after.read_to_end()
    assert after.statuses() == ["running", "completed"]


@pytest.mark.slow
def test_f44_a_thousand_sockets_leave_nothing_behind(rig: Rig) -> None:
    rig.worker(wait=False)
    api = rig.api()
    rig.wait_for(rig.submit(), "completed")
    with api.socket("/ws/me") as first:
        assert first.next()
    idle = (api.program.open_files(), rig.redis_connections())
    rig.comfy.faults(step_delay_s=0.15)
    job_id = rig.submit(steps=150)
    rig.wait_until_drawing(job_id)
    ends = asyncio.run(_watch_all(api, job_id, count=1000))
    assert ends == ["completed"] * 1000
    with api.socket("/ws/me") as one:
        assert one.next()
    until(lambda: api.program.open_files() <= idle[0] + 10, "the sockets are closed")
    until(lambda: rig.redis_connections() <= idle[1] + 2, "no connection stays")
    assert api.http.get("/livez").status_code == 200


async def _watch_all(api: Api, job_id: int, *, count: int) -> list[str]:
    """Watch a job with many sockets at once; give the last state each was told."""
    gate = asyncio.Semaphore(50)

    async def watch() -> str:
        url = f"ws://127.0.0.1:{api.port}/ws/jobs/{job_id}"
        headers = {"Authorization": f"Bearer {api.token}"}
        opening = connect(url, additional_headers=headers, proxy=None, open_timeout=30)
        status = ""
        async with AsyncExitStack() as stack:
            async with gate:
                socket = await stack.enter_async_context(opening)
            async for message in socket:
                status = json.loads(message)["data"]["status"]
        return status

    return await asyncio.gather(*(watch() for _ in range(count)))


@pytest.mark.slow
def test_f44_a_client_that_does_not_read_harms_nobody(rig: Rig) -> None:
    rig.worker(wait=False)
    api = rig.api()
    with api.socket("/ws/me") as deaf:
        assert deaf.next()
        jobs = [rig.submit(steps=10) for _ in range(10)]
        with api.socket(f"/ws/jobs/{jobs[-1]}") as eager:
            eager.read_to_end()
        assert eager.statuses()[-1] == "completed"
        for job_id in jobs:
            rig.wait_for(job_id, "completed")
            until(lambda each=job_id: deaf.next() and deaf.of("job", each, final=True), "its end")  # type: ignore[misc]


@pytest.mark.slow
def test_f44_sockets_find_their_job_again_after_a_restart_of_the_api(rig: Rig) -> None:
    rig.worker(wait=False)
    api = rig.api()
    job_id = rig.submit(steps=120)
    rig.wait_until_drawing(job_id)
    with api.socket(f"/ws/jobs/{job_id}") as cut:
        assert cut.next()
        api.program.kill9()
        cut.read_to_end()
        assert cut.closed_with != 1000
    again = rig.api(port=api.port)
    with again.socket(f"/ws/jobs/{job_id}") as back:
        back.read_to_end()
    assert back.received[0]["version"] >= cut.versions()[-1]
    assert back.statuses()[-1] == "completed"


@pytest.mark.slow
def test_f45_rubbish_and_silence_on_a_channel_do_not_deafen_it(rig: Rig) -> None:
    api = rig.api()
    job_id = rig.submit(steps=60)
    channel = f"{rig.ns}:events:job:{job_id}"
    with api.socket(f"/ws/jobs/{job_id}") as socket:
        assert socket.next()
        for rubbish in (b"", b"\xff\xfe", b"null", b"[]", b'{"type": 1}', b"[" * 10_000):
            assert rig.redis.publish(channel, rubbish) == 1
        holds(api.program.is_alive, "the API lives", IDLE_S)
        rig.worker(wait=False)
        socket.read_to_end()
    assert socket.statuses() == ["pending", "running", "completed"]
    assert len(socket.received) > 5, "events came, not only the rows read every few seconds"


def test_f47_a_socket_is_refused_to_whom_the_job_does_not_belong(rig: Rig) -> None:
    api = rig.api()
    job_id = rig.submit()
    stranger = rig.token(rig.add_user("eve"))
    for path, token, code in (
        (f"/ws/jobs/{job_id}", "", 4401),
        (f"/ws/jobs/{job_id}", "wrong", 4401),
        (f"/ws/jobs/{job_id}", stranger, 4403),
        (f"/ws/jobs/{job_id + 1}", stranger, 4404),
        ("/ws/me", "", 4401),
    ):
        with api.socket(path, token) as socket:
            socket.read_to_end()
        assert (socket.received, socket.closed_with) == ([], code), path
