"""What the holder of a claim may write, and how each ending leaves the row and its attempts."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text

from genonaut.core.errors import ConflictError, LeaseLostError
from genonaut.db.models import (
    AbandonedPrompt,
    ContentImage,
    ContentItem,
    GenerationJob,
    JobAttempt,
    UserNotification,
)
from genonaut.domain import attempts, generation, reaping, repairs
from genonaut.domain.attempts import StoredImage
from genonaut.domain.generation import NewJob
from tests.support.reaping import LIMITS, sweep

IMAGE = StoredImage("ab/cd.png", "ab" * 32, "image/png", 64, 48, 10, {"256": {"key": "t"}})
WAIT = {
    "code": "backend_unavailable",
    "reason": "refused",
    "phase": "waiting_for_backend",
    "poll_s": 5,
    "deadline_s": 3600,
}
ENDINGS = {
    "renew": lambda s, held: attempts.renew(s, held, lease_s=30),
    "begin_prompt": lambda s, held: attempts.begin_prompt(s, held, backend="b", prompt_id="p"),
    "note_execution_start": attempts.note_execution_start,
    "report": lambda s, held: attempts.report(s, held, {"phase": "drawing"}),
    "complete": lambda s, held: attempts.complete(s, held, [IMAGE], details={}),
    "fail": lambda s, held: attempts.fail(s, held, code="bad", message="bad"),
    "try_again": lambda s, held: attempts.try_again(s, held, code="x", message="x", backoff_s=5),
    "wait": lambda s, held: attempts.wait(s, held, **WAIT),
    "release": lambda s, held: attempts.release(s, held, reason="deploy"),
    "cancelled": attempts.cancelled,
}


@pytest.fixture
def tries(database):
    def read(held) -> list[JobAttempt]:
        with database.transaction() as session:
            query = select(JobAttempt).where(JobAttempt.job_id == held.job_id)
            return list(session.scalars(query.order_by(JobAttempt.id)))

    return read


@pytest.fixture
def act(database):
    """Write as a holder, in a transaction of its own."""

    def write(what, held, *args, **values):
        with database.transaction() as session:
            return what(session, held, *args, **values)

    return write


def test_a_claim_counts_sets_a_lease_and_opens_an_attempt(make_claim, reload, tries, database):
    held = make_claim(worker="w1", lease_s=30)
    job = reload(held)
    assert (job.status, job.attempt, job.worker) == ("running", 1, "w1")
    assert job.lease_token == held.token
    with database.transaction() as session:
        left = session.scalars(select(GenerationJob.lease_expires_at - func.now())).one()
    assert left.total_seconds() == pytest.approx(30, abs=1)
    (attempt,) = tries(held)
    assert (attempt.number, attempt.worker, attempt.outcome) == (1, "w1", None)


@pytest.mark.parametrize(
    "columns",
    [
        {"available_at": func.now() + text("interval '1 minute'")},
        {"cancel_requested_at": func.now()},
        {"status": "cancelled"},
    ],
    ids=["not due", "cancel requested", "ended"],
)
def test_what_is_not_there_to_be_taken_is_not_claimed(database, make_job, columns):
    job = make_job(**columns)
    with database.transaction() as session:
        assert attempts.claim(session, job.id, worker="w", lease_s=30) is None
        assert attempts.claim(session, 10**9, worker="w", lease_s=30) is None
        assert session.scalars(select(func.count()).select_from(JobAttempt)).one() == 0


@pytest.mark.parametrize("what", ENDINGS)
def test_whoever_lost_the_lease_changes_nothing(database, make_claim, reload, act, tries, what):
    stale = make_claim()
    act(attempts.release, stale, reason="deploy")
    current = make_claim(stale.job, worker="w2")
    before, events = reload(stale), []
    database.sinks.append(events.extend)
    with pytest.raises(LeaseLostError):
        act(ENDINGS[what], stale)
    after = reload(stale)
    assert (after.version, after.status, after.lease_token) == (
        before.version,
        "running",
        current.token,
    )
    assert [a.outcome for a in tries(stale)] == ["released", None]
    assert events == []
    with database.transaction() as session:
        assert session.scalars(select(func.count()).select_from(ContentItem)).one() == 0


@pytest.mark.parametrize("what", ENDINGS)
def test_a_deleted_job_is_a_lost_lease_or_not_there(database, make_claim, act, what):
    held = make_claim()
    with database.transaction() as session:
        session.execute(text("DELETE FROM generation_jobs"))
    with pytest.raises(Exception, match=r"lost|there is no"):
        act(ENDINGS[what], held)


def test_renewing_extends_the_lease_without_a_version_or_an_event(
    database, make_claim, reload, act
):
    held = make_claim(lease_s=1)
    events = []
    database.sinks.append(events.extend)
    before = reload(held)
    act(attempts.renew, held, lease_s=600)
    after = reload(held)
    assert after.lease_expires_at > before.lease_expires_at
    assert (after.version, events) == (before.version, [])


def test_the_prompt_is_stored_with_the_attempt_and_forgets_the_one_before(
    make_claim, make_job, reload, act, tries
):
    held = make_claim(make_job(waiting_since=func.now(), execution_started_at=func.now()))
    act(attempts.begin_prompt, held, backend="http://a", prompt_id="p1")
    job, (attempt,) = reload(held), tries(held)
    assert (job.backend, job.comfyui_prompt_id) == ("http://a", "p1")
    assert job.execution_started_at is None
    assert job.waiting_since is not None  # a server that takes no prompt is away still
    assert (attempt.backend, attempt.prompt_id) == ("http://a", "p1")


def test_the_start_of_execution_is_noted_once(committed_database, make_claim, reload, act):
    held = make_claim()
    act(attempts.note_execution_start, held)
    first = reload(held).execution_started_at
    act(attempts.note_execution_start, held)
    assert reload(held).execution_started_at == first


def test_completing_writes_item_images_state_and_notification(
    database, make_job, make_claim, reload, act, tries
):
    prompt = "  a\nfox " + "very " * 40
    held = make_claim(make_job(request=NewJob(prompt, is_private=True, batch_size=2)))
    ids = act(attempts.complete, held, [IMAGE, replace(IMAGE, storage_key="x")], details={"a": 1})
    job = reload(held)
    assert (job.status, job.lease_token) == ("completed", None)
    assert job.progress == {"phase": "completed", "percent": 100}
    with database.transaction() as session:
        item = session.get_one(ContentItem, job.content_id)
        images = session.scalars(select(ContentImage).order_by(ContentImage.position)).all()
        notice = session.scalars(select(UserNotification)).one()
    assert item.is_private
    assert item.item_metadata == {"a": 1}
    assert item.title.startswith("a fox very")
    assert len(item.title) <= 80
    assert item.title.endswith("…")
    assert [image.id for image in images] == ids
    assert [image.storage_key for image in images] == ["ab/cd.png", "x"]
    assert notice.title == "Your pictures are ready"
    assert notice.data == {"job_id": job.id, "content_id": item.id}
    assert [a.outcome for a in tries(held)] == ["completed"]


@pytest.mark.parametrize("what", ["fail", "complete"])
def test_after_a_cancel_is_accepted_the_job_only_ends_cancelled(
    database, make_claim, reload, act, tries, what
):
    held = make_claim()
    with database.transaction() as session:
        generation.request_cancel(session, held.job.user_id, held.job_id)
    if what == "complete":
        with pytest.raises(ConflictError):
            act(ENDINGS[what], held)
        act(attempts.cancelled, held)
    else:
        act(ENDINGS[what], held)
    assert reload(held).status == "cancelled"
    assert [a.outcome for a in tries(held)] == ["cancelled"]
    with database.transaction() as session:
        assert session.scalars(select(UserNotification.kind)).all() == ["job_cancelled"]


def test_retries_wait_longer_and_longer_and_end(database, make_job, make_claim, reload, act):
    job = make_job(max_attempts=3)
    delays = []
    for last in (False, False, True):
        held = make_claim(job)
        again = act(attempts.try_again, held, code="flaky", message="no luck", backoff_s=5)
        assert again is not last
        with database.transaction() as session:
            row = session.get_one(GenerationJob, job.id)
            delays.append((row.available_at - row.updated_at).total_seconds())
            session.execute(text("UPDATE generation_jobs SET available_at = now()"))
    assert 4 <= delays[0] <= 6
    assert 8 <= delays[1] <= 12
    ended = reload(job)
    assert (ended.status, ended.error_code, ended.attempt) == ("failed", "flaky", 3)


def test_the_delay_of_a_retry_has_a_limit(make_job, make_claim, reload, act):
    held = make_claim(make_job(max_attempts=20, attempt=18))
    act(attempts.try_again, held, code="flaky", message="", backoff_s=5)
    job = reload(held)
    assert 240 <= (job.available_at - job.updated_at).total_seconds() <= 360


def test_a_retry_starts_from_nothing(make_job, make_claim, reload, act):
    held = make_claim()
    act(attempts.begin_prompt, held, backend="b", prompt_id="p")
    act(attempts.note_execution_start, held)
    act(attempts.try_again, held, code="flaky", message="no", backoff_s=5)
    job = reload(held)
    assert (job.backend, job.comfyui_prompt_id, job.execution_started_at) == (None, None, None)
    assert (job.dispatched_at, job.dispatch_epoch) == (None, None)


def test_a_prompt_of_a_lost_attempt_fails_on_that_attempts_account(
    database, make_job, make_claim, reload, act
):
    job = make_job(max_attempts=2)
    first = make_claim(job)
    act(attempts.begin_prompt, first, backend="b", prompt_id="p")
    with database.transaction() as session:
        session.execute(
            text("UPDATE generation_jobs SET lease_expires_at = now() - '1h'::interval")
        )
        swept = repairs.sweep(session, reaping.WORKER_LOST, LIMITS)
        assert [(lost.id, lost.becomes) for lost in swept.done] == [(job.id, "pending")]
    second = make_claim(job, worker="w2")
    assert act(attempts.try_again, second, code="x", message="x", backoff_s=5)
    assert reload(job).attempt == 1


def test_an_outage_burns_one_attempt_at_most(
    committed_database, make_job, make_claim, reload, act, tries
):
    job = make_job(max_attempts=4)
    held = make_claim(job)
    act(attempts.begin_prompt, held, backend="b", prompt_id="p")
    act(attempts.note_execution_start, held)
    act(attempts.wait, held, **WAIT)
    for _ in range(6):
        with committed_database.transaction() as session:
            session.execute(text("UPDATE generation_jobs SET available_at = now()"))
        held = make_claim(job)
        assert act(attempts.wait, held, **WAIT)
    row = reload(job)
    assert (row.status, row.attempt, row.collect_only) == ("pending", 1, False)
    assert (row.comfyui_prompt_id, row.backend) == ("p", "b")
    # One line for the attempt that counted, one for the whole outage.
    assert [(a.number, a.outcome) for a in tries(held)] == [(1, "waiting"), (2, "waiting")]


def test_a_graph_that_kills_the_server_ends(committed_database, make_job, make_claim, reload, act):
    job = make_job(max_attempts=2)
    for attempt in (1, 2):
        held = make_claim(job)
        act(attempts.begin_prompt, held, backend="b", prompt_id=f"p{attempt}")
        act(attempts.note_execution_start, held)
        assert act(attempts.wait, held, **WAIT)
        with committed_database.transaction() as session:
            session.execute(text("UPDATE generation_jobs SET available_at = now()"))
    assert reload(job).collect_only
    held = make_claim(job)
    assert held.job.attempt == 2
    assert not act(attempts.try_again, held, code="worker_lost", message="gone", backoff_s=5)
    assert reload(job).status == "failed"


def test_waiting_ends_at_its_deadline(make_job, make_claim, reload, act):
    held = make_claim(make_job(waiting_since=func.now() - text("interval '2 hours'")))
    assert not act(attempts.wait, held, **WAIT)
    job = reload(held)
    assert (job.status, job.error_code) == ("failed", "backend_unavailable")
    assert job.error_message == "waited 1.0 hours: refused"


def test_a_prompt_posted_before_its_deadline_is_removed_at_comfyui(
    make_job, make_claim, act, database
):
    since = func.now() - text("interval '2 hours'")
    held = make_claim(make_job(waiting_since=since, backend="b", comfyui_prompt_id="old"))
    act(attempts.begin_prompt, held, backend="c", prompt_id="new")
    assert not act(attempts.wait, held, **WAIT)
    with database.transaction() as session:
        left = {(row.backend, row.prompt_id) for row in session.scalars(select(AbandonedPrompt))}
    assert left == {("b", "old"), ("c", "new")}


@pytest.mark.parametrize(("waited_s", "delay_s"), [(0, 5), (60, 15), (3000, 30)])
def test_a_long_wait_looks_rarely_but_twice_a_minute(
    make_job, make_claim, reload, act, waited_s, delay_s
):
    since = func.now() - text(f"interval '{waited_s} seconds'")
    held = make_claim(make_job(waiting_since=since))
    assert act(attempts.wait, held, **WAIT)
    job = reload(held)
    assert (job.available_at - job.updated_at).total_seconds() == pytest.approx(delay_s, abs=0.5)
    assert job.attempt == 0


@pytest.mark.parametrize("keep", [True, False])
def test_a_released_job_is_due_at_once_and_its_attempt_does_not_count(
    make_claim, reload, act, tries, keep
):
    held = make_claim()
    act(attempts.begin_prompt, held, backend="b", prompt_id="p")
    act(attempts.release, held, reason="deploy", keep_prompt=keep)
    job = reload(held)
    assert (job.status, job.attempt) == ("pending", 0)
    assert job.comfyui_prompt_id == ("p" if keep else None)
    assert job.available_at <= job.updated_at
    assert [a.outcome for a in tries(held)] == ["released"]


@pytest.mark.parametrize("words", ["nul \0 byte", "half \ud83d a character", "x" * 5000])
@pytest.mark.parametrize("what", ["fail", "try_again", "wait", "release", "report"])
def test_words_from_outside_never_stop_an_ending(make_claim, reload, act, what, words):
    held = make_claim()
    match what:
        case "fail":
            act(attempts.fail, held, code="bad", message=words)
            assert len(reload(held).error_message) <= 2000
        case "try_again":
            act(attempts.try_again, held, code="bad", message=words, backoff_s=5)
        case "wait":
            act(attempts.wait, held, **{**WAIT, "reason": words})
        case "release":
            act(attempts.release, held, reason=words)
        case "report":
            act(attempts.report, held, {"phase": "drawing", "reason": words})


def test_a_process_may_act_in_place_of_its_worker(database, make_claim, make_job):
    held = make_claim(worker="w1")
    with database.transaction() as session:
        assert attempts.held_by(session, held.job_id, worker="w1", for_s=-1).token == held.token
        assert attempts.held_by(session, held.job_id, worker="w1", for_s=60) is None
        assert attempts.held_by(session, held.job_id, worker="w2", for_s=-1) is None
        assert attempts.held_by(session, make_job().id, worker="w1", for_s=-1) is None


def test_a_prompt_left_on_another_server_is_to_be_removed(
    database, make_claim, make_job, left_at_comfyui
):
    held = make_claim(make_job(backend="http://a", comfyui_prompt_id="p1"))
    with database.transaction() as session:
        attempts.begin_prompt(session, held, backend="http://b", prompt_id="p2")
    assert left_at_comfyui() == [("http://a", "p1")]


def test_a_stuck_server_loses_the_prompt_and_the_wait_goes_on(make_claim, reload, act):
    held = make_claim()
    act(attempts.begin_prompt, held, backend="http://a", prompt_id="p1")
    act(attempts.wait, held, **WAIT, keep_prompt=False)
    job = reload(held)
    assert (job.status, job.comfyui_prompt_id, job.attempt) == ("pending", None, 0)
    assert job.waiting_since is not None


def test_a_wait_that_ends_in_failure_leaves_no_prompt(make_claim, make_job, act, left_at_comfyui):
    since = func.now() - text("interval '9 hours'")
    job = make_job(waiting_since=since, backend="http://a", comfyui_prompt_id="p1")
    act(attempts.wait, make_claim(job), **WAIT)
    assert left_at_comfyui() == [("http://a", "p1")]


def race(*calls) -> list[object]:
    """Run calls at the same moment in threads; give results or the errors they raised."""
    barrier = Barrier(len(calls))

    def run(call):
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the outcome of the race
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def test_of_twenty_claims_at_once_one_wins(committed_database, make_job, tries, act):
    job = make_job()

    def claim(worker):
        return act(attempts.claim, job.id, worker=worker, lease_s=30)

    won = race(*(lambda n=n: claim(f"w{n}") for n in range(20)))
    (held,) = [one for one in won if one is not None]
    assert len(tries(held)) == 1


@pytest.mark.parametrize("_", range(8))
def test_of_completion_and_cancel_the_first_commit_wins(
    committed_database, make_claim, reload, act, _
):
    held = make_claim()
    done, stopped = race(
        lambda: act(ENDINGS["complete"], held),
        lambda: act(generation.request_cancel, held.job.user_id, held.job_id),
    )
    job = reload(held)
    if job.status == "completed":
        assert isinstance(stopped, ConflictError)
        assert stopped.code == "already_completed"
    else:
        assert isinstance(done, ConflictError)
        assert (job.status, job.cancel_requested_at is None) == ("running", False)


@pytest.mark.parametrize("_", range(8))
def test_of_completion_and_reaping_one_wins(committed_database, make_claim, reload, act, _):
    held = make_claim(lease_s=-60)
    done, reaped = race(
        lambda: act(ENDINGS["complete"], held),
        lambda: sweep(committed_database, reaping.WORKER_LOST),
    )
    if reload(held).status == "completed":
        assert not reaped
    else:
        assert isinstance(done, LeaseLostError)
        assert reaped == {"pending": [held.job_id]}


def test_two_reapers_share_the_work(committed_database, make_claim, act):
    ids = {make_claim(lease_s=-60).job_id for _ in range(10)}
    swept = race(*[lambda: sweep(committed_database, reaping.WORKER_LOST)] * 2)
    moved = [job_id for one in swept for job_id in one.get("pending", ())]
    assert sorted(moved) == sorted(ids)


def test_a_token_of_nobody_holds_nothing(make_claim, act):
    held = make_claim()
    with pytest.raises(LeaseLostError):
        act(attempts.report, replace(held, token=uuid4()), {})
