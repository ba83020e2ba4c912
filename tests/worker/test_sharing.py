"""Work that is shared out; ``tasks/test_thumbnails.py`` has more, of the task that does so."""

import pytest
from pydantic import Field
from sqlalchemy import delete

from genonaut.db.models import TaskRun
from genonaut.domain import runs
from genonaut.worker.sharing import Plan, _Shared, in_parts
from genonaut.worker.task import Overlap, TaskContext, TaskParams, TaskResult
from tests.worker.conftest import work_on


class Params(TaskParams):
    part: int = Field(default=0, description="Which.")


class Result(TaskResult):
    total: int


@pytest.fixture
def part(declare):
    def work(_: TaskContext, __: Params) -> Result:
        """Do one part."""
        return Result(total=1)

    return declare(work, "toys.part", overlap=Overlap.ALLOW)


@pytest.fixture
def whole(declare, part):
    def work(ctx: TaskContext, _: TaskParams) -> Result:
        """Share the work out."""
        plan = Plan([Params(part=n) for n in range(2)], total=2)
        return Result(total=sum(done.total for done in in_parts(ctx, part, lambda _: plan)))

    return declare(work, "toys.whole", overlap=Overlap.ALLOW)


def test_a_retry_whose_parts_are_gone_shares_out_anew(
    part, whole, start_run, task_services, database
):
    row = start_run(whole)
    one, two = _Shared.model_validate(row.checkpoint).run_ids
    work_on(task_services, part, one)
    with database.transaction() as session:
        runs.request_cancel(session, two)
    assert work_on(task_services, whole, row.id).error_code == "parts_failed"
    with database.transaction() as session:
        session.execute(delete(TaskRun).where(TaskRun.id == one))  # as retention does
        again = runs.again(session, row.id, whole.request(TaskParams(), trigger="api")).run
    again = work_on(task_services, whole, again.id)
    assert again.status == "pending", again.error_message
    anew = _Shared.model_validate(again.checkpoint).run_ids
    assert not {one, two} & {*anew}
    for run_id in anew:
        work_on(task_services, part, run_id)
    assert work_on(task_services, whole, again.id).result == {"total": 2}
