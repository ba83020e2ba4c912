"""What is wrong is refused with a problem that says so, and nothing is stored."""

import json
import socket
import time

import pytest
from sqlalchemy import func, select

from genonaut.api import main
from genonaut.api.middleware import SECURITY_HEADERS, BodyLimit
from genonaut.db.models import GenerationJob
from tests.support.simulator import text_to_image

JOBS = "/api/v1/generation-jobs"
NODE = {"class_type": "KSampler", "inputs": {}}


@pytest.fixture(autouse=True)
def nothing_is_stored(database):
    yield
    with database.transaction() as session:
        assert not session.scalars(select(func.count()).select_from(GenerationJob)).one()


def check_problem(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:genonaut:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert "Traceback" not in answer.text
    assert {name.decode() for name, _ in SECURITY_HEADERS} <= set(answer.headers)
    return problem


@pytest.mark.parametrize(
    ("pointer", "body"),
    [
        ("#/prompt", {}),
        ("#/prompt", {"prompt": ""}),
        ("#/prompt", {"prompt": " \n\t"}),
        ("#/prompt", {"prompt": "x" * 20_001}),
        ("#/prompt", {"prompt": "a\0b"}),
        ("#/prompt", {"prompt": "\ud800"}),
        ("#/prompt", {"prompt": 7}),
        ("#/prompt", {"prompt": None}),
        ("#/prompt", {"prompt": "\u200b \u2060\ufeff\u3164"}),
        ("#/batch_size", {"prompt": "x", "batch_size": True}),
        ("#/width", {"prompt": "x", "width": "512"}),
        ("#/width", {"prompt": "x", "width": 512.0}),
        ("#/is_private", {"prompt": "x", "is_private": "yes"}),
        ("#/is_private", {"prompt": "x", "is_private": 1}),
        ("#/sampler_params/cfg", {"prompt": "x", "sampler_params": {"cfg": "7"}}),
        ("#/sampler_params/steps", {"prompt": "x", "sampler_params": {"steps": 20.0}}),
        ("#/negative_prompt", {"prompt": "x", "negative_prompt": "a\0b"}),
        ("#/width", {"prompt": "x", "width": 100}),
        ("#/width", {"prompt": "x", "width": 56}),
        ("#/height", {"prompt": "x", "height": 2056}),
        ("#/height", {"prompt": "x", "height": 10**40}),
        ("#/batch_size", {"prompt": "x", "batch_size": 9}),
        ("#/batch_size", {"prompt": "x", "batch_size": 0}),
        ("#/sampler_params/steps", {"prompt": "x", "sampler_params": {"steps": 151}}),
        ("#/sampler_params/seed", {"prompt": "x", "sampler_params": {"seed": 2**53}}),
        ("#/sampler_params/cfg", {"prompt": "x", "sampler_params": {"cfg": float("nan")}}),
        ("#/sampler_params/denoise", {"prompt": "x", "sampler_params": {"denoise": 1.1}}),
        (
            "#/sampler_params/sampler_name",
            {"prompt": "x", "sampler_params": {"sampler_name": "a b"}},
        ),
        ("#/sampler_params/scheduler", {"prompt": "x", "sampler_params": {"scheduler": ""}}),
        ("#/sampler_params/odd", {"prompt": "x", "sampler_params": {"odd": 1}}),
        ("#/checkpoint_model", {"prompt": "x", "checkpoint_model": "../../etc/passwd"}),
        ("#/checkpoint_model", {"prompt": "x", "checkpoint_model": "/etc/passwd"}),
        ("#/checkpoint_model", {"prompt": "x", "checkpoint_model": "C:\\x"}),
        ("#/checkpoint_model", {"prompt": "x", "checkpoint_model": "a\nb"}),
        ("#/checkpoint_model", {"prompt": "x", "checkpoint_model": "a\udfff"}),
        ("#/lora_models", {"prompt": "x", "lora_models": [{"name": "a"}] * 11}),
        ("#/lora_models/0/name", {"prompt": "x", "lora_models": [{"name": "a\0"}]}),
        (
            "#/lora_models/0/strength_model",
            {"prompt": "x", "lora_models": [{"name": "a", "strength_model": 10.1}]},
        ),
        ("#/surprise", {"prompt": "x", "surprise": 1}),
        ("#/workflow", {"prompt": "x", "workflow": {}}),
        ("#/workflow", {"prompt": "x", "workflow": []}),
        ("#/workflow", {"prompt": "x", "workflow": {"1": NODE}}),
        ("#/workflow", {"prompt": "x", "workflow": {"1": {"class_type": "SaveImage"}}}),
        ("#/workflow", {"prompt": "x", "workflow": text_to_image("a\0b")}),
        ("#/workflow", {"prompt": "x", "workflow": text_to_image("y" * 1_100_000)}),
        ("#", []),
        ("#", None),
        ("#", "text"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_wrong_field_is_named(ada, pointer, body):
    content = json.dumps(body).encode()
    answer = ada.client.post(JOBS, content=content, headers={"content-type": "application/json"})
    problem = check_problem(answer, 422)
    assert pointer in [item["pointer"] for item in problem["errors"]]
    assert len(answer.content) < 2000


def test_too_long_a_text_is_counted_in_characters(ada):
    for name in ("prompt", "negative_prompt"):
        answer = ada.client.post(JOBS, json={"prompt": "x", name: "x" * 20_001})
        assert "at most 20000 characters" in check_problem(answer, 422)["detail"]


def test_what_was_sent_is_not_repeated(anyone):
    answer = anyone.post("/api/v1/session", json={"token": "s3cret" * 50, "s3cret": "s3cret"})
    assert "s3cret" not in answer.text.replace("#/s3cret", "")
    check_problem(answer, 422)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"", 422),
        (b'{"prompt": "\xff"}', 400),
        (b"[" * 100_000, 400),
        (b'{"prompt": ' + b"9" * 5000 + b"}", 400),
    ],
)
def test_a_body_that_is_no_json_is_refused(ada, content, status):
    answer = ada.client.post(JOBS, content=content, headers={"content-type": "application/json"})
    check_problem(answer, status)


def test_a_body_of_another_type_is_refused(ada):
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        for content in (b"prompt=x", b'{"prompt": "x"}'):
            answer = ada.client.post(JOBS, content=content, headers={"content-type": kind})
            assert check_problem(answer, 415)["code"] == "unsupported_media_type"


def test_a_large_body_is_refused_before_it_is_read(api, ada):
    head = (
        f"POST {JOBS} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ada.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {50 * 2**20}\r\n\r\n"
    )
    port = int(api.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_large_body_in_chunks_is_refused_too(ada):
    def chunks():
        for _ in range(50):
            yield b"x" * 2**20

    answer = ada.client.post(JOBS, content=chunks())
    check_problem(answer, 413)


def test_a_body_that_stops_is_given_up(serve, api_settings, ada, monkeypatch):
    def impatient(app, *, max_bytes):
        return BodyLimit(app, max_bytes=max_bytes, idle_timeout_s=0.5)

    monkeypatch.setattr(main, "BodyLimit", impatient)
    port = int(serve(api_settings()).url.rpartition(":")[2])
    for path, login in ((JOBS, f"Authorization: Bearer {ada.token}\r\n"), ("/login", "")):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\n{login}"
            "Content-Type: application/json\r\nContent-Length: 20\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            for part in (head, '{"prompt', '": '):
                connection.sendall(part.encode())
                time.sleep(0.3)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 408"), path
        assert b"application/problem+json" in answer
        assert b"connection: close" in answer.lower()


def test_addresses_and_methods_that_do_not_exist_are_problems(ada):
    check_problem(ada.client.get("/api/v1/nothing"), 404)
    wrong = ada.client.put(JOBS)
    check_problem(wrong, 405)
    assert wrong.headers["allow"]
    for path in (f"{JOBS}/0", f"{JOBS}/-1", f"{JOBS}/abc", f"{JOBS}/{2**63}", f"{JOBS}/%00"):
        check_problem(ada.client.get(path), 422)
    for query in ("q=%00", "model=%00", "limit=%00", "mine=perhaps", "cursor=%00"):
        check_problem(ada.client.get(f"/api/v1/content?{query}"), 422)


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer gn_wrong", "Basic YTpi", "Bearer \xff"]
)
def test_a_wrong_login_is_401(anyone, authorization):
    for method, path in (("POST", JOBS), ("GET", JOBS), ("GET", "/api/v1/me")):
        answer = anyone.request(
            method, path, json={"prompt": "x"} if method == "POST" else None,
            headers={"Authorization": authorization.encode("latin-1")},
        )  # fmt: skip
        check_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


def test_a_failure_of_ours_is_a_500_without_its_story(api, ada, monkeypatch):
    from genonaut.domain import generation

    def fails(*_, **__):
        raise ValueError("the inside")

    monkeypatch.setattr(generation, "list_for", fails)
    answer = ada.client.get(JOBS)
    check_problem(answer, 500)
    assert "inside" not in answer.text
