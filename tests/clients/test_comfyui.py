"""The client against a real server that answers oddly."""

import base64
import json
import logging
import socket

import pytest

from genonaut.clients.comfyui import BackendOptions, CancelOutcome, ComfyClient
from genonaut.clients.comfyui.transport import parse_base_url, websocket_url, without_login
from genonaut.core.errors import (
    ArtifactMissingError,
    ArtifactTooLargeError,
    BackendUnavailableError,
    InvalidInputError,
    RetryableError,
    SubmissionUnclearError,
    WorkflowRejectedError,
)
from genonaut.core.workflow import OutputImage
from tests.clients.scripted import Reply, as_json, recorded, wait_until

GRAPH = {"9": {"class_type": "SaveImage", "inputs": {}}}
IMAGE = OutputImage("img_00001_.png", "job 1/ä", "output")
PROXY_PAGE = Reply(b"<html>bad gateway</html>", 502, {"content-type": "text/html"})
MOVED = Reply(status=302, headers={"location": "/elsewhere"})

ODDITIES = [
    Reply(b"<html>hello</html>", 200, {"content-type": "text/html"}),
    PROXY_PAGE,
    MOVED,
    Reply(b"", 200),
    Reply(b'{"queue_running": [', 200),
    Reply(b"\xff\xfe", 200),
    Reply(b"[" * 100_000, 200),
    Reply(b"{}", fault="truncate"),
    Reply(fault="reset"),
    Reply(b"x", headers={"content-encoding": "gzip"}),
    as_json([]),
    as_json("text"),
    as_json(None),
    as_json({"queue_running": {}, "queue_pending": 3, "p": 3, "exec_info": []}),
]


@pytest.fixture
def closed_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.parametrize("oddity", ODDITIES)
def test_whatever_a_read_gets_is_an_unavailable_backend(server, client, oddity):
    for path in ("/prompt", "/queue", "/history/p", "/elsewhere"):
        server.on("GET", path, oddity)
    for read in (client.ping, lambda: client.locate("p"), lambda: client.history("p")):
        with pytest.raises(BackendUnavailableError) as unavailable:
            read()
        assert server.url not in str(unavailable.value)


@pytest.mark.parametrize("oddity", [*ODDITIES, Reply(status=500)])
def test_whatever_a_post_gets_is_typed(server, client, oddity):
    server.on("POST", "/prompt", oddity)
    with pytest.raises(RetryableError):
        client.submit(GRAPH, prompt_id="p", client_id="c")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(fault="reset"),
        Reply(b"{}", fault="truncate"),
        PROXY_PAGE,
        Reply(b"<html>", 200),
        as_json({}),
        recorded("04", "POST", "/prompt", "prompt null"),
    ],
)
def test_a_post_that_may_have_arrived_is_unclear(server, client, reply):
    server.on("POST", "/prompt", reply)
    with pytest.raises(SubmissionUnclearError):
        client.submit(GRAPH, prompt_id="p", client_id="c")


@pytest.mark.parametrize("status", [302, 401, 403, 404, 405, 429])
def test_a_post_that_was_turned_away_is_surely_not_queued(server, client, status):
    server.on("POST", "/prompt", Reply(status=status))
    with pytest.raises(BackendUnavailableError):
        client.submit(GRAPH, prompt_id="p", client_id="c")


def test_a_server_that_is_down_is_surely_not_reached(closed_port):
    with ComfyClient(f"http://127.0.0.1:{closed_port}") as client:
        with pytest.raises(BackendUnavailableError):
            client.submit(GRAPH, prompt_id="p", client_id="c")
        with pytest.raises(BackendUnavailableError):
            client.ping()


def test_a_silent_server_is_given_up(server):
    server.on("POST", "/prompt", Reply(fault="stall"))
    with (
        ComfyClient(server.url, read_timeout_s=0.1) as client,
        pytest.raises(SubmissionUnclearError),
    ):
        client.submit(GRAPH, prompt_id="p", client_id="c")


