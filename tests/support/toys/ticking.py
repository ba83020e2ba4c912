"""Tick by itself, or pass the time."""

import time

from pydantic import Field

from genonaut.worker.schedules import schedule
from genonaut.worker.task import Overlap, TaskContext, TaskParams, TaskResult, task


class Params(TaskParams):
    """How to count."""

    label: str = Field(default="", description="Which runs are told apart.")
    seconds: float = Field(default=0, ge=0, le=60, description="How long it takes.")


class Result(TaskResult):
    """What was counted."""

    counted: int


@task("toys.linger", title="Linger", overlap_key=lambda params: params.label)
def linger(ctx: TaskContext, params: Params) -> Result:
    """Count for some seconds."""
    ends_at = time.monotonic() + params.seconds
    while time.monotonic() < ends_at:
        ctx.progress(0)
        time.sleep(0.1)
    return Result(counted=1)


@task("toys.tick", title="Tick", overlap=Overlap.ALLOW)
def tick(_: TaskContext, params: Params) -> Result:
    """Do nothing, beside others of its kind."""
    return Result(counted=len(params.label))


schedule("toys.tick.yearly", tick, cron="@yearly")
