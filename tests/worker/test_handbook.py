"""The page of tasks is what the tasks say, and as fresh as they are."""

from pydantic import Field

from genonaut.worker import handbook
from genonaut.worker.task import TaskContext, TaskParams, TaskResult


class Params(TaskParams):
    """What to do."""

    path: str = Field(description="Where.")
    sizes: tuple[int, ...] = Field(default=(1, 2), description="Edges | pixels.")


class Result(TaskResult):
    """Nothing."""


def test_a_section_says_all_there_is_to_know(declare):
    def work(ctx: TaskContext, params: Params) -> Result:
        """Do it.

        Twice, if asked.
        """
        return Result()

    made = declare(
        work, "toys.paint", title="Paint", soft_limit_s=5400, dry_run=True, aliases=("toys.draw",)
    )
    said = handbook.page([made])
    for part in (
        "## toys.paint",
        "**Paint** (queue `default`; at most 90 min; overlap: skip; has a dry run; formerly",
        "Twice, if asked.",
        "| `path` | required | Where. |",
        "| `sizes` | `[1, 2]` | Edges \\| pixels. |",
    ):
        assert part in said


def test_the_page_is_fresh():
    assert handbook.PAGE.read_text(encoding="utf-8") == handbook.own_page(), "run: make docs"
