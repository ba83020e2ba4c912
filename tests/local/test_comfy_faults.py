"""Injected faults do what their description says, and end when they are replaced."""

import signal
import socket
import subprocess
import sys

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.local.test_comfy_sockets import history, post, sleeping
from tests.support.simulator import running_simulator, text_to_image, wait_until


def ends_of(sim, prompt_id):
    return sim.log()[prompt_id]["ended"]


@pytest.mark.parametrize("fault", ["500", "503", "garbage", "reset"])
def test_a_refused_post_queues_nothing(sim, fault):
    sim.faults(prompt_post=fault, count=1)
    try:
        answer = httpx.post(
            f"{sim.url}/prompt", json={"prompt": sleeping(0, 0), "prompt_id": fault}
        )
        assert answer.status_code == {"500": 500, "503": 503, "garbage": 200}[fault]
    except httpx.TransportError:
        assert fault == "reset"
    assert fault not in sim.log()
    post(sim, sleeping(0, 0), prompt_id=fault)
    assert sim.log()[fault]["received"] == 1


@pytest.mark.parametrize("fault", ["reset_after_accept", "hang_after_accept", "500_after_accept"])
def test_a_post_that_fails_after_accept_runs_all_the_same(sim, fault):
    sim.faults(prompt_post=fault, count=1)
    body = {"prompt": sleeping(0, 0, 11), "prompt_id": fault}
    try:
        answer = sim.http.post("/prompt", json=body, timeout=0.5)
        assert answer.status_code == 500
    except (httpx.ReadError, httpx.RemoteProtocolError):
        assert fault == "reset_after_accept"
    except httpx.ReadTimeout:
        assert fault == "hang_after_accept"
    assert history(sim, fault)["status"]["completed"]
    assert (sim.log()[fault]["received"], sim.log()[fault]["runs"]) == (1, 1)


def test_the_same_id_twice_runs_twice_and_leaves_one_entry(sim):
    for color in (1, 2):
        post(sim, sleeping(0, 0, color), prompt_id="twice")
    wait_until(lambda: ends_of(sim, "twice") == ["success", "success"])
    assert sim.log()["twice"]["runs"] == 2
    assert list(sim.http.get("/history").json()) == ["twice"]


def test_a_cached_rerun_costs_no_gpu_and_names_the_old_file_even_when_it_is_gone(sim):
    graph = text_to_image(seed=77)
    first = history(sim, post(sim, graph))["outputs"]
    name = first["9"]["images"][0]["filename"]
    (sim.directory / "output" / "test" / name).unlink()
    again = post(sim, graph, prompt_id="again")
    assert history(sim, again)["outputs"] == first
    assert sim.log()["again"]["sampled"] == 0
    view = sim.http.get("/view", params=first["9"]["images"][0])
    assert view.status_code == 404


@pytest.mark.parametrize(
    ("faults", "kind", "size"),
    [
        ({"node_error": {"type": "RuntimeError", "message": "m"}}, "RuntimeError", 2),
        ({"oom": True}, "torch.OutOfMemoryError", 200),
        ({"huge_error": True}, "ValueError", 200_001),
    ],
)
def test_a_node_fails_as_asked_so_many_times(sim, faults, kind, size):
    sim.faults(**faults, count=1)
    failed = history(sim, post(sim, text_to_image(seed=5)))
    event, data = failed["status"]["messages"][-1]
    assert (event, data["exception_type"]) == ("execution_error", kind)
    assert len(data["exception_message"]) >= size
    assert history(sim, post(sim, text_to_image(seed=5)))["status"]["completed"]


def test_a_late_history_entry_keeps_the_prompt_in_the_queue(sim):
    sim.faults(history_delay_s=0.4)
    post(sim, sleeping(0, 0, 21), prompt_id="slow")
    folder = sim.directory / "output" / "test"
    wait_until(folder.exists)
    seen = set()
    while True:
        queue = sim.http.get("/queue").json()
        done = sim.http.get("/history/slow").json()
        live = any(item[1] == "slow" for item in queue["queue_running"] + queue["queue_pending"])
        assert live or done, "queue first, then history, never misses a prompt"
        seen.add((live, bool(done)))
        if done and not live:
            break
    assert (True, False) in seen


@pytest.mark.parametrize("fault", ["404", "500", "truncated", "corrupt", "empty"])
def test_a_picture_arrives_spoiled_once(sim, fault):
    entry = history(sim, post(sim, text_to_image(seed=9)))["outputs"]["9"]["images"][0]
    whole = sim.http.get("/view", params=entry).content
    sim.faults(view=fault, count=1)
    try:
        answer = sim.http.get("/view", params=entry)
        assert answer.status_code != 200 or answer.content != whole
    except httpx.TransportError:
        assert fault == "truncated"
    assert sim.http.get("/view", params=entry).content == whole


