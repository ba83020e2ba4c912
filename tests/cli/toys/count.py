"""Count slowly, and fail on demand."""

import time
from typing import Literal

from pydantic import Field

from genonaut.core.errors import GenonautError
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task


class Params(TaskParams):
    """What a test may choose."""

    steps: int = Field(default=3, ge=1, description="How far to count.")
    pause_s: float = Field(default=0.05, description="Seconds between two numbers.")
    note: str = Field(default="", description="Words to keep.")
    mood: Literal["calm", "[b]wild"] = Field(default="calm", description="How to count.")
    skip: list[int] = Field(default=[], description="Numbers that cannot be counted.")
    is_endless: bool = Field(default=False, description="Whether not to tell the end.")
    fails: bool = Field(default=False, description="Whether to fail at the end.")


class Result(TaskResult):
    """What was counted."""

    counted: int
    note: str
    dry: bool


@task("toys.count", title="Count", queue="maintenance", overlap="allow", dry_run=True)
def count(ctx: TaskContext, params: Params) -> Result:
    """Count from 1.

    Safe to run twice: numbers do not mind.
    """
    counted = 0
    for number in range(1, params.steps + 1):
        time.sleep(params.pause_s)
        if number in params.skip:
            with ctx.transaction() as session:
                ctx.fail_item(session, f"number:{number}", "[not] a number")
            continue
        counted += 1
        ctx.log.info("counted", number=number)
        ctx.progress(number, None if params.is_endless else params.steps, "[bold]counting")
    if params.fails:
        raise GenonautError("it was to fail", code="on_demand")
    return Result(counted=counted, note=params.note, dry=ctx.dry_run)
