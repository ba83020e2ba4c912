"""An Idempotency-Key makes one job, however often and however fast it is sent."""

from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import func, select

from genonaut.db.models import GenerationJob
from tests.support.simulator import running_simulator

JOBS = "/api/v1/generation-jobs"


def send(who, key="k", prompt="a cat", **extra):
    return who.client.post(JOBS, json={"prompt": prompt, **extra}, headers={"Idempotency-Key": key})


def test_a_repetition_gets_the_same_answer_and_says_so(ada, bob):
    first, second, other = send(ada), send(ada), send(bob)
    assert (second.status_code, second.json()) == (202, first.json())
    assert second.headers["location"] == first.headers["location"]
    assert second.headers["idempotency-replayed"] == "true"
    assert other.json()["id"] != first.json()["id"]


def test_another_body_or_another_act_under_the_key_is_refused(ada):
    job = send(ada).json()["id"]
    refused = send(ada, prompt="a dog")
    assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")
    ada.client.post(f"{JOBS}/{job}/cancel")
    refused = ada.client.post(f"{JOBS}/{job}/retry", headers={"Idempotency-Key": "k"})
    assert refused.status_code == 422


def test_a_refused_request_leaves_the_key_free(ada):
    assert send(ada, width=100).status_code == 422
    assert send(ada).status_code == 202


def test_a_repetition_is_answered_although_the_choices_have_changed(
    serve, api_settings, make_account
):
    with running_simulator() as simulator:
        here = make_account("ada", at=serve(api_settings(comfyui_url=simulator.url)))
        gone = {"checkpoint_model": "gone.safetensors"}
        assert send(here, key="k2", **gone).status_code == 422
        elsewhere = make_account("bob", at=serve(api_settings()))
        first = send(elsewhere, **gone)
        assert first.status_code == 202
        elsewhere.client.base_url = here.client.base_url
        assert send(elsewhere, **gone).json() == first.json()


def test_a_malformed_key_is_refused(ada):
    for key in ("a b", "x" * 256, ""):
        answer = send(ada, key=key)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["header"] == "Idempotency-Key"


def test_a_repeated_retry_makes_one_job(ada):
    job = send(ada).json()["id"]
    ada.client.post(f"{JOBS}/{job}/cancel")
    made = {
        ada.client.post(f"{JOBS}/{job}/retry", headers={"Idempotency-Key": "r"}).json()["id"]
        for _ in range(3)
    }
    assert len(made) == 1


def test_of_many_at_once_one_makes_the_job_and_the_others_repeat_it_or_are_told_to_wait(
    ada, database
):
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: send(ada), range(32)))
    codes = {answer.status_code for answer in answers}
    assert 202 in codes
    assert codes <= {202, 409}
    assert len({a.json()["id"] for a in answers if a.status_code == 202}) == 1
    assert all(a.json()["code"] == "request_in_flight" for a in answers if a.status_code == 409)
    with database.transaction() as session:
        assert session.scalars(select(func.count()).select_from(GenerationJob)).one() == 1
