"""The desk asks until it is answered, and complains of what no API may answer."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest

from tests.reliability.program import until
from tests.reliability.soak import desk as desks
from tests.reliability.soak.desk import Asked, Desk
from tests.reliability.soak.plan import Act, Plan

Answer = tuple[int, dict] | None
"""A status and a body; None: the connection is closed without one."""


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Asked]]:
    """Play acts against an API that answers as the test says, request by request."""
    monkeypatch.setattr(desks, "PAUSE_S", 0.01)
    servers = []

    def play(answer: Callable[[int, str, str], Answer], *acts: Act) -> Asked:
        requests = count(1)
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    said = answer(next(requests), self.path, self.headers["Idempotency-Key"])
                if said is None:
                    return
                body = json.dumps(said[1]).encode()
                self.send_response(said[0])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        desk = Desk(f"http://127.0.0.1:{server.server_port}", {"ada": "t"}, Plan(1, 0, (), acts))
        desk.open()
        until(lambda: not desk.open_requests(), "all is answered")
        desk.close()
        return desk.asked

    yield play
    for server in servers:
        server.shutdown()
        server.server_close()


SUBMIT = Act(0, "submit_job", "ada", number=1)
TWICE = Act(0, "submit_job", "ada", number=1, times=2)
CANCEL = Act(0.05, "cancel_job", "ada", of=1)
RETRY = Act(0.1, "retry_job", "ada", number=2, of=1)


def test_a_request_is_sent_until_it_is_answered_under_one_key(ask):
    keys = []

    def answer(nth: int, _: str, key: str) -> Answer:
        keys.append(key)
        return {1: None, 2: (503, {}), 3: (409, {"code": "request_in_flight"})}.get(
            nth, (202, {"id": 7})
        )

    asked = ask(answer, SUBMIT)
    assert asked.orders[1].row_id == 7
    assert keys == ["soak-1"] * 4
    assert asked.complaints == []


def test_what_is_about_a_job_names_it_and_its_answers_are_kept(ask):
    paths = []

    def answer(nth: int, path: str, _: str) -> Answer:
        paths.append(path)
        return [(202, {"id": 7}), (200, {}), (202, {"id": 8})][nth - 1]

    asked = ask(answer, SUBMIT, CANCEL, RETRY)
    jobs = "/api/v1/generation-jobs"
    assert paths == [jobs, f"{jobs}/7/cancel", f"{jobs}/7/retry"]
    assert [order.row_id for order in asked.of("job")] == [7, 8]
    assert [order.is_cancelled for order in asked.of("job")] == [True, False]


def test_a_cancel_that_comes_too_late_is_no_cancel(ask):
    asked = ask(lambda nth, *_: [(202, {"id": 7}), (409, {})][nth - 1], SUBMIT, CANCEL)
    assert not asked.orders[1].is_cancelled
    assert asked.complaints == []


def test_of_two_requests_one_may_be_refused(ask):
    twice = Act(0, "start_run", "ada", number=1, task="toys.count", times=2)
    asked = ask(lambda nth, *_: [(409, {}), (202, {"id": 7})][nth - 1], twice)
    assert asked.orders[1].row_id == 7
    assert asked.complaints == []


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda nth, *_: (202, {"id": nth}), "was answered with [1, 2]"),
        (lambda *_: (500, {"code": "internal_error"}), "500"),
        (lambda *_: (409, {"code": "conflict"}), "409"),
        (lambda *_: (503, {}), "not answered"),
        (lambda *_: None, "not answered"),
    ],
    ids=["two rows for one key", "a mistake", "a conflict", "never ready", "never there"],
)
def test_what_no_api_may_answer_is_complained_of(ask, answer, words, monkeypatch):
    monkeypatch.setattr(desks, "PATIENCE_S", 0.3)
    asked = ask(answer, TWICE)
    assert len(asked.complaints) >= 1
    assert words in asked.complaints[0]
