"""The socket is only a hint: it may die in any way, and costs nobody anything."""

import json
import socket
import struct
import threading
import time

import pytest

from genonaut.clients.comfyui import Cached, ComfyClient, Executing, Failed, Status, Step
from genonaut.clients.comfyui.listener import MAILBOX, Listener
from tests.clients.scripted import wait_until

JPEG = b"\0\0\0\1\0\0\0\1\xff\xd8\xff"


def named(prompt_id):
    told = json.dumps({"prompt_id": prompt_id, "image_type": "image/jpeg"}).encode()
    return struct.pack(">II", 4, len(told)) + told + b"\xff\xd8\xff"


def status(remaining):
    return {"type": "status", "data": {"status": {"exec_info": {"queue_remaining": remaining}}}}


def progress(value, node="3"):
    return {"type": "progress", "data": {"prompt_id": "p", "node": node, "value": value, "max": 9}}


def ended(prompt_id="p"):
    return {"type": "executing", "data": {"prompt_id": prompt_id, "node": None}}


def everything_until(listener, last):
    events = []
    wait_until(lambda: events.extend(listener.poll(0.1)) or last in events)
    return events


def listener_threads():
    return [t for t in threading.enumerate() if t.name == "comfyui-listener"]


def test_feature_flags_are_the_very_first_message(server, client):
    with client.listen("c") as listener:
        wait_until(lambda: listener.connected)
        first = wait_until(lambda: server.socket().received)[0]
    assert json.loads(first) == {
        "type": "feature_flags",
        "data": {"supports_preview_metadata": True},
    }
    assert server.requests[0].path == "/ws?clientId=c"


def test_events_come_in_order_and_what_is_superseded_is_left_out(server, client):
    with client.listen("c") as listener:
        cached = {"type": "execution_cached", "data": {"prompt_id": "p", "nodes": ["4"]}}
        said = [status(1), status(2), cached, progress(1), progress(2), progress(1, "7"), ended()]
        for message in [*said, named("p")]:
            server.socket().send(message)
        wait_until(listener.take_preview)
        assert listener.poll(1) == [
            Status(2),
            Cached("p", ("4",)),
            Step("p", "3", 2, 9),
            Step("p", "7", 1, 9),
            Executing("p", None),
        ]
        assert listener.poll(0) == []


@pytest.mark.parametrize("message", [status(1), {"type": "progress_state", "data": {}}, JPEG, "{"])
def test_opening_and_any_message_is_a_sign_of_life(server, client, message):
    started = time.monotonic()
    with client.listen("c") as listener:
        wait_until(lambda: listener.connected)
        opened_at = listener.heard_at
        assert opened_at >= started
        server.socket().send(message)
        wait_until(lambda: listener.heard_at > opened_at)


def test_a_full_mailbox_keeps_the_newest(server, client):
    with client.listen("c") as listener:
        for number in range(MAILBOX + 10):
            server.socket().send(ended(str(number)))
        server.socket().send(named("p"))
        wait_until(listener.take_preview)
        events = listener.poll(1)
    assert len(events) == MAILBOX
    assert events[-1] == Executing(str(MAILBOX + 9), None)


def test_only_the_newest_preview_is_kept_and_given_once(server, client):
    with client.listen("c") as listener:
        server.socket().send(progress(1))
        for byte in b"abc":
            server.socket().send(JPEG + bytes([byte]))
        server.socket().send(ended())
        everything_until(listener, Executing("p", None))
        preview = listener.take_preview()
        assert (preview.format, preview.data) == ("jpeg", b"\xff\xd8\xffc")
        assert listener.take_preview() is None


def of(kind, prompt_id="p", **data):
    return {"type": kind, "data": {"prompt_id": prompt_id, **data}}


@pytest.mark.parametrize(
    ("said", "owner"),
    [
        ([], None),
        ([status(2)], None),
        ([{"type": "executing", "data": {"node": "3"}}], None),
        ([of("execution_start")], "p"),
        ([of("execution_cached", nodes=[])], "p"),
        ([of("executing", node="3")], "p"),
        ([progress(1), status(1), of("progress_state", nodes={})], "p"),
        ([progress(1), of("progress", "stranger", node="3", value=1, max=9)], "stranger"),
        ([progress(1), ended()], None),
        ([progress(1), of("execution_error")], None),
        ([progress(1), of("execution_interrupted")], None),
    ],
)
def test_a_preview_that_names_no_prompt_is_of_the_one_being_drawn(server, client, said, owner):
    with client.listen("c") as listener:
        for message in [*said, JPEG, ended("last")]:
            server.socket().send(message)
        everything_until(listener, Executing("last", None))
        preview = listener.take_preview()
    assert (preview.prompt_id if preview is not None else None) == owner
    assert (preview is None) == (owner is None)


