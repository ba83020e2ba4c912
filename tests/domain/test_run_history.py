"""The last run that did its work is found, whatever came after it."""

from genonaut.domain import run_attempts, run_history


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
