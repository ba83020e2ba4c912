"""Requests for pictures: taken, limited, listed, cancelled, repeated, told."""

import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from sqlalchemy import func, text

from genonaut.core.errors import ConflictError, NotFoundError, RateLimitedError
from genonaut.domain import attempts, generation, users
from genonaut.domain.generation import MAX_SEED, Limits, NewJob

LIMITS = Limits(per_minute=5, unfinished_max=3)


def test_a_new_job_is_pending_and_told_with_all_that_its_owner_may_see(database, make_user):
    heard = []
    database.sinks.append(heard.extend)
    request = NewJob(
        "a fox",
        lora_models=({"name": "l"},),
        sampler_params={"steps": 5},
        workflow={"1": {}},
        is_private=True,
    )
    user = make_user()
    with database.transaction() as session:
        job = generation.create(session, user.id, request, max_attempts=4)
    (event,) = heard
    assert event.row == generation.public(job) == json.loads(json.dumps(event.row))
    assert event.topics == (f"job:{job.id}", f"user:{user.id}")
    row = event.row
    assert (row["status"], row["attempt"], row["version"]) == ("pending", 0, 1)
    assert row["celery_task_id"]
    assert (row["has_workflow"], row["is_private"]) == (True, True)
    assert row["sampler_params"]["steps"] == 5
    assert 0 <= row["sampler_params"]["seed"] <= MAX_SEED
    assert row["progress"] == {"phase": "queued"}


def test_a_seed_that_was_chosen_is_kept_and_none_is_chosen_for_you():
    assert NewJob("x", sampler_params={"seed": 0}).params()["sampler_params"]["seed"] == 0
    given = {"seed": None}
    seeds = {NewJob("x", sampler_params=given).params()["sampler_params"]["seed"] for _ in "ab"}
    assert len(seeds) == 2
    assert given == {"seed": None}


def test_what_a_user_may_still_create_counts_down(session, make_user, make_job):
    user = make_user()
    assert generation.allowance(session, user.id, LIMITS).remaining == 4
    make_job(user)
    make_job()
    left = generation.allowance(session, user.id, LIMITS)
    assert (left.limit, left.remaining) == (5, 3)
    assert 1 <= left.reset_s <= 60


def test_too_many_unfinished_jobs_are_refused_until_one_ends(session, make_user, make_job):
    user = make_user()
    jobs = [make_job(user) for _ in range(3)]
    with pytest.raises(RateLimitedError, match="unfinished"):
        generation.allowance(session, user.id, LIMITS)
    generation.request_cancel(session, user.id, jobs[0].id)
    assert generation.allowance(session, user.id, LIMITS).remaining == 1


def test_too_many_a_minute_are_refused_until_the_oldest_is_a_minute_old(
    session, make_user, make_job
):
    user = make_user()
    for age_s in (50, 40, 30, 20, 10):
        created = func.now() - text(f"interval '{age_s} seconds'")
        make_job(user, status="cancelled", created_at=created)
    with pytest.raises(RateLimitedError) as caught:
        generation.allowance(session, user.id, LIMITS)
    assert 1 <= caught.value.retry_after_s <= 10
    session.execute(text("UPDATE generation_jobs SET created_at = created_at - interval '11 s'"))
    assert generation.allowance(session, user.id, LIMITS).remaining == 0


@pytest.mark.parametrize(
    "limits",
    [Limits(per_minute=7, unfinished_max=100), Limits(per_minute=100, unfinished_max=7)],
    ids=["a minute", "unfinished"],
)
@pytest.mark.parametrize("at_once", [False, True], ids=["in steps", "at once"])
def test_a_burst_meets_the_limit_exactly(committed_database, make_user, limits, at_once):
    user, barrier = make_user(), Barrier(8)

    def create(session) -> None:
        if at_once:
            users.take_turn(session, user.id)
            generation.create_within(session, user.id, NewJob("x"), limits)
        else:
            generation.allowance(session, user.id, limits)
            generation.create(session, user.id, NewJob("x"), max_attempts=4)

    def burst(_: int) -> int:
        barrier.wait()
        made = 0
        for _ in range(3):
            try:
                with committed_database.transaction() as session:
                    create(session)
            except RateLimitedError:
                continue
            made += 1
        return made

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(burst, range(8))) == 7


