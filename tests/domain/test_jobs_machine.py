"""Whatever workers, users and the reaper do in whatever order, a job keeps its promises."""

from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from sqlalchemy import func, select, text

from genonaut.core.errors import ConflictError, LeaseLostError
from genonaut.db.models import ContentItem, GenerationJob, JobAttempt, User, UserNotification
from genonaut.domain import attempts, generation, reaping, repairs
from genonaut.domain.attempts import Claim, StoredImage
from genonaut.domain.generation import NewJob
from tests.support.database import rolled_back
from tests.support.reaping import LIMITS

IMAGE = StoredImage("ab/cd.png", "ab" * 32, "image/png", 64, 64, 10, {})
FINAL = {"completed", "failed", "cancelled"}
MAX_JOBS = 2
indexes = st.integers(0, 50)
holder_acts = st.sampled_from(
    [
        "renew",
        "begin_prompt",
        "note_execution_start",
        "report",
        "complete",
        "fail",
        "try_again",
        "wait",
        "release",
        "release_without_prompt",
        "cancelled",
    ]
)


class Jobs(RuleBasedStateMachine):
    """One or two jobs, any number of claims; those that lost their lease go on writing."""

    engine: Any = None

    @initialize(max_attempts=st.integers(1, 3))
    def open(self, max_attempts: int) -> None:
        self.opened = rolled_back(self.engine)
        self.database = self.opened.__enter__()
        self.claims: list[Claim] = []
        self.ids: list[int] = []
        self.rows: dict[int, dict[str, Any]] = {}
        self.cancel_accepted: set[int] = set()
        self.told: dict[int, int] = {}
        self.prompts = 0
        self.database.sinks.append(self.hear)
        with self.database.transaction() as session:
            user = User(username="ada")
            session.add(user)
        self.user_id = user.id
        self.create(max_attempts)

    def teardown(self) -> None:
        if hasattr(self, "opened"):
            self.opened.__exit__(None, None, None)

    def hear(self, events: list[Any]) -> None:
        for event in events:
            if event.kind == "job":
                assert event.version > self.told.get(event.id, 0)
                assert event.final == (event.row["status"] in FINAL)
                self.told[event.id] = event.version

    def row(self, job_id: int) -> dict[str, Any]:
        with self.database.transaction() as session:
            return values(session.get_one(GenerationJob, job_id))

    def pick(self, index: int) -> int:
        return self.ids[index % len(self.ids)]

    # --- users -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.ids) < MAX_JOBS)
    @rule(max_attempts=st.integers(1, 3))
    def create(self, max_attempts: int) -> None:
        with self.database.transaction() as session:
            job = generation.create(
                session, self.user_id, NewJob("a fox"), max_attempts=max_attempts
            )
        self.ids.append(job.id)

    @rule(index=indexes)
    def request_cancel(self, index: int) -> None:
        job_id = self.pick(index)
        before = self.row(job_id)
        try:
            with self.database.transaction() as session:
                generation.request_cancel(session, self.user_id, job_id)
        except ConflictError:
            assert before["status"] in {"completed", "failed"}
        else:
            self.cancel_accepted.add(job_id)

    @precondition(lambda self: len(self.ids) < MAX_JOBS)
    @rule(index=indexes)
    def retry(self, index: int) -> None:
        job_id = self.pick(index)
        status = self.row(job_id)["status"]
        try:
            with self.database.transaction() as session:
                job = generation.retry(session, self.user_id, job_id, max_attempts=2)
        except ConflictError:
            assert status not in {"failed", "cancelled"}
        else:
            assert job.retry_of == job_id
            assert status in {"failed", "cancelled"}
            self.ids.append(job.id)

    # --- time ------------------------------------------------------------------------------

    @rule(index=indexes, what=st.sampled_from(["due", "lease", "lease", "long wait"]))
    def pass_time(self, index: int, what: str) -> None:
        self.time_passes(index, what)

    def time_passes(self, index: int, what: str) -> None:
        change = {
            "due": "available_at = now() WHERE status = 'pending'",
            "lease": "lease_expires_at = now() - interval '1 hour' WHERE status = 'running'",
            "long wait": (
                "waiting_since = waiting_since - interval '9 hours' WHERE completed_at IS NULL"
            ),
        }[what]
        with self.database.transaction() as session:
            session.execute(
                text(f"UPDATE generation_jobs SET {change} AND id = :id"), {"id": self.pick(index)}
            )

    # --- the platform ----------------------------------------------------------------------

    @precondition(lambda self: any(row["status"] == "pending" for row in self.rows.values()))
    @rule(index=indexes, worker=st.sampled_from(["w1", "w2"]), due=st.booleans())
    def claim(self, index: int, worker: str, due: bool) -> None:
        job_id = self.pick(index)
        if due:
            self.time_passes(index, "due")
        before = self.row(job_id)
        with self.database.transaction() as session:
            held = attempts.claim(session, job_id, worker=worker, lease_s=30)
            now = session.scalars(select(func.now())).one()
        may = (
            before["status"] == "pending"
            and before["available_at"] <= now
            and before["cancel_requested_at"] is None
        )
        assert (held is not None) == may
        if held is not None:
            counted = 0 if before["collect_only"] else 1
            assert held.job.attempt == before["attempt"] + counted
            self.claims.append(held)

    @rule(
        index=indexes, what=st.sampled_from(["reap", "reap", "fence", "close cancels", "webhook"])
    )
    def reconciler_passes(self, index: int, what: str) -> None:
        with self.database.transaction() as session:
            match what:
                case "reap":
                    repairs.sweep(session, reaping.WORKER_LOST, LIMITS)
                case "fence":  # whatever is running has been at work for too long
                    overtime = replace(LIMITS, job_limit_s=-1, stuck_grace_s=0)
                    repairs.sweep(session, reaping.OVERTIME, overtime)
                case "close cancels":
                    repairs.sweep(session, reaping.CANCEL_LEFT, LIMITS)
                case "webhook":
                    job = session.get_one(GenerationJob, self.pick(index))
                    generation.note_webhook(session, job)

    # --- holders, of today and of yesterday ------------------------------------------------

    def holders(self) -> list[Claim]:
        tokens = {row["lease_token"] for row in self.rows.values()}
        return [held for held in self.claims if held.token in tokens]

    @precondition(lambda self: self.holders())
    @rule(index=indexes, what=st.lists(holder_acts, min_size=1, max_size=4))
    def a_holder_acts(self, index: int, what: list[str]) -> None:
        current = self.holders()
        held = current[index % len(current)]
        for one in what:
            self.act(held, one)
            self.promises_hold()

    @precondition(lambda self: self.claims)
    @rule(index=indexes, what=holder_acts)
    def anyone_who_ever_held_acts(self, index: int, what: str) -> None:
        self.act(self.claims[index % len(self.claims)], what)

    def act(self, held: Claim, what: str) -> None:
        before = self.row(held.job_id)
        holds = before["lease_token"] == held.token
        told = self.told.copy()
        try:
            with self.database.transaction() as session:
                self.write(session, held, what)
        except LeaseLostError:
            assert not holds
        except ConflictError:
            assert what == "complete"
            assert before["cancel_requested_at"] is not None
        else:
            assert holds
            return
        assert self.row(held.job_id) == before
        assert self.told == told

    def write(self, session: Any, held: Claim, what: str) -> None:
        match what:
            case "renew":
                attempts.renew(session, held, lease_s=30)
            case "begin_prompt":
                self.prompts += 1
                attempts.begin_prompt(session, held, backend="b", prompt_id=f"p{self.prompts}")
            case "note_execution_start":
                attempts.note_execution_start(session, held)
            case "report":
                attempts.report(session, held, {"phase": "drawing"})
            case "complete":
                attempts.complete(session, held, [IMAGE], details={"job": held.job_id})
            case "fail":
                attempts.fail(session, held, code="bad", message="bad")
            case "try_again":
                attempts.try_again(session, held, code="flaky", message="no", backoff_s=5)
            case "wait":
                attempts.wait(
                    session,
                    held,
                    code="away",
                    reason="away",
                    phase="waiting_for_backend",
                    poll_s=5,
                    deadline_s=6 * 3600,
                )
            case "release":
                attempts.release(session, held, reason="deploy")
            case "release_without_prompt":
                attempts.release(session, held, reason="deploy", keep_prompt=False)
            case "cancelled":
                attempts.cancelled(session, held)

    # --- promises --------------------------------------------------------------------------

    @invariant()
    def promises_hold(self) -> None:
        with self.database.transaction() as session:
            jobs = session.scalars(select(GenerationJob)).all()
            tries = session.scalars(select(JobAttempt)).all()
            notices = session.execute(select(UserNotification.dedupe_key, UserNotification.kind))
            told = [tuple(row) for row in notices]
            items = session.scalars(select(ContentItem)).all()
        assert {job.id for job in jobs} == set(self.ids)
        for job in jobs:
            new, old = values(job), self.rows.get(job.id)
            self.rows[job.id] = new
            assert (job.status == "running") == (job.lease_token is not None)
            assert job.attempt <= job.max_attempts
            assert self.told[job.id] == job.version
            assert (job.status in FINAL) == (job.completed_at is not None)
            assert job.id not in self.cancel_accepted or job.status not in {"completed", "failed"}
            if old is not None:
                compare(old, new)
            mine = [one for one in tries if one.job_id == job.id]
            assert sum(one.ended_at is None for one in mine) == (job.status == "running")
            heard = [kind for key, kind in told if key == f"job:{job.id}"]
            assert heard == ([f"job_{job.status}"] if job.status in FINAL else [])
            made = [item.id for item in items if item.item_metadata["job"] == job.id]
            assert made == ([job.content_id] if job.status == "completed" else [])
            # Poison ends: a counted claim may excuse one other, and one claim may only collect.
            spent = [a for a in mine if a.outcome in {"retried", "worker_lost", "timed_out"}]
            assert len(spent) <= 2 * job.max_attempts + 1


def values(job: GenerationJob) -> dict[str, Any]:
    return {column.key: getattr(job, column.key) for column in GenerationJob.__table__.c}


def compare(old: dict[str, Any], new: dict[str, Any]) -> None:
    if old["status"] in FINAL:
        assert new == old
    moved_by_time = {"lease_expires_at", "available_at", "waiting_since"}
    changed = {key for key in new if new[key] != old[key]} - moved_by_time
    assert not changed or new["version"] > old["version"]


def test_jobs_keep_their_promises(engine):
    class OnThisServer(Jobs):
        pass

    OnThisServer.engine = engine
    run_machine(
        OnThisServer,
        # A story of thirty steps is read faster than it is made shorter.
        settings=settings(
            max_examples=30,
            stateful_step_count=30,
            deadline=None,
            phases=(Phase.reuse, Phase.generate),
        ),
    )
