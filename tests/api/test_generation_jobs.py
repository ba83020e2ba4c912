"""Jobs over HTTP: making, listing, reading, cancelling, repeating."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import func, select

from genonaut.db.models import GenerationJob
from genonaut.domain import accounts, attempts, users
from genonaut.domain.users import Role
from tests.api.conftest import Account
from tests.support.simulator import running_simulator, text_to_image

JOBS = "/api/v1/generation-jobs"


def count_jobs(database) -> int:
    with database.transaction() as session:
        return session.scalars(select(func.count()).select_from(GenerationJob)).one()


def test_a_job_is_stored_answered_with_its_place_and_handed_to_the_queue(api, ada, database):
    api.dispatched.events.clear()
    wanted = {
        "prompt": "a cat", "negative_prompt": "dog", "width": 64, "height": 128, "batch_size": 2,
        "lora_models": [{"name": "ink.safetensors", "strength_model": 0.5}],
        "sampler_params": {"seed": 2**53 - 1, "steps": 5, "sampler_name": "euler"},
        "is_private": True,
    }  # fmt: skip
    answer = ada.client.post(JOBS, json=wanted)
    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["location"] == f"{JOBS}/{job['id']}"
    assert int(answer.headers["ratelimit-remaining"]) > 0
    assert (job["status"], job["is_private"], job["sampler_params"]["seed"]) == (
        "pending", True, 2**53 - 1,
    )  # fmt: skip
    assert [event.id for event in api.dispatched.events] == [job["id"]]
    read = ada.client.get(answer.headers["location"])
    assert read.json() == {**job, "queue_position": 1}


def test_a_job_without_a_seed_gets_one_that_is_told(ada):
    first, second = (ada.client.post(JOBS, json={"prompt": "x"}).json() for _ in range(2))
    assert first["sampler_params"]["seed"] != second["sampler_params"]["seed"]


def test_pages_follow_each_other_and_filters_narrow(ada, bob, make_job, database):
    made = [ada.client.post(JOBS, json={"prompt": f"p{n}"}).json()["id"] for n in range(5)]
    bob.client.post(JOBS, json={"prompt": "other"})
    ada.client.post(f"{JOBS}/{made[0]}/cancel")
    seen: list[int] = []
    url = f"{JOBS}?limit=2"
    while url:
        answer = ada.client.get(url)
        seen += [job["id"] for job in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url")
    assert seen == made[::-1]
    cancelled = ada.client.get(JOBS, params={"status": "cancelled"}).json()
    assert [job["id"] for job in cancelled["items"]] == [made[0]]
    both = ada.client.get(JOBS, params={"status": ["cancelled", "pending"], "limit": 1})
    assert "status=cancelled&status=pending" in both.headers["link"]
    places = {j["id"]: j["queue_position"] for j in ada.client.get(JOBS).json()["items"]}
    assert places == {made[0]: None, made[1]: 1, made[2]: 2, made[3]: 3, made[4]: 4}


@pytest.mark.parametrize(
    "query", ["cursor=x", "cursor=", "cursor=djE6LTE", "limit=0", "limit=101", "status=odd"]
)
def test_a_wrong_query_names_its_parameter(ada, query):
    answer = ada.client.get(f"{JOBS}?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.json()["detail"]


def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_is_told_to_stop(
    ada, make_claim, make_job, database
):
    waiting = ada.client.post(JOBS, json={"prompt": "x"}).json()["id"]
    answer = ada.client.post(f"{JOBS}/{waiting}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert ada.client.post(f"{JOBS}/{waiting}/cancel").status_code == 200
    running = ada.client.post(JOBS, json={"prompt": "y"}).json()["id"]
    with database.transaction() as session:
        job = session.get(GenerationJob, running)
    make_claim(job)
    answer = ada.client.post(f"{JOBS}/{running}/cancel")
    assert (answer.status_code, answer.json()["cancel_requested"]) == (202, True)
    events = [e["event"] for e in ada.client.get(f"{JOBS}/{running}/timeline").json()["items"]]
    assert events == ["created", "attempt_started", "cancel_requested"]


def test_the_cancel_of_a_job_that_waits_for_its_prompt_is_left_to_the_reconciler(
    ada, make_claim, make_job, database
):
    job = ada.client.post(JOBS, json={"prompt": "x"}).json()["id"]
    with database.transaction() as session:
        row = session.get(GenerationJob, job)
    held = make_claim(row)
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="http://gpu", prompt_id="p")
        attempts.release(session, held, reason="deploy")
    answer = ada.client.post(f"{JOBS}/{job}/cancel")
    told = {name: answer.json()[name] for name in ("status", "cancel_requested")}
    assert (answer.status_code, told) == (202, {"status": "pending", "cancel_requested": True})
    assert ada.client.post(f"{JOBS}/{job}/cancel").status_code == 202


def test_what_has_ended_is_not_cancelled_and_what_has_not_is_not_repeated(ada, make_job, database):
    job = ada.client.post(JOBS, json={"prompt": "x", "is_private": True}).json()["id"]
    refused = ada.client.post(f"{JOBS}/{job}/retry")
    assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    ada.client.post(f"{JOBS}/{job}/cancel")
    again = ada.client.post(f"{JOBS}/{job}/retry")
    assert again.status_code == 202
    assert (again.json()["retry_of"], again.json()["is_private"]) == (job, True)
    with database.transaction() as session:
        row = session.get(GenerationJob, again.json()["id"])
        row.status, row.error_code = "failed", "execution_failed"
    refused = ada.client.post(f"{JOBS}/{again.json()['id']}/cancel")
    assert (refused.status_code, refused.json()["code"]) == (409, "already_failed")


def test_another_users_job_does_not_exist(ada, bob):
    job = ada.client.post(JOBS, json={"prompt": "x"}).json()["id"]
    for method, path in (
        ("GET", ""), ("GET", "/timeline"), ("POST", "/cancel"), ("POST", "/retry"),
    ):  # fmt: skip
        for wrong in (job, 10**12):
            answer = bob.client.request(method, f"{JOBS}/{wrong}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert bob.client.get(JOBS).json()["items"] == []


def test_only_operators_run_workflows_beyond_the_limits(ada, make_account, database):
    operator = make_account("olga", Role.OPERATOR).client
    large = text_to_image(size=(4096, 64))
    linked = text_to_image()
    linked["5"]["inputs"]["width"] = ["9", 0]
    for graph in (large, text_to_image(steps=10_000), text_to_image(batch=64), linked):
        refused = ada.client.post(JOBS, json={"prompt": "x", "workflow": graph})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "#/workflow"
    assert operator.post(JOBS, json={"prompt": "x", "workflow": large}).status_code == 202
    assert count_jobs(database) == 1


@pytest.fixture(scope="module")
def limited(serve, api_settings):
    return serve(api_settings(jobs_per_minute=5, jobs_unfinished_max=3))


def test_limits_hold_for_a_burst_and_say_when_to_come_back(limited, make_account, database):
    who: Account = make_account("ada", at=limited)
    with ThreadPoolExecutor(10) as pool:
        answers = list(
            pool.map(lambda n: who.client.post(JOBS, json={"prompt": f"{n}"}), range(10))
        )
    assert sorted(a.status_code for a in answers) == [202] * 3 + [429] * 7
    late = next(a for a in answers if a.status_code == 429)
    assert int(late.headers["retry-after"]) > 0
    assert late.headers["ratelimit-remaining"] == "0"
    for job in who.client.get(JOBS).json()["items"]:
        who.client.post(f"{JOBS}/{job['id']}/cancel")
    codes = [who.client.post(JOBS, json={"prompt": "x"}).status_code for _ in range(3)]
    assert codes == [202, 202, 429]
    assert count_jobs(database) == 5


def test_only_operators_run_nodes_outside_the_list(ada, make_account, database):
    graph = text_to_image()
    assert ada.client.post(JOBS, json={"prompt": "x", "workflow": graph}).status_code == 202
    graph["20"] = {"class_type": "RunAnything", "inputs": {}}
    refused = ada.client.post(JOBS, json={"prompt": "x", "workflow": graph})
    assert (refused.status_code, refused.json()["code"]) == (422, "node_not_allowed")
    assert "RunAnything" in refused.json()["detail"]
    auditor = make_account("eve", Role.AUDITOR).client
    assert auditor.post(JOBS, json={"prompt": "x", "workflow": graph}).status_code == 422
    operator = make_account("olga", Role.OPERATOR).client
    assert operator.post(JOBS, json={"prompt": "x", "workflow": graph}).status_code == 202
    assert count_jobs(database) == 2


def test_a_retry_runs_no_nodes_that_are_not_allowed_any_more(make_account, database):
    olga = make_account("olga", Role.OPERATOR)
    graph = text_to_image()
    graph["20"] = {"class_type": "RunAnything", "inputs": {}}
    job = olga.client.post(JOBS, json={"prompt": "x", "workflow": graph}).json()["id"]
    assert olga.client.post(f"{JOBS}/{job}/cancel").status_code == 200
    with database.transaction() as session:
        accounts.change(session, users.find_user(session, "olga").id, {"role": Role.USER})
    refused = olga.client.post(f"{JOBS}/{job}/retry")
    assert (refused.status_code, refused.json()["code"]) == (422, "node_not_allowed")
    assert count_jobs(database) == 1


@pytest.fixture(scope="module")
def with_comfyui(serve, api_settings):
    with running_simulator() as simulator:
        yield serve(api_settings(comfyui_url=simulator.url))


def test_known_options_are_listed_filled_in_and_checked(with_comfyui, make_account, database):
    client: httpx.Client = make_account("ada", at=with_comfyui).client
    options = client.get("/api/v1/generation-options").json()
    assert options["known"]
    assert options["checkpoints"]
    made = client.post(JOBS, json={"prompt": "x", "sampler_params": {"sampler_name": "euler"}})
    assert made.json()["checkpoint_model"] == options["checkpoints"][0]
    for body, pointer in (
        ({"checkpoint_model": "gone.safetensors"}, "#/checkpoint_model"),
        ({"sampler_params": {"sampler_name": "odd"}}, "#/sampler_params/sampler_name"),
        ({"sampler_params": {"scheduler": "odd"}}, "#/sampler_params/scheduler"),
        ({"lora_models": [{"name": "gone"}]}, "#/lora_models/0/name"),
    ):
        refused = client.post(JOBS, json={"prompt": "x", **body})
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == pointer
        assert refused.json()["detail"].startswith(pointer.removeprefix("#/").replace("/", "."))
    assert count_jobs(database) == 1


def test_without_comfyui_jobs_are_taken_unchecked_and_at_once(ada):
    assert not ada.client.get("/api/v1/generation-options").json()["known"]
    answer = ada.client.post(JOBS, json={"prompt": "x", "checkpoint_model": "any.safetensors"})
    assert answer.status_code == 202
    assert answer.elapsed.total_seconds() < 2
