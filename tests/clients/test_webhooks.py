"""Webhooks reach what was judged, in time, signed so that others can verify it."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from genonaut.clients import webhooks
from genonaut.clients.guard import Allowed
from genonaut.core.errors import DeliveryFailedError, DeliveryRefusedError, InvalidInputError
from tests.support.servers import free_port
from tests.support.sinks import answer, drip, flood, http_sink

LOCAL = Allowed.of(["127.0.0.0/8"])
SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="
OTHER = "whsec_" + "AAAA9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="


@pytest.fixture
def sink():
    with http_sink() as opened:
        yield opened


def post(url: str, body: bytes = b"{}", **options):
    options = {"allowed": LOCAL, "timeout_s": 2.0, **options}
    return webhooks.post(webhooks.check_url(url), body, {"X-Own": "1"}, **options)


@contextmanager
def black_hole(host: str, port: int) -> Iterator[None]:
    """Listen, and take no connection: what fills the queue is never accepted."""
    with ExitStack() as opened:
        opened.enter_context(socket.create_server((host, port), backlog=0))
        with suppress(TimeoutError):
            for _ in range(8):
                opened.enter_context(socket.create_connection((host, port), timeout=0.1))
            pytest.fail("the queue is never full")
        yield


def test_what_is_signed_is_verified_by_others(sink):
    body = json.dumps({"type": "notification.system"}).encode()
    headers = webhooks.signed([SECRET, OTHER], "msg_1", datetime.now(UTC), body)
    webhooks.post(webhooks.check_url(sink.url), body, headers, allowed=LOCAL, timeout_s=2)
    (heard,) = sink.heard
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(heard.body, heard.headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(heard.body + b" ", heard.headers)
    assert heard.headers["webhook-id"] == "msg_1"
    assert heard.headers["content-type"] == "application/json"
    assert heard.headers["host"] == f"127.0.0.1:{sink.port}"


def test_the_body_of_an_answer_is_read_only_on_demand_and_in_part(sink):
    sink.script = [answer(200, b"yes"), answer(200, b"y" * 100_000)]
    assert post(sink.url).body == b""
    assert post(sink.url, read_body=True).body == b"y" * webhooks.MAX_ANSWER


def test_an_answer_of_ten_megabytes_is_not_read(sink):
    sink.script = [flood]
    began = time.monotonic()
    assert post(sink.url, read_body=True).body == b"x" * webhooks.MAX_ANSWER
    assert time.monotonic() - began < 1


def test_an_answer_that_drips_ends_with_the_deadline(sink):
    sink.script = [drip]
    began = time.monotonic()
    with pytest.raises(DeliveryFailedError) as late:
        post(sink.url, timeout_s=0.3)
    assert late.value.code == "timed_out"
    assert time.monotonic() - began < 1


def test_redirects_are_not_followed(sink):
    sink.script = [answer(302, Location="http://169.254.169.254/")]
    assert post(sink.url).status == 302
    assert len(sink.heard) == 1


def test_a_receiver_that_is_not_there_may_be_there_later():
    with pytest.raises(DeliveryFailedError) as away:
        post(f"http://127.0.0.1:{free_port()}/")
    assert away.value.code == "unreachable"


def test_the_name_that_was_judged_is_not_looked_up_again(sink):
    """A name that turns private after it was looked at leads where it led then."""
    looks = []

    def rebinding(host: str, port: int) -> list[str]:
        looks.append(host)
        return ["127.0.0.1"] if len(looks) == 1 else ["10.0.0.1"]

    url = f"http://rebinding.test:{sink.port}/hook"
    assert post(url, resolve=rebinding).status == 204
    assert looks == ["rebinding.test"]
    assert sink.heard[0].headers["host"] == f"rebinding.test:{sink.port}"
    with pytest.raises(DeliveryRefusedError):
        post(url, resolve=rebinding)
    assert len(sink.heard) == sink.connections == 1


def test_the_next_address_is_tried_when_the_first_does_not_listen(sink):
    url = f"http://two.test:{sink.port}/"
    assert post(url, resolve=lambda *_: ["127.0.0.2", "127.0.0.1"]).status == 204


def test_an_address_that_is_a_black_hole_leaves_time_to_the_next(sink):
    def after_a_while(heard, connection):
        time.sleep(0.4)
        answer(200)(heard, connection)

    sink.script = [after_a_while]
    with black_hole("127.0.0.2", sink.port):
        url = f"http://two.test:{sink.port}/"
        found = post(url, resolve=lambda *_: ["127.0.0.2", "127.0.0.1"], timeout_s=1.6)
    assert found.status == 200
    assert len(sink.heard) == 1


def test_the_certificate_must_be_that_of_the_name(sink, monkeypatch):
    """The name goes into the handshake, though the connection is made to an address."""
    asked = []
    context = ssl.create_default_context()
    wrapped = context.wrap_bio

    def wrap_bio(*values, server_hostname=None, **options):
        asked.append(server_hostname)
        return wrapped(*values, server_hostname=server_hostname, **options)

    monkeypatch.setattr(context, "wrap_bio", wrap_bio)
    monkeypatch.setattr(webhooks, "_trust", lambda: context)
    with pytest.raises(DeliveryFailedError):
        post(f"https://named.test:{sink.port}/", resolve=lambda *_: ["127.0.0.1"], timeout_s=0.5)
    assert asked == [b"named.test"]
    assert context.check_hostname


def test_a_receiver_may_say_when_to_come_again(sink):
    at = datetime.now(UTC) + timedelta(seconds=100)
    for given, low, high in (
        ("120", 120, 120),
        (format_datetime(at, usegmt=True), 95, 100),
        (format_datetime(at - timedelta(hours=1), usegmt=True), 0, 0),
        ("99999999", webhooks.LONGEST_RETRY_AFTER_S, webhooks.LONGEST_RETRY_AFTER_S),
    ):
        sink.script = [answer(429, Retry_After=given)]
        assert low <= post(sink.url).retry_after_s <= high
    for given in ("soon", "-5", "9" * 50, "Mon, 99 Jan 2026 00:00:00 GMT"):
        sink.script = [answer(429, Retry_After=given)]
        assert post(sink.url).retry_after_s is None


def test_no_proxy_of_the_environment_stands_between(sink, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    assert post(sink.url).status == 204


@pytest.mark.parametrize(
    "text",
    [
        *("", "example.org", "//example.org", "ftp://example.org", "http://", "https:///x"),
        *("http://a@b.example/", "http://a:b@c.example/", "http://example.org/#x"),
        *("http://exa mple.org", "http://example.org\n", "http://example.org\t/", "http://[::1"),
        *("http://example.org:0/", "http://example.org:99999/", "http://[fe80::1%25eth0]/"),
        *(
            "http://" + "x" * 2000,
            "http://example.org/" + "é" * 331,
            "http://example.org/" + '"' * 661,
        ),
    ],
)
def test_what_is_no_url_of_a_receiver_is_refused(text):
    with pytest.raises(InvalidInputError) as refused:
        webhooks.check_url(text)
    assert refused.value.field == "address"


def test_a_url_gets_its_usual_form():
    assert str(webhooks.check_url("HTTPS://Example.ORG/A?b=C")) == "https://example.org/A?b=C"
    assert webhooks.check_url("https://bücher.example/").raw_host == b"xn--bcher-kva.example"
    assert isinstance(webhooks.check_url("http://[2a00::1]:80/"), httpx.URL)
    assert len(str(webhooks.check_url("http://example.org/" + "é" * 330))) == 1999
