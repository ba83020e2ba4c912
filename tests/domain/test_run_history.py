"""The last run that did its work is found, whatever came after it."""

from datetime import UTC, datetime

from genonaut.domain import run_attempts, run_history
from genonaut.domain.runs import Overlap, Trigger


def test_the_last_run_that_completed_is_found(database, make_run, make_run_claim):
    def end(how, **fields):
        held = make_run_claim(make_run(**fields))
        with database.transaction() as session:
            how(session, held)
        return held.run.id

    def complete(session, held):
        run_attempts.complete(session, held, {"n": held.run.id})

    def fail(session, held):
        run_attempts.fail(session, held, code="x", message="x")

    def last(before=10**9):
        with database.transaction() as session:
            found = run_history.last_completed(session, "toys.count", before=before)
            return found and (found.id, found.result)

    assert last() is None
    first, second = end(complete), end(complete)
    end(fail), end(complete, dry_run=True), end(complete, task="toys.other"), make_run()
    assert last() == (second, {"n": second})
    assert last(before=second) == (first, {"n": first})


def test_the_last_outcomes_of_schedules_are_found_newest_first(database, make_run, make_run_claim):
    made = {}
    for name, count in (("a", 7), ("b", 1)):
        made[name] = [
            make_run(
                trigger=Trigger.SCHEDULE,
                schedule=name,
                due_at=datetime(2026, 1, day, tzinfo=UTC),
                overlap=Overlap.ALLOW,
            )
            for day in range(1, count + 1)
        ]
    held = make_run_claim(made["b"][0])
    with database.transaction() as session:
        run_attempts.fail(session, held, code="x", message="x")
        found = run_history.outcomes(session, ["a", "b", "c"], each=5)
        assert [one.id for one in found["a"]] == [run.id for run in made["a"][:1:-1]]
        assert [(one.id, one.status) for one in found["b"]] == [(held.run.id, "failed")]
        assert "c" not in found
        assert run_history.outcomes(session, []) == {}