def test_a_preview_that_names_its_prompt_keeps_it(server, client):
    with client.listen("c") as listener:
        for message in [progress(1), named("other"), ended()]:
            server.socket().send(message)
        everything_until(listener, Executing("p", None))
        assert listener.take_preview().prompt_id == "other"


def test_a_new_socket_does_not_know_whose_a_preview_is(server, client):
    with client.listen("c") as listener:
        server.socket().send(progress(1))
        everything_until(listener, Step("p", "3", 1, 9))
        server.socket().drop()
        for message in [JPEG, ended()]:
            server.socket(1).send(message)
        everything_until(listener, Executing("p", None))
        assert listener.take_preview() is None


def test_garbage_changes_nothing(server, client):
    with client.listen("c") as listener:
        garbage = [
            "",
            "{",
            "[]",
            "3",
            {"type": 3},
            {"type": "progress", "data": []},
            b"",
            b"\0" * 9,
        ]
        for message in garbage:
            server.socket().send(message)
        server.socket().send({"type": "execution_error", "data": {"prompt_id": "p"}})
        assert everything_until(listener, Failed("p")) == [Failed("p")]
        assert len(server.sockets) == 1


def test_a_dropped_socket_is_opened_again(server, client):
    with client.listen("c") as listener:
        server.socket().drop()
        second = server.socket(1)
        second.send(ended())
        everything_until(listener, Executing("p", None))
        wait_until(lambda: listener.connected)


def test_a_frame_beyond_the_limit_costs_the_socket_not_the_listener(server, client):
    with client.listen("c") as listener:
        server.socket().send(JPEG + bytes(33 * 1024 * 1024))
        second = server.socket(1)
        second.send(ended())
        everything_until(listener, Executing("p", None))


def test_a_server_without_a_socket_is_tried_again_and_never_raises(server, client):
    server.accept_sockets = False
    with client.listen("c") as listener:
        assert not listener.connected
        assert listener.poll(0.01) == []
        server.accept_sockets = True
        wait_until(lambda: listener.connected)


def test_of_the_sockets_that_cannot_be_opened_the_first_is_told_without_a_login(server, caplog):
    server.accept_sockets = False
    url = server.url.replace("//", "//secret:word@")
    with ComfyClient(url) as client, client.listen("c") as listener:
        wait_until(lambda: [path for _, path in server.asked()].count("/ws") > 2)
        server.accept_sockets = True
        wait_until(lambda: listener.connected)
        server.socket().drop()
        server.socket(1)
    [told] = [r for r in caplog.records if r.levelname == "WARNING"]
    assert f"at {server.url}/ws cannot".replace("http", "ws") in told.getMessage()
    assert "404" in told.getMessage()
    assert "secret" not in told.getMessage()
    assert "word" not in told.getMessage()


def test_an_address_that_no_socket_can_have_is_told_without_its_login(caplog):
    with Listener("ftp://secret:word@host/ws?clientId=c", tls=None):
        wait_until(lambda: caplog.records)
    assert "isn't ws or wss" in caplog.text
    assert "secret" not in caplog.text


def test_closing_ends_the_thread_at_once(server, client):
    with client.listen("c") as listener:
        started = time.monotonic()
    assert time.monotonic() - started < 1.2
    assert not listener.connected
    assert listener_threads() == []
    assert listener.poll(5) == []
    listener.close()


def test_closing_does_not_wait_for_a_server_that_never_says_goodbye(server, client):
    server.answer_close = False
    with client.listen("c"):
        started = time.monotonic()
    assert time.monotonic() - started < 1.2
    assert listener_threads() == []


def test_closing_does_not_wait_for_a_server_that_takes_the_call_and_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = ComfyClient(f"http://127.0.0.1:{mute.getsockname()[1]}", connect_timeout_s=1.5)
        with client, client.listen("c") as listener:
            started = time.monotonic()
            listener.close()
            assert time.monotonic() - started < 1.2
        wait_until(lambda: not listener_threads())


def test_poll_waits_for_the_first_event_only(server, client):
    with client.listen("c") as listener:
        started = time.monotonic()
        assert listener.poll(0.05) == []
        assert time.monotonic() - started >= 0.05
        threading.Timer(0.05, server.socket().send, [ended()]).start()
        assert listener.poll(5) == [Executing("p", None)]


def test_a_listener_that_was_never_entered_can_be_closed(client):
    client.listen("c").close()


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    wait_until(lambda: not listener_threads())
