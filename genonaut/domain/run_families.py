"""Runs that were started by another: what became of them, and how far they are together."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, func, literal, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.text import pace
from genonaut.db.models import RunFailure, TaskRun
from genonaut.domain.lifecycle import FINAL, Status
from genonaut.domain.runs import RUNS, WAITING_FOR_CHILDREN


@dataclass(frozen=True, slots=True)
class Child:
    """A run that another started, as it stands; ``result`` is there once it has completed."""

    id: int
    status: str
    result: dict[str, Any] | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will become of it."""
        return self.status in FINAL


def children(session: Session, run_ids: Collection[int]) -> list[Child]:
    """Say how these runs stand, by id; those that were purged meanwhile are left out."""
    found = session.execute(
        select(TaskRun.id, TaskRun.status, TaskRun.result)
        .where(TaskRun.id.in_(run_ids))
        .order_by(TaskRun.id)
    )
    return [Child(row.id, row.status, row.result) for row in found]


def copy_failures(session: Session, run_id: int, from_ids: Collection[int]) -> None:
    """List what other runs could not do with this one too; asked again, it changes nothing."""
    listed = (
        select(literal(run_id), RunFailure.ref, RunFailure.error)
        .where(RunFailure.run_id.in_(from_ids))
        .order_by(RunFailure.id)
    )
    session.execute(
        insert(RunFailure).from_select(["run_id", "ref", "error"], listed).on_conflict_do_nothing()
    )


def show_sum(session: Session, parent_id: int) -> None:
    """Show how far the children are together with the run that waits for them.

    Left out while somebody else writes that row: it is shown again soon.
    """
    parent = session.scalars(
        select(TaskRun)
        .where(
            TaskRun.id == parent_id,
            TaskRun.status == Status.PENDING,
            TaskRun.progress["phase"].astext == WAITING_FOR_CHILDREN,
        )
        .with_for_update(skip_locked=True, key_share=True)
        .execution_options(populate_existing=True)
    ).one_or_none()
    if parent is None:
        return
    found, elapsed_s = session.execute(
        select(
            func.sum(TaskRun.progress["done"].astext.cast(BigInteger)),
            func.extract("epoch", func.now() - func.min(TaskRun.started_at)),
        ).where(TaskRun.parent_id == parent_id)
    ).one()
    shown = parent.progress
    done = max(int(found or 0), shown.get("done") or 0)
    now: dict[str, Any] = {"done": done}
    if total := shown.get("total"):
        percent = min(100, 100 * done // total)
        now |= {
            "total": max(total, done),
            "percent": max(percent, shown.get("percent") or 0),
        }
        if done and elapsed_s:
            now["message"] = pace(done / float(elapsed_s), total - done)
    if now.items() - shown.items():
        RUNS.note(session, parent_id, (), progress={**shown, **now})
