"""Finding nothing is cheap, however many rows are over: each rule goes by a partial index."""

import re

import pytest
from sqlalchemy import text

from genonaut.db.models import GenerationJob, TaskRun
from genonaut.domain import reaping, repairs
from genonaut.domain.delivery import Outbox, fixed
from tests.support.plans import explain
from tests.support.reaping import LIMITS

OUTBOXES = (
    Outbox("job", GenerationJob, fixed("draw"), fixed("easel")),
    Outbox("run", TaskRun, TaskRun.task.expression, TaskRun.queue.expression),
)

PARTIAL = re.compile(r"ix_\w+_(pending|running|cancelling|unpublished)|uq_task_runs_\w+")


@pytest.fixture
def many_that_are_over(database, make_user):
    user = make_user()
    with database.transaction() as session:
        session.execute(
            text(
                "INSERT INTO generation_jobs (user_id, prompt, status, completed_at)"
                " SELECT :user, 'a fox', 'cancelled', now() FROM generate_series(1, 5000)"
            ),
            {"user": user.id},
        )
        session.execute(
            text(
                "INSERT INTO task_runs"
                " (task, queue, trigger, status, celery_task_id, completed_at)"
                " SELECT 'toys.count', 'default', 'api', 'completed', n::text, now()"
                " FROM generate_series(1, 5000) AS n"
            )
        )
        session.execute(text("ANALYZE generation_jobs, task_runs, job_attempts"))


@pytest.fixture
def plans(database):
    """Explain every statement that a block of code runs."""

    def look(act):
        with database.transaction() as session:
            # Of a table with few rows the planner would read all; with many it may not.
            session.execute(text("SET LOCAL enable_seqscan = off"))
            return explain(session, act)

    return look


def check(plan: str) -> None:
    assert "Seq Scan" not in plan, plan
    assert PARTIAL.search(plan), plan


@pytest.mark.usefixtures("many_that_are_over")
def test_finding_nothing_reads_partial_indexes_only(plans):
    def look(session):
        asked = {rule.full_name: rule.finds_any(LIMITS) for rule in reaping.RULES}
        for outbox in OUTBOXES:
            asked[f"{outbox.kind}.unpublished"] = outbox.any_unpublished(settle_s=1)
            asked[f"{outbox.kind}.overdue"] = outbox.any_overdue(after_s=60)
        assert repairs.answer(session, repairs.question(asked), epoch="e1") == set()
        for rule in reaping.RULES:
            repairs.sweep(session, rule, LIMITS)
            repairs.count(session, rule, LIMITS)
        for outbox in OUTBOXES:
            outbox.unpublished(session, "e1", settle_s=1, limit=100)
            outbox.overdue(session, "e1", after_s=60, limit=100)

    explained = plans(look)
    assert len(explained) == 1 + 2 * len(reaping.RULES) + 2 * len(OUTBOXES)
    for plan in explained:
        check(plan)