def test_a_trickling_answer_is_given_up(server):
    server.on("GET", "/prompt", Reply(b" " * 60, fault="trickle"))
    with (
        ComfyClient(server.url, read_timeout_s=0.1) as client,
        pytest.raises(BackendUnavailableError, match="slow"),
    ):
        client.ping()


def test_a_refused_graph_is_told_in_words(server, client):
    server.on("POST", "/prompt", recorded("04", "POST", "/prompt", "checkpoint not in list"))
    with pytest.raises(WorkflowRejectedError, match=r"'missing\.safetensors' is not available"):
        client.submit(GRAPH, prompt_id="p", client_id="c")


def test_a_graph_too_large_is_refused(server, client):
    server.on("POST", "/prompt", recorded("04", "POST", "/prompt", "body over"))
    with pytest.raises(WorkflowRejectedError, match="too large"):
        client.submit(GRAPH, prompt_id="p", client_id="c")


PARTLY_VALID = json.loads(recorded("04", "POST", "/prompt", "two outputs").body)
PARTLY_ID = PARTLY_VALID["prompt_id"]


def test_a_graph_accepted_in_part_is_removed_and_refused(server, client):
    server.on("POST", "/prompt", as_json(PARTLY_VALID))
    server.queue(([], [(39, PARTLY_ID)]), ([], []))
    server.on("POST", "/queue", Reply())
    server.on("GET", f"/history/{PARTLY_ID}", as_json({}))
    with pytest.raises(WorkflowRejectedError, match="LoadImage"):
        client.submit(GRAPH, prompt_id=PARTLY_ID, client_id="c")
    assert ("POST", "/queue") in server.asked()


def test_a_graph_accepted_in_part_is_refused_even_if_it_cannot_be_removed(server, client, caplog):
    server.on("POST", "/prompt", as_json(PARTLY_VALID))
    with caplog.at_level(logging.WARNING), pytest.raises(WorkflowRejectedError):
        client.submit(GRAPH, prompt_id=PARTLY_ID, client_id="c")
    assert "could not remove" in caplog.text


def test_a_cancel_that_the_server_refuses_is_an_unavailable_backend(server, client):
    server.queue(([(1, "p")], []))
    server.on("POST", "/interrupt", PROXY_PAGE)
    with pytest.raises(BackendUnavailableError):
        client.cancel("p")


def test_cancelling_twice_tells_the_same(server, client):
    server.queue(([], []))
    prompt_id = "877a5fcf-6a91-4983-ad79-fc11fb5412f8"
    path = f"/history/{prompt_id}"
    server.on("GET", path, recorded("06", "GET", path))
    assert {client.cancel(prompt_id) for _ in "ab"} == {CancelOutcome.CANCELLED}
    assert server.asked("POST") == []


def test_downloads_by_the_three_fields(server, client):
    server.on("GET", "/view", Reply(b"bytes of a picture"))
    assert client.download(IMAGE, max_bytes=18) == b"bytes of a picture"
    assert server.requests[0].query == {
        "filename": "img_00001_.png",
        "subfolder": "job 1/ä",
        "type": "output",
    }


def test_a_download_stops_at_the_limit(server, client):
    server.on("GET", "/view", Reply(b"x" * 19))
    with pytest.raises(ArtifactTooLargeError):
        client.download(IMAGE, max_bytes=18)
    server.on("GET", "/view", Reply(b"x" * 19, headers={"transfer-encoding": "chunked"}))
    with pytest.raises(ArtifactTooLargeError):
        client.download(IMAGE, max_bytes=18)


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (recorded("08", "GET", "/view", "missing file"), ArtifactMissingError),
        (recorded("08", "GET", "/view", "empty filename"), ArtifactMissingError),
        (PROXY_PAGE, BackendUnavailableError),
        (MOVED, BackendUnavailableError),
        (Reply(b"x", fault="truncate"), BackendUnavailableError),
    ],
)
def test_a_download_that_fails_is_typed(server, client, reply, error):
    server.on("GET", "/view", reply)
    with pytest.raises(error):
        client.download(IMAGE, max_bytes=1000)


