"""A state is changed in one place, by whoever may, from where it may."""

from uuid import uuid4

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError

from genonaut.core.errors import ConflictError, LeaseLostError, NotFoundError
from genonaut.db.models import GenerationJob, NotificationDelivery
from genonaut.domain.deliveries import DELIVERIES
from genonaut.domain.generation import JOBS
from genonaut.domain.lifecycle import FINAL, MAY_BECOME, UNFINISHED, Status

LEASE = {"lease_token": uuid4(), "lease_expires_at": func.now()}


@pytest.fixture
def heard(database):
    events = []
    database.sinks.append(events.extend)
    return events


@pytest.fixture
def in_state(make_job):
    def make(status: Status) -> GenerationJob:
        extra = LEASE if status is Status.RUNNING else {}
        code = {"error_code": "x"} if status is Status.FAILED else {}
        return make_job(status=status, **extra, **code)

    return make


def test_the_table_covers_every_state_and_final_ones_have_no_moves():
    assert set(MAY_BECOME) == set(Status)
    assert set(Status) == FINAL | UNFINISHED
    assert {state for state, moves in MAY_BECOME.items() if not moves} == FINAL


MOVES = [
    (old, new)
    for old in Status
    for new in (Status.PENDING, Status.COMPLETED, Status.FAILED, Status.CANCELLED)
    if old is not Status.SKIPPED
]


@pytest.mark.parametrize(("old", "new"), MOVES)
def test_only_the_moves_of_the_table_are_made(database, in_state, reload, heard, old, new):
    job = in_state(old)
    heard.clear()
    when = (GenerationJob.id == job.id,)
    values = {"error_code": "x"} if new is Status.FAILED else {}

    def move() -> GenerationJob:
        with database.transaction() as session:
            return JOBS.move(session, job.id, new, when=when, **values)

    if new in MAY_BECOME[old]:
        row = move()
        assert (row.status, row.version) == (new, job.version + 1)
        assert row.lease_token is None
        assert (row.completed_at is not None) == (new in FINAL)
        assert [(e.version, e.final) for e in heard] == [(row.version, new in FINAL)]
    else:
        with pytest.raises(ConflictError):
            move()
        assert (reload(job).status, reload(job).version, heard) == (old, job.version, [])


def test_a_move_out_of_running_needs_the_token_or_a_reason(session, make_claim):
    held = make_claim()
    with pytest.raises(ConflictError):
        JOBS.move(session, held.job_id, Status.CANCELLED)
    with pytest.raises(LeaseLostError):
        JOBS.move(session, held.job_id, Status.CANCELLED, token=uuid4())
    assert JOBS.move(session, held.job_id, Status.CANCELLED, token=held.token)


def test_the_right_token_in_a_state_that_forbids_it_is_a_conflict(session, make_claim):
    held = make_claim()
    with pytest.raises(ConflictError) as caught:
        JOBS.move(
            session,
            held.job_id,
            Status.COMPLETED,
            token=held.token,
            when=(GenerationJob.cancel_requested_at.is_not(None),),
        )
    assert not isinstance(caught.value, LeaseLostError)


def test_what_is_not_there_is_not_found(session):
    with pytest.raises(NotFoundError):
        JOBS.move(session, 10**9, Status.CANCELLED)
    with pytest.raises(LeaseLostError):
        JOBS.renew(session, 10**9, token=uuid4(), lease_s=1)
    with pytest.raises(LeaseLostError):
        JOBS.write(session, 10**9, token=uuid4(), progress={})
    assert JOBS.note(session, 10**9, (), progress={}) is None


def test_the_first_claim_sets_the_start_and_the_next_keeps_it(
    committed_database, make_claim, make_job
):
    job = make_job()
    first = make_claim(job).job
    with committed_database.transaction() as session:
        JOBS.move(session, job.id, Status.PENDING, token=first.lease_token)
        session.execute(text("UPDATE job_attempts SET ended_at = now(), outcome = 'released'"))
    second = make_claim(job).job
    assert second.started_at == first.started_at
    assert second.lease_token != first.lease_token
    assert (first.attempt, second.attempt) == (1, 2)


def test_a_claim_that_may_only_collect_is_not_counted(make_job, make_claim):
    job = make_job(max_attempts=2, attempt=2, collect_only=True)
    assert make_claim(job).job.attempt == 2


def test_a_note_is_written_only_where_its_condition_holds(session, make_job, heard):
    job = make_job()
    assert JOBS.note(session, job.id, (GenerationJob.status == "running",), backend="b") is None
    noted = JOBS.note(session, job.id, (GenerationJob.status == "pending",), backend="b")
    assert (noted.backend, noted.version) == ("b", job.version + 1)


@pytest.mark.parametrize(
    "columns",
    [
        {"status": "running"},
        {"status": "pending", **LEASE},
        {"status": "failed"},
        {"status": "skipped"},
        {"attempt": 5},
        {"attempt": -1},
    ],
)
def test_the_database_refuses_rows_that_no_rule_makes(database, make_job, columns):
    with pytest.raises(IntegrityError):
        make_job(**columns)


def test_hot_writes_touch_no_index(database):
    """A column in an index or its condition would make every renewal rewrite the indexes."""
    with database.transaction() as session:
        indexes = session.scalars(
            select(text("indexdef"))
            .select_from(text("pg_indexes"))
            .where(text("tablename = 'generation_jobs'"))
        ).all()
    for hot in ("lease_expires_at", "progress", "version", "updated_at"):
        assert [one for one in indexes if hot in one] == []


def test_a_row_that_nobody_watches_is_completed_once_by_its_holder(session, make_delivery):
    row = make_delivery()
    token, ids = DELIVERIES.claim_many(
        session,
        select(NotificationDelivery.id).where(NotificationDelivery.id == row.id).with_for_update(),
        worker="w",
        lease_s=30,
    )
    assert ids == [row.id]
    with pytest.raises(LeaseLostError):
        DELIVERIES.complete(session, row.id, token=uuid4())
    DELIVERIES.complete(session, row.id, token=token)
    with pytest.raises(LeaseLostError):
        DELIVERIES.complete(session, row.id, token=token)
    session.expire_all()
    ended = session.get_one(NotificationDelivery, row.id)
    assert (ended.status, ended.lease_token, ended.version) == ("completed", None, row.version + 2)


def test_of_many_that_are_due_so_many_are_claimed_as_were_asked_for(session, make_delivery):
    rows = [make_delivery() for _ in range(5)]
    model = NotificationDelivery
    due = select(model.id).order_by(model.id).limit(2).with_for_update(skip_locked=True)
    _, ids = DELIVERIES.claim_many(session, due, worker="w", lease_s=30)
    assert sorted(ids) == [row.id for row in rows[:2]]
    DELIVERIES.claim_many(session, due, worker="w", lease_s=30)
