"""Sockets behave as recorded: takeover, deafness, late connection, stuck readers, interrupts."""

import socket as sockets
import time

from tests.support.simulator import text_to_image, wait_until


def post(sim, graph, **more):
    answer = sim.http.post("/prompt", json={"prompt": graph, **more})
    return answer.raise_for_status().json()["prompt_id"]


def history(sim, prompt_id):
    entry = wait_until(lambda: sim.http.get(f"/history/{prompt_id}").json())
    return entry[prompt_id]


def sleeping(seconds=1.0, ticks=10, nonce=0):
    return {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": nonce},
        },
        "2": {
            "class_type": "TranscriptSleep",
            "inputs": {"image": ["1", 0], "seconds": seconds, "ticks": ticks, "nonce": nonce},
        },
        "3": {
            "class_type": "SaveImage",
            "inputs": {"images": ["2", 0], "filename_prefix": "test/sleep"},
        },
    }


def test_after_a_clean_close_a_new_socket_gets_the_current_node_and_the_rest(sim, listen):
    first = listen(sim.url, "rc")
    post(sim, sleeping(), client_id="rc")
    first.wait_for("progress:2/10")
    first.close()
    second = listen(sim.url, "rc")
    second.wait_for("executing:None")
    got = second.tokens()
    assert got[:2] == ["status:1:True", "executing:2"]
    assert "execution_start" not in got
    assert got[-3:] == ["execution_success", "status:0:False", "executing:None"]


def test_a_socket_goes_deaf_when_an_older_one_of_its_id_closes(sim, listen):
    old = listen(sim.url, "ov")
    post(sim, sleeping(), client_id="ov")
    old.wait_for("progress:1/10")
    new = listen(sim.url, "ov")
    new.wait_for("executing:2")
    new.wait_for("progress_state", 2)
    frozen = len(old.messages)
    old.close()
    wait_until(lambda: sim.http.get("/prompt").json()["exec_info"]["queue_remaining"] == 0)
    assert len(old.messages) == frozen
    assert "execution_success" not in new.tokens()
    before = len(new.messages)
    post(sim, sleeping(0, 0, 5), client_id="ov")
    wait_until(lambda: len(sim.log()) >= 2)
    assert len(new.messages) == before
    assert not new.ended()


def test_connecting_after_the_end_gives_only_status(sim, listen):
    prompt_id = post(sim, sleeping(0, 0, 6), client_id="late")
    history(sim, prompt_id)
    late = listen(sim.url, "late")
    late.wait_for("status:0:True")
    assert late.tokens() == ["status:0:True"]


def test_an_interrupt_stops_the_running_prompt_at_a_step_and_spares_a_pending_one(sim, listen):
    owner = listen(sim.url, "int")
    running = post(sim, sleeping(5, 100, 1), client_id="int")
    pending = post(sim, sleeping(0, 0, 2))
    owner.wait_for("progress:1/100")
    sim.http.post("/interrupt", json={"prompt_id": pending}).raise_for_status()
    sim.http.post("/interrupt", json={"prompt_id": running}).raise_for_status()
    owner.wait_for("executing:None")
    tokens = [t for t in owner.tokens() if t != "progress_state"]
    end = tokens.index("execution_interrupted")
    assert tokens[end : end + 3] == ["execution_interrupted", "status:1:False", "executing:None"]
    status = history(sim, running)["status"]
    assert (status["status_str"], status["completed"]) == ("error", False)
    assert history(sim, pending)["status"]["status_str"] == "success"


def test_an_interrupt_without_body_is_global_and_an_idle_one_hits_nothing(sim, listen):
    sim.http.post("/interrupt").raise_for_status()
    owner = listen(sim.url, "glob")
    prompt_id = post(sim, sleeping(5, 100, 3), client_id="glob")
    owner.wait_for("progress:1/100")
    sim.http.post("/interrupt", content="not json").raise_for_status()
    assert history(sim, prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"


def test_an_interrupt_during_the_last_node_is_lost(sim, listen):
    graph = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 3000, "height": 3000, "batch_size": 4, "color": 7},
        },
        "2": {
            "class_type": "SaveImage",
            "inputs": {"images": ["1", 0], "filename_prefix": "test/late"},
        },
    }
    owner = listen(sim.url, "last")
    prompt_id = post(sim, graph, client_id="last")
    owner.wait_for("executing:2")
    time.sleep(0.05)  # the check comes right before the node: let it pass
    sim.http.post("/interrupt", json={"prompt_id": prompt_id})
    assert history(sim, prompt_id)["status"]["status_str"] == "success"


def test_a_client_that_vanishes_does_not_stop_its_prompt(sim, listen):
    owner = listen(sim.url, "gone")
    prompt_id = post(sim, sleeping(0.5, 5, 4), client_id="gone")
    owner.wait_for("progress:1/5")
    owner.socket.socket.shutdown(sockets.SHUT_RDWR)
    assert history(sim, prompt_id)["status"]["status_str"] == "success"


def test_a_stuck_reader_freezes_the_events_of_all_but_neither_http_nor_the_executor(sim, listen):
    stuck = sockets.create_connection(("127.0.0.1", sim.port))
    stuck.sendall(
        b"GET /ws?clientId=stuck HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert stuck.recv(4096).startswith(b"HTTP/1.1 101")
    reader = listen(sim.url, "reader")
    graph = {
        "1": sleeping(nonce=8)["1"],
        "2": {
            "class_type": "TranscriptFlood",
            "inputs": {"image": ["1", 0], "frames": 8, "megabytes": 3},
        },
        "3": sleeping()["3"],
    }
    history(sim, post(sim, graph, client_id="stuck"))
    prompt_id = post(sim, sleeping(0, 0, 9), client_id="reader")
    history(sim, prompt_id)
    began = time.monotonic()
    sim.http.get("/system_stats").raise_for_status()
    assert time.monotonic() - began < 1
    assert "execution_success" not in reader.tokens()
    stuck.close()
    reader.wait_for("execution_success")


def test_previews_reach_only_the_owner_and_show_the_shape_of_the_picture(sim, listen):
    owner, other = listen(sim.url, "own"), listen(sim.url, "oth")
    post(sim, text_to_image(seed=3, size=(128, 64), steps=2), client_id="own")
    owner.wait_for("executing:None")
    assert owner.tokens().count("binary:1:JPEG 512x256 RGB") == 2
    other.wait_for("status:0:False")
    assert {t.partition(":")[0] for t in other.tokens()} == {"status"}