def offer(server, **inputs):
    names = {"ckpt_name": "CheckpointLoaderSimple", "lora_name": "LoraLoader"}
    for node_class in ("CheckpointLoaderSimple", "LoraLoader", "KSampler"):
        required = {k: v for k, v in inputs.items() if names.get(k, "KSampler") == node_class}
        info = {node_class: {"input": {"required": required}}} if required else {}
        server.on("GET", f"/object_info/{node_class}", as_json(info))


def test_options_are_read_as_recorded(server, client):
    offer(server)
    for node_class in ("KSampler", "CheckpointLoaderSimple"):
        path = f"/object_info/{node_class}"
        server.on("GET", path, recorded("01", "GET", path))
    options = client.options()
    assert options.checkpoints == ("random-sd15-tiny.safetensors", "random-sd15.safetensors")
    assert options.samplers[:2] == ("euler", "euler_cfg_pp")
    assert options.schedulers[0] == "simple"
    assert (options.loras, options.node_classes) == ((), None)


def test_options_are_read_in_the_newer_form_and_odd_ones_are_empty(server, client):
    offer(
        server,
        ckpt_name=["COMBO", {"options": ["a", 3, "b"]}],
        lora_name=["COMBO"],
        sampler_name=[["euler"]],
        scheduler={"odd": 1},
    )
    server.on("GET", "/object_info", as_json({"KSampler": {}, "SaveImage": {}}))
    assert client.options(with_node_classes=True) == BackendOptions(
        ("a", "b"), (), ("euler",), (), frozenset({"KSampler", "SaveImage"})
    )


def test_a_path_prefix_is_kept_for_http_and_websocket(server):
    server.on("GET", "/comfy/prompt", recorded("01", "GET", "/prompt"))
    with ComfyClient(f"{server.url}/comfy/") as client:
        assert client.queue_remaining() == 0
        with client.listen("a b&c"):
            server.socket()
    assert server.requests[-1].path == "/comfy/ws?clientId=a+b%26c"


def test_https_gives_a_secure_websocket():
    base = parse_base_url("https://host.example/comfy/")
    assert websocket_url(base, "c") == "wss://host.example/comfy/ws?clientId=c"


@pytest.mark.parametrize(
    ("login", "told"),
    [
        ("tok%40en", b"tok@en:"),
        ("to:ken", b"to:ken"),
        ("us%2Fer:p%40%2F%3A", b"us/er:p@/:"),
        (":word", b":word"),
        ("", None),
    ],
)
def test_the_login_of_the_address_is_told_by_http_and_by_the_socket(server, login, told):
    server.on("GET", "/prompt", recorded("01", "GET", "/prompt"))
    with ComfyClient(server.url.replace("//", f"//{login}@" if login else "//")) as client:
        client.ping()
        with client.listen("c") as listener:
            wait_until(lambda: listener.connected)
    expected = told and "Basic " + base64.b64encode(told).decode()
    assert [request.authorization for request in server.requests] == [expected] * 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host:8188/a/", "http://host:8188/a/"),
        ("https://token@host", "https://host"),
        ("https://us:wo@rd@[::1]:1/p?q=a@b#c", "https://[::1]:1/p?q=a@b#c"),
        ("no address", "no address"),
    ],
)
def test_an_address_is_shown_without_its_login(url, shown):
    assert without_login(url) == shown


def test_proxies_of_the_environment_are_not_used(server, client, monkeypatch, closed_port):
    for name in ("http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    server.on("GET", "/prompt", recorded("01", "GET", "/prompt"))
    with ComfyClient(server.url) as fresh:
        fresh.ping()
        with fresh.listen("c") as listener:
            wait_until(lambda: listener.connected)


@pytest.mark.parametrize("url", ["", "localhost:8188", "ftp://host", "http://", "http://a:b", "/x"])
def test_an_address_that_is_none_is_refused_at_once(url):
    with pytest.raises(InvalidInputError) as refused:
        ComfyClient(url)
    assert refused.value.field == "comfyui_url"