def test_a_job_refused_by_a_limit_is_neither_stored_nor_told(database, make_user, make_job):
    user, heard = make_user(), []
    made = {make_job(user).id for _ in range(3)}
    database.sinks.append(heard.extend)
    with database.transaction() as session, pytest.raises(RateLimitedError, match="unfinished"):
        generation.create_within(session, user.id, NewJob("x"), LIMITS)
    with database.transaction() as session:
        assert {job.id for job in generation.list_for(session, user.id)} == made
    assert heard == []


def test_another_users_job_is_not_there(session, make_job, make_user):
    job, other = make_job(), make_user()
    for act in (generation.owned, generation.request_cancel):
        with pytest.raises(NotFoundError):
            act(session, other.id, job.id)
        with pytest.raises(NotFoundError):
            act(session, job.user_id, 10**9)
    with pytest.raises(NotFoundError):
        generation.retry(session, other.id, job.id, max_attempts=4)


def test_the_list_goes_back_in_pages_by_state(session, make_user, make_job):
    user = make_user()
    make_job()
    ids = [make_job(user, status=s).id for s in ("pending", "cancelled", "pending", "cancelled")]

    def listed(**how):
        return [job.id for job in generation.list_for(session, user.id, **how)]

    assert listed() == ids[::-1]
    assert listed(limit=2) == [ids[3], ids[2]]
    assert listed(before=ids[2]) == [ids[1], ids[0]]
    assert listed(statuses=["pending"]) == [ids[2], ids[0]]


def test_the_place_in_the_queue_counts_everyones_pending_jobs(session, make_job):
    jobs = [make_job(), make_job(status="cancelled"), make_job(), make_job()]
    assert generation.queue_positions(session, jobs) == {
        jobs[0].id: 1,
        jobs[2].id: 2,
        jobs[3].id: 3,
    }


def test_a_pending_job_is_cancelled_at_once_and_asking_again_is_harmless(
    database, make_job, reload
):
    job = make_job()
    for _ in range(2):
        with database.transaction() as session:
            asked = generation.request_cancel(session, job.user_id, job.id)
        assert asked.status == "cancelled"
    assert reload(job).progress == {"phase": "cancelled"}


def test_a_running_job_is_asked_to_stop_once(database, make_claim, reload):
    held = make_claim()
    with database.transaction() as session:
        generation.request_cancel(session, held.job.user_id, held.job_id)
    first = reload(held)
    assert (first.status, generation.public(first)["cancel_requested"]) == ("running", True)
    with database.transaction() as session:
        again = generation.request_cancel(session, held.job.user_id, held.job_id)
    assert again.version == first.version


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_what_has_ended_cannot_be_cancelled(session, make_job, status):
    job = make_job(status=status, error_code="x")
    with pytest.raises(ConflictError) as caught:
        generation.request_cancel(session, job.user_id, job.id)
    assert caught.value.code == f"already_{status}"


def test_a_retry_is_a_new_job_with_the_same_wishes(session, make_job):
    wish = NewJob("a fox", negative_prompt="blurry", width=640, sampler_params={"seed": 3})
    old = make_job(request=wish, status="failed", error_code="x", attempt=4)
    new = generation.retry(session, old.user_id, old.id, max_attempts=2)
    assert (new.retry_of, new.status, new.attempt, new.max_attempts) == (old.id, "pending", 0, 2)
    assert (new.prompt, new.negative_prompt, new.width) == ("a fox", "blurry", 640)
    assert new.params == old.params
    assert new.celery_task_id != old.celery_task_id
    assert new.error_code is None


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "pending"},
        {"status": "completed"},
        {"status": "failed", "error_code": "unsupported_job_type", "job_type": "text"},
    ],
)
def test_what_has_not_failed_or_is_not_run_any_more_is_not_retried(session, make_job, columns):
    job = make_job(**columns)
    with pytest.raises(ConflictError):
        generation.retry(session, job.user_id, job.id, max_attempts=4)


def test_a_webhook_is_noted_on_a_running_job_only(database, make_job, make_claim, reload):
    waiting, held = make_job(), make_claim()
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="b", prompt_id="p")
        for job in (waiting, held.job):
            generation.note_webhook(session, job)
        assert generation.find_by_prompt(session, "p").id == held.job_id
        assert generation.find_by_prompt(session, "q") is None
    assert reload(held).webhook_received_at is not None
    assert reload(waiting).version == waiting.version
    assert reload(held).status == "running"
