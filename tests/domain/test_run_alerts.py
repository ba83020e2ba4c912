"""Operators hear of runs that have failed, and of none that is tried again."""

from genonaut.domain import notifications, run_attempts


def test_operators_hear_of_a_failed_run_and_of_no_retry(database, make_user, make_run_claim):
    olga = make_user(role="operator")
    held = make_run_claim()
    with database.transaction() as session:
        assert run_attempts.try_again(session, held, code="x", message="later", first_s=-100)
    again = make_run_claim(held.run)
    with database.transaction() as session:
        run_attempts.fail(session, again, code="x", message="it broke")
        (told,) = notifications.list_for(session, olga.id)
    assert (told.kind, told.title) == ("run_failed", "toys.count has failed")
    assert told.data == {"run_id": held.run.id, "task": "toys.count", "code": "x"}
