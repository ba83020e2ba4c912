"""Move on what is stuck, on demand, and keep the record of what the workers did by themselves."""

import json
import time
from collections import Counter

from pydantic import Field

from genonaut.core.errors import RetryableError
from genonaut.domain import repairs, run_history
from genonaut.domain.repairs import Ledger
from genonaut.worker.contact import SHARED
from genonaut.worker.dispatch import Broker
from genonaut.worker.repair import Repairs, contact_of, try_lock
from genonaut.worker.task import TaskContext, TaskParams, TaskResult, task

PATIENCE_S = 60.0
LOOK_AGAIN_S = 0.2
FOUND_BYTES = 200 * 1024
"""Of what a dry run lists, as JSON; a result holds little more."""
NAME = "jobs.reap_stale"


class Params(TaskParams):
    """What an operator may choose."""

    limit: int = Field(
        default=100, ge=1, le=500, description="Rows of each rule that a dry run lists."
    )


class Item(TaskResult):
    """Something that is stuck: by which rule, for how long, and what becomes of it."""

    rule: str
    kind: str
    id: int | None
    what: str
    worker: str | None
    stale_s: float
    why: str
    becomes: str


class Result(TaskResult):
    """What was done, by ``kind.rule``; of a dry run, what would be."""

    counts: dict[str, int]
    """Since the run before, the acts of every worker among them. Messages that were due and not
    sent yet (``unpublished``), as each try again is for a moment, are those this run sent."""
    by_this_run: int = 0
    published: int = 0
    """Messages this run sent, those that were simply due among them."""
    found: tuple[Item, ...] = ()
    """Of a dry run: the first of each rule, as many as one result holds."""
    through: int = 0
    """The last record that is counted here; the next run begins behind it."""


@task(NAME, title="Move on what is stuck", soft_limit_s=300, dry_run=True)
def reap_stale(ctx: TaskContext, params: Params) -> Result:
    """Take jobs and runs from workers that are gone, close cancels, publish what was lost.

    Every worker does the same every few seconds by itself; this makes one pass more, and counts
    what all of them did since the run before. What is slow and alive is left alone. A dry run
    lists what is stuck now and what would become of it. Safe to run at any time: one pass is made
    at a time.
    """
    with Broker(ctx.settings, timeout_s=2.0) as broker:
        # What the main process of this worker notes of PostgreSQL.
        contact = contact_of(ctx.settings, SHARED)
        passes = Repairs(ctx.transaction, ctx.settings, broker, contact)
        if ctx.dry_run:
            found = passes.look(limit=params.limit)
            items = [Item.model_validate(one.public()) for one in found.items]
            return Result(counts=found.counts, found=_fitting(items))
        return _pass(ctx, passes)


def _pass(ctx: TaskContext, passes: Repairs) -> Result:
    """Make a pass under the lock: no act of another pass goes on while the record is read."""
    gives_up_at = time.monotonic() + PATIENCE_S
    while time.monotonic() < gives_up_at:
        with ctx.transaction() as lock:
            if try_lock(lock):
                done = passes.make(lock)
                ledger = _ledger(ctx)
                for name, number in ledger.counts.items():
                    ctx.log.info("repaired", rule=name, count=number)
                first = {f"{kind}.{repairs.UNPUBLISHED}": n for kind, n in done.first.items()}
                return Result(
                    counts={**ledger.counts, **first},
                    by_this_run=len(done.reaped) + done.sent_again,
                    published=done.sent,
                    through=ledger.through,
                )
        ctx.progress(0, message="another pass is being made")
        time.sleep(LOOK_AGAIN_S)
    raise RetryableError(f"another pass has been going on for {PATIENCE_S:.0f} seconds")


def _fitting(items: list[Item]) -> tuple[Item, ...]:
    """Leave out the last ones of the longest rules, until the rest fits into a result."""
    ranks: Counter[tuple[str, str]] = Counter()
    ranked = []
    for item in items:
        ranks[item.kind, item.rule] += 1
        ranked.append((ranks[item.kind, item.rule], item))
    kept: set[int] = set()
    size = 0
    for _, item in sorted(ranked, key=lambda pair: pair[0]):
        size += len(json.dumps(item.model_dump())) + 2
        if size > FOUND_BYTES:
            break
        kept.add(id(item))
    return tuple(item for item in items if id(item) in kept)


def _ledger(ctx: TaskContext) -> Ledger:
    with ctx.transaction() as session:
        before = run_history.last_completed(session, NAME, before=ctx.run_id)
        through = int((before.result or {}).get("through", 0)) if before else 0
        return repairs.since(session, through)
