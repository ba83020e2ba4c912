"""The signed webhook: taken once, within five minutes, for a prompt somebody waits for."""

import hashlib
import hmac
import json
import time

import pytest
from sqlalchemy import select

from genonaut.db.models import GenerationJob
from genonaut.domain import attempts
from tests.api.conftest import WEBHOOK_SECRET

PATH = "/webhooks/comfyui"


def signed(body: bytes, *, at: float | None = None, secret: str = WEBHOOK_SECRET) -> dict:
    timestamp = str(int(time.time() if at is None else at))
    mac = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256)
    return {
        "X-Genonaut-Timestamp": timestamp,
        "X-Genonaut-Signature": f"sha256={mac.hexdigest()}",
    }


@pytest.fixture
def prompt(database, make_claim) -> bytes:
    held = make_claim()
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="http://comfy", prompt_id="p-1")
    return json.dumps({"prompt_id": "p-1", "status": "success"}).encode()


def test_a_signed_webhook_is_recorded_and_its_repetition_refused(anyone, prompt, database):
    headers = signed(prompt)
    answer = anyone.post(PATH, content=prompt, headers=headers)
    assert answer.status_code == 202
    with database.transaction() as session:
        job = session.scalars(select(GenerationJob)).one()
    assert (answer.json(), job.status) == ({"job_id": job.id}, "running")
    assert job.webhook_received_at is not None
    again = anyone.post(PATH, content=prompt, headers=headers)
    assert (again.status_code, again.json()["code"]) == (409, "replayed")
    later = anyone.post(PATH, content=prompt, headers=signed(prompt, at=time.time() + 1))
    assert later.status_code == 202


def test_wrong_signatures_and_times_are_refused(anyone, prompt):
    good = signed(prompt)
    wrong = [
        {},
        signed(prompt, secret="x" * 20),
        signed(prompt + b" "),
        {**good, "X-Genonaut-Timestamp": str(int(time.time()) + 5)},
        {**good, "X-Genonaut-Signature": ""},
        {**good, "X-Genonaut-Signature": b"sha256=\xff"},
        signed(prompt, at=time.time() - 301),
        signed(prompt, at=time.time() + 310),
    ]
    for headers in wrong:
        assert anyone.post(PATH, content=prompt, headers=headers).status_code == 401


def test_unknown_prompts_are_404_and_bodies_that_are_none_are_refused(anyone):
    unknown = b'{"prompt_id": "never"}'
    assert anyone.post(PATH, content=unknown, headers=signed(unknown)).status_code == 404
    wrong = {
        b"": 400,
        b"{": 400,
        b"\xff": 400,
        b"{}": 422,
        b'{"prompt_id": "a\\u0000"}': 422,
        b'{"prompt_id": 7}': 422,
    }
    for body, status in wrong.items():
        answer = anyone.post(PATH, content=body, headers=signed(body))
        assert answer.status_code == status, body
        assert answer.headers["content-type"] == "application/problem+json"


def test_without_a_secret_there_is_no_webhook(serve, api_settings, prompt):
    import httpx

    other = serve(api_settings(comfyui_webhook_secret=None))
    answer = httpx.post(f"{other.url}{PATH}", content=prompt, headers=signed(prompt))
    assert answer.status_code == 404
