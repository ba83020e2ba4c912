"""A job's story is told whole and in order."""

import pytest
from sqlalchemy import text

from genonaut.domain import attempts, timelines


def test_the_timeline_tells_the_story_in_order(committed_database, make_job, make_claim, reload):
    job = make_job(max_attempts=2)
    held = make_claim(job, worker="w1")
    with committed_database.transaction() as session:
        attempts.try_again(session, held, code="flaky", message="no luck", backoff_s=1)
        session.execute(text("UPDATE generation_jobs SET available_at = now()"))
    held = make_claim(job, worker="w2")
    with committed_database.transaction() as session:
        attempts.fail(session, held, code="bad", message="no hope")
    with committed_database.transaction() as session:
        story = timelines.tell(session, reload(job))
    assert [entry["event"] for entry in story] == [
        "created",
        "attempt_started",
        "attempt_retried",
        "attempt_started",
        "attempt_failed",
        "failed",
    ]
    assert [entry["at"] for entry in story] == sorted(entry["at"] for entry in story)
    assert story[2]["message"].endswith("will be tried again: no luck")
    assert story[3]["message"] == "w2 began attempt 2 of 2."
    assert story[-1]["message"] == "The job failed: no hope"


@pytest.mark.parametrize("executed", [False, True])
def test_a_wait_says_whether_it_counts(committed_database, make_job, make_claim, reload, executed):
    job = make_job()
    held = make_claim(job, worker="w1")
    with committed_database.transaction() as session:
        attempts.begin_prompt(session, held, backend="b", prompt_id="p")
        if executed:
            attempts.note_execution_start(session, held)
        attempts.wait(
            session,
            held,
            code="backend_unavailable",
            reason="it is away",
            phase="waiting_for_backend",
            poll_s=0,
            deadline_s=60,
        )
        session.execute(text("UPDATE generation_jobs SET available_at = now()"))

    def told():
        with committed_database.transaction() as session:
            return [entry["message"] for entry in timelines.tell(session, reload(job))]

    expected = {
        False: "w1 could not go on, attempt 1 of 4 does not count: it is away",
        True: "w1 could not go on, though ComfyUI had begun; attempt 1 of 4 counts: it is away",
    }
    assert told()[-1] == expected[executed]
    make_claim(job, worker="w2")
    assert told()[2:] == [expected[executed], f"w2 began attempt {1 + executed} of 4."]
