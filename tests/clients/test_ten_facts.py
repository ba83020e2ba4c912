"""The ten facts a client of ComfyUI must be built around, one test or more each."""

import pytest

from genonaut.clients.comfyui import CancelOutcome, Executing, Located
from genonaut.core.errors import (
    ArtifactMissingError,
    BackendUnavailableError,
    SubmissionUnclearError,
)
from genonaut.core.workflow import OutputImage, prepare
from tests.clients.scripted import (
    Reply,
    as_json,
    queue_of,
    recorded,
    steps,
    wait_until,
)

GRAPH = {"9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "u"}}}
ODD_ID = "not-a-uuid/with slash?"


def test_1_the_client_chooses_the_prompt_id_and_it_is_used_as_is(server, client):
    server.on("POST", "/prompt", recorded("02", "POST", "/prompt", "any string"))
    server.on(
        "GET",
        "/history/not-a-uuid%2Fwith%20slash%3F",
        recorded("02", "GET", "/history/not-a-uuid%2Fwith%20slash%3F"),
    )
    client.submit(GRAPH, prompt_id=ODD_ID, client_id="c")
    assert server.requests[0].body == {"prompt": GRAPH, "prompt_id": ODD_ID, "client_id": "c"}
    assert client.history(ODD_ID).outcome == "success"


def test_1_a_server_too_old_to_use_our_id_is_refused_and_its_prompt_removed(server, client):
    server.on("POST", "/prompt", recorded("02", "POST", "/prompt"))
    theirs = "3b1a2175-c87d-4afa-9b6f-7a07190987ce"
    server.queue(([], [(10, theirs)]), ([], []))
    server.on("POST", "/queue", Reply())
    server.on("GET", f"/history/{theirs}", as_json({}))
    with pytest.raises(BackendUnavailableError, match="too old"):
        client.submit(GRAPH, prompt_id="mine", client_id="c")
    assert [r.body for r in server.requests if r.path == "/queue" and r.body] == [
        {"delete": [theirs]}
    ]


def test_2_a_post_without_an_answer_is_unclear_and_then_found_not_posted_again(server, client):
    server.on("POST", "/prompt", Reply(fault="reset"))
    server.queue(([(1, "p")], []))
    with pytest.raises(SubmissionUnclearError):
        client.submit(GRAPH, prompt_id="p", client_id="c")
    assert client.locate("p") == Located("running")
    assert server.asked() == [("POST", "/prompt"), ("GET", "/queue")]


def test_2_cancel_removes_every_duplicate(server, client):
    server.queue(([], [(1, "p"), (2, "p")]), ([], [(2, "p")]), ([], []))
    server.on("POST", "/queue", Reply())
    server.on("GET", "/history/p", as_json({}))
    assert client.cancel("p") is CancelOutcome.CANCELLED
    assert server.asked("POST") == [("POST", "/queue")] * 2


def test_3_a_500_is_unclear_and_number_is_never_sent(server, client):
    server.on("POST", "/prompt", recorded("03", "POST", "/prompt", "the handler fails"))
    server.queue(([], [(7, "p"), (7, "p")]))
    with pytest.raises(SubmissionUnclearError):
        client.submit(GRAPH, prompt_id="p", client_id="c")
    assert "number" not in server.requests[0].body
    assert client.locate("p").state == "pending"


def test_4_the_end_is_executing_null_and_a_late_history_still_reads_as_running(server, client):
    server.queue(([(1, "p")], []), ([], []))
    server.on("GET", "/history/p", as_json({}))
    with client.listen("c") as listener:
        socket = server.socket()
        socket.send({"type": "execution_success", "data": {"prompt_id": "p", "timestamp": 1}})
        socket.send({"type": "executing", "data": {"node": None, "prompt_id": "p"}})
        assert wait_until(lambda: listener.poll(1)) == [Executing("p", None)]
    assert client.history("p") is None
    assert client.locate("p").state == "running"


def test_5_the_queue_is_read_before_the_history(server, client):
    entry = recorded("07", "GET", "/history/2f82fc9d-5677-4444-9305-f4b012341af0", "done")
    server.queue(([], []))
    server.on("GET", "/history/2f82fc9d-5677-4444-9305-f4b012341af0", entry)
    assert client.locate("2f82fc9d-5677-4444-9305-f4b012341af0").state == "finished"
    assert [path.split("/")[1] for _, path in server.asked()] == ["queue", "history"]


def test_6_after_a_restart_a_prompt_is_unknown(server, client):
    server.on("GET", "/queue", recorded("18", "GET", "/queue"))
    server.on("GET", "/history/p", as_json({}))
    assert client.locate("p") == Located("unknown")
    assert client.cancel("p") is CancelOutcome.UNKNOWN
    assert server.asked("POST") == []


def test_7_a_lost_socket_is_opened_again_but_only_after_the_old_one_is_closed(server, client):
    with client.listen("c") as listener:
        for number in range(3):
            wait_until(lambda number=number: server.socket(number).received)
            listener.reconnect()
        server.socket(3)
    assert server.overlapping == 0


def test_7_the_reader_reads_on_though_nobody_polls(server, client):
    frame = b"\0\0\0\1\0\0\0\1\xff\xd8\xff" + bytes(3_000_000)
    with client.listen("c") as listener:
        for value in range(12):  # 36 MB stuck a socket whose client did not read
            server.socket().send(frame)
            data = {"prompt_id": "p", "node": "3", "value": value, "max": 12}
            server.socket().send({"type": "progress", "data": data})
        newest = wait_until(lambda: [e for e in listener.poll(1) if e.value == 11])
        assert len(newest) == 1
        assert len(listener.take_preview().data) == 3_000_003


def test_8_interrupt_names_the_prompt_and_its_loss_in_the_last_node_is_reported(server, client):
    (late,) = [s for s in steps("06b") if s.get("request", {}).get("path", "").startswith("/hist")]
    prompt_id = late["request"]["path"].rsplit("/", 1)[1]
    server.queue(([(1, prompt_id)], []), ([(1, prompt_id)], []), ([], []))
    server.on("POST", "/interrupt", Reply())
    server.on("GET", late["request"]["path"], as_json(late["response"]["json"]))
    assert client.cancel(prompt_id) is CancelOutcome.FINISHED
    posts = [(r.path, r.body) for r in server.requests if r.method == "POST"]
    assert posts == [("/interrupt", {"prompt_id": prompt_id})]


def test_8_a_pending_prompt_is_deleted_and_interrupted_if_it_started_meanwhile(server, client):
    server.queue(([], [(1, "p")]), ([(1, "p")], []), ([], []))
    server.on("POST", "/queue", Reply())
    server.on("POST", "/interrupt", Reply())
    messages = [["execution_interrupted", {"prompt_id": "p", "timestamp": 1795465686940}]]
    status = {"status_str": "error", "completed": False, "messages": messages}
    server.on("GET", "/history/p", as_json({"p": {"outputs": {}, "status": status}}))
    assert client.cancel("p") is CancelOutcome.CANCELLED
    assert server.asked("POST") == [("POST", "/queue"), ("POST", "/interrupt")]


def test_9_a_dead_executor_answers_pings_but_its_prompt_never_leaves_the_queue(server, client):
    stuck = "5d58c48d-2d0c-4bb6-a1a6-0a405eb6b186"
    server.on("GET", "/prompt", recorded("17", "GET", "/prompt"))
    server.on("GET", "/queue", recorded("17", "GET", "/queue"))
    server.on("POST", "/interrupt", recorded("17", "POST", "/interrupt"))
    client.ping()
    assert client.queue_remaining() == 2
    assert client.cancel(stuck, wait_s=0.2) is CancelOutcome.STILL_RUNNING
    assert all(r.body == {"prompt_id": stuck} for r in server.requests if r.method == "POST")


def test_9_extra_data_which_may_kill_the_executor_is_never_sent(server, client):
    server.on("POST", "/prompt", as_json({"prompt_id": "p", "number": 1, "node_errors": {}}))
    client.submit(GRAPH, prompt_id="p", client_id="c")
    assert set(server.requests[0].body) == {"prompt", "prompt_id", "client_id"}


def test_10_an_old_file_from_the_cache_is_missing_and_a_new_prefix_avoids_it(server, client):
    server.on("GET", "/view", recorded("12", "GET", "/view", "not there"))
    image = OutputImage("img_00004_.png", "rec", "output")
    with pytest.raises(ArtifactMissingError):
        client.download(image, max_bytes=1000)
    prefixes = {prepare(GRAPH, f"j/a{n}")["9"]["inputs"]["filename_prefix"] for n in (1, 2)}
    assert prefixes == {"j/a1", "j/a2"}


def test_position_counts_by_number_and_behind_what_runs(server, client):
    server.on("GET", "/queue", recorded("05", "GET", "/queue"))
    ids = ["c764e661", "c100d5a1", "9ad7a9a9", "4a0c930a"]
    places = {i[:8]: client.locate(i).position for i in _pending_ids()}
    assert [places[i] for i in ids] == [2, 3, 4, 5]


def _pending_ids() -> list[str]:
    (first, *_) = [
        s["response"]["json"]
        for s in steps("05")
        if s["kind"] == "http"
        and (s["request"]["method"], s["request"]["path"]) == ("GET", "/queue")
    ]
    return [entry[1] for entry in first["queue_pending"]]


def test_position_ignores_the_order_in_which_the_heap_lists_them(server, client):
    server.on("GET", "/queue", queue_of([], [(3, "c"), (1, "a"), (2, "b")]))
    assert [client.locate(i).position for i in "abc"] == [1, 2, 3]
