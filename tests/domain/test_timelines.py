"""A job's story is told whole and in order."""

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
