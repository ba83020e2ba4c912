"""Count, slowly and with checkpoints; or misbehave."""

import os
import signal
import time
from pathlib import Path

from pydantic import BaseModel, Field

from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task


class Params(TaskParams):
    """How to count."""

    upto: int = Field(default=10, ge=0, description="The last number.")
    step_s: float = Field(default=0.05, ge=0, description="Seconds a number takes.")
    diary: str = Field(default="", description="File that gets a line per number.")
    die_at: int = Field(default=-1, description="Kill the own process at this number, each time.")
    bad: tuple[int, ...] = Field(default=(), description="Numbers that cannot be counted.")


class Result(TaskResult):
    """What was counted."""

    counted: int


class At(BaseModel):
    """The last number counted."""

    n: int = 0


@task("toys.count", title="Count", overlap="skip", soft_limit_s=60)
def count(ctx: TaskContext, params: Params) -> Result:
    """Count up to a number, going on from the last checkpoint."""
    at = ctx.resume(At) or At()
    while at.n < params.upto:
        at = At(n=at.n + 1)
        if at.n == params.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if params.diary:
            with Path(params.diary).open("a") as diary:
                diary.write(f"{at.n}\n")
        with ctx.transaction() as session:
            ctx.checkpoint(session, at)
            if at.n in params.bad:
                ctx.fail_item(session, str(at.n), "a bad number")
        time.sleep(params.step_s)
        ctx.progress(at.n, params.upto)
    ctx.log.info("counted", upto=at.n)
    return Result(counted=at.n)


@task("toys.wait", title="Count, one after the other", overlap="wait")
def count_in_turn(ctx: TaskContext, params: Params) -> Result:
    """Count; a second run waits for the first."""
    return count.work(ctx, params)


@task("toys.beside", title="Count side by side", overlap="allow", soft_limit_s=30)
def count_beside(ctx: TaskContext, params: Params) -> Result:
    """Count; any number of runs at once."""
    return count.work(ctx, params)


@task("toys.keyed", title="Count by key", overlap_key=lambda params: str(params.upto))
def count_by_key(ctx: TaskContext, params: Params) -> Result:
    """Count; runs up to different numbers do not meet."""
    return count.work(ctx, params)


@task("toys.stubborn", title="Sleep", soft_limit_s=2, overlap="allow")
def sleep(ctx: TaskContext, params: Params) -> Result:
    """Sleep for long, checkpoint first."""
    with ctx.transaction() as session:
        ctx.checkpoint(session, At(n=1))
    time.sleep(60)
    return Result(counted=0)