def test_sockets_can_be_deaf_refused_garbled_or_dropped(sim, listen):
    sim.faults(ws="refuse")
    with pytest.raises(InvalidStatus), connect(sim.url.replace("http", "ws") + "/ws"):
        pass
    sim.faults(ws="deaf")
    deaf = listen(sim.url, "deaf")
    history(sim, post(sim, sleeping(0, 0, 31), client_id="deaf"))
    assert deaf.tokens() in ([], ["status:0:True"])
    sim.faults(ws="garbage")
    garbled = listen(sim.url, "garbled")
    history(sim, post(sim, sleeping(0, 0, 32), client_id="garbled"))
    wait_until(garbled.ended)
    sim.faults()
    dropped = listen(sim.url, "dropped")
    sim.faults(drop_sockets=True)
    wait_until(dropped.ended)
    assert not dropped.clean


def test_a_frozen_executor_leaves_http_alive_and_goes_on_when_thawed(sim):
    sim.faults(freeze=True)
    post(sim, sleeping(0, 0, 41), prompt_id="ice")
    wait_until(lambda: sim.log()["ice"]["runs"] == 1)
    assert sim.http.get("/system_stats").status_code == 200
    assert sim.http.get("/prompt").json()["exec_info"]["queue_remaining"] == 1
    sim.faults()
    assert history(sim, "ice")["status"]["completed"]


def test_forget_loses_queue_and_history_but_not_the_log(sim):
    done = post(sim, sleeping(0, 0, 51))
    history(sim, done)
    post(sim, sleeping(5, 100, 52), prompt_id="running")
    post(sim, sleeping(0, 0, 53), prompt_id="waiting")
    wait_until(lambda: sim.log()["running"]["runs"] == 1)
    sim.faults(forget=True)
    assert sim.http.get("/history").json() == {}
    assert sim.http.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert ends_of(sim, "running") == ends_of(sim, "waiting") == ["forgotten"]
    again = sim.http.post("/prompt", json={"prompt": sleeping(0, 0, 54)}).json()
    assert again["number"] == 0
    assert history(sim, again["prompt_id"])["status"]["completed"]


def test_all_of_http_can_fail_but_the_controls_answer(sim):
    sim.faults(all_http="503")
    assert sim.http.get("/system_stats").status_code == 503
    sim.faults(all_http="hang")
    with pytest.raises(httpx.ReadTimeout):
        sim.http.get("/queue", timeout=0.3)
    sim.faults()
    assert sim.http.get("/queue").status_code == 200


def test_a_fault_that_does_not_exist_is_refused(sim):
    answer = sim.http.post("/simulator/faults", json={"nosuch": 1})
    assert answer.status_code == 422
    assert answer.json()[0]["loc"] == ["nosuch"]


def test_extra_data_null_kills_the_executor_until_a_restart(tmp_path):
    with running_simulator(directory=tmp_path, synthetic_nodes=True) as sim:
        kept = history(sim, post(sim, text_to_image()))["outputs"]["9"]["images"][0]
        post(sim, sleeping(0, 0), prompt_id="killer", extra_data=None)
        post(sim, sleeping(0, 0), prompt_id="after")
        sim.http.post("/interrupt")
        wait_until(lambda: sim.http.get("/queue").json()["queue_running"])
        queue = sim.http.get("/queue").json()
        assert [item[1] for item in queue["queue_running"]] == ["killer"]
        assert [item[1] for item in queue["queue_pending"]] == ["after"]
        sim.stop(signal.SIGKILL)
        sim.start()
        assert sim.http.get("/queue").json()["queue_running"] == []
        assert sim.http.get("/history").json() == {}
        assert sim.http.get("/view", params=kept).status_code == 200
        assert history(sim, post(sim, sleeping(0, 0)))["status"]["completed"]
        process = sim.process
        sim.stop()
        assert process.returncode == 0


def test_controls_are_closed_unless_asked_for():
    with running_simulator(allow_faults=False) as sim:
        assert sim.http.get("/simulator/log").status_code == 404
        assert sim.http.post("/simulator/faults", json={}).status_code == 404
        assert "TranscriptSleep" not in sim.http.get("/object_info").json()


def test_a_taken_port_is_one_clear_line_and_status_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "genonaut.local.comfy", "--port", port]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert ended.returncode == 1
    message = f"comfy simulator: cannot listen on 127.0.0.1:{port}: Address already in use\n"
    assert ended.stderr == message
