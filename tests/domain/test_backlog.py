"""The backlog tells of every queue what waits in it and what is worked on."""

from genonaut.domain import backlog, run_attempts, runs
from genonaut.domain.runs import NewRun, Overlap, Trigger


def asked(queue: str) -> NewRun:
    return NewRun("a.task", queue, Trigger.API, overlap=Overlap.ALLOW)


def test_unfinished_rows_are_counted_by_queue(session, make_job, make_claim):
    make_job()
    make_claim()
    make_job(status="cancelled")
    kept = [runs.trigger(session, asked("maintenance")).run for _ in range(3)]
    runs.trigger(session, asked("elsewhere"))
    assert run_attempts.claim(session, kept[0].id, worker="w", lease_s=30)
    runs.request_cancel(session, kept[1].id)
    assert backlog.per_queue(
        session, ("generation", "maintenance", "idle"), of_jobs="generation"
    ) == {
        "generation": {"pending": 1, "running": 1},
        "maintenance": {"pending": 1, "running": 1},
        "idle": {"pending": 0, "running": 0},
        "elsewhere": {"pending": 1, "running": 0},
    }
