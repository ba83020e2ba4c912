"""Share one run's work out to runs of their own, which any free worker takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NoReturn, TypeVar

from pydantic import BaseModel
from sqlalchemy.orm import Session

from genonaut.core.errors import GenonautError
from genonaut.domain import run_families
from genonaut.domain.lifecycle import Status
from genonaut.worker.context import TaskContext
from genonaut.worker.task import TaskDefinition, TaskParams, TaskResult

Params = TypeVar("Params", bound=TaskParams)
Result = TypeVar("Result", bound=TaskResult)


class PartsFailedError(GenonautError):
    """Some of the runs that share the work did not complete."""

    code = "parts_failed"


@dataclass(frozen=True, slots=True)
class Plan(Generic[Params]):
    """What each part is told, and how much there is to do in all."""

    parts: Sequence[Params]
    total: int


class _Shared(BaseModel):
    by: int
    run_ids: tuple[int, ...]


def in_parts(
    ctx: TaskContext,
    definition: TaskDefinition[Params, Result],
    plan: Callable[[Session], Plan[Params]],
) -> list[Result]:
    """Have parts of a run's work done by runs of ``definition``, and give their results.

    The attempt ends here until all parts have ended, so what precedes this is done again. Parts
    share the run's failed items. A retry of the run repeats the parts that did not complete, each
    from its checkpoint; or all, anew, when the rows of some are gone.

    Raises: PartsFailedError: some did not complete; the others' work is kept.
    """
    shared = ctx.resume(_Shared) or _share_out(ctx, definition, plan)
    with ctx.transaction() as session:
        found = run_families.children(session, shared.run_ids)
    if len(found) < len(shared.run_ids):  # retention took them, so it is long ago
        _share_out(ctx, definition, plan)
        ctx.await_children()
    if not all(part.has_ended for part in found):
        ctx.await_children()
    lost = set(shared.run_ids) - {part.id for part in found if part.status == Status.COMPLETED}
    if lost and shared.by != ctx.run_id:
        _share_again(ctx, definition, shared, lost)
    with ctx.transaction() as session:
        ctx.take_failures(session, shared.run_ids)
    if lost:
        ids = ", ".join(str(run_id) for run_id in sorted(lost))
        raise PartsFailedError(
            f"{len(lost)} of the {len(shared.run_ids)} runs that shared the work did not complete"
            f" ({ids}); a retry goes on from there"
        )
    return [definition.result.model_validate(part.result) for part in found]


def _share_out(
    ctx: TaskContext,
    definition: TaskDefinition[Params, Result],
    plan: Callable[[Session], Plan[Params]],
) -> _Shared:
    with ctx.transaction() as session:
        wanted = plan(session)
        run_ids = [ctx.start(session, definition, part) for part in wanted.parts]
        shared = _Shared(by=ctx.run_id, run_ids=tuple(run_ids))
        ctx.checkpoint(session, shared)
    ctx.progress(0, wanted.total)
    return shared


def _share_again(
    ctx: TaskContext,
    definition: TaskDefinition[Params, Result],
    shared: _Shared,
    lost: set[int],
) -> NoReturn:
    with ctx.transaction() as session:
        run_ids = tuple(
            ctx.start_again(session, definition, run_id) if run_id in lost else run_id
            for run_id in shared.run_ids
        )
        ctx.checkpoint(session, _Shared(by=ctx.run_id, run_ids=run_ids))
    ctx.await_children()
