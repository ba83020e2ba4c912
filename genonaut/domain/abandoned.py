"""Remember prompts that ComfyUI must be told to drop, until it has been told.

The row is written in the transaction that gives the prompt up; the reconciler does the telling,
again and again, since the server may be away just then.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.db.models import AbandonedPrompt

LONGEST_PAUSE_S = 60
FORGET_AFTER_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A prompt at ComfyUI that nobody waits for any more."""

    id: int
    backend: str
    prompt_id: str


def abandon(session: Session, backend: str | None, prompt_id: str | None) -> None:
    """Have a prompt removed from its server; doing so twice, or for none, is harmless."""
    if backend and prompt_id:
        session.execute(
            insert(AbandonedPrompt)
            .values(backend=backend, prompt_id=prompt_id)
            .on_conflict_do_nothing()
        )


def any_due() -> ColumnElement[bool]:
    """Say whether there are prompts to try now."""
    due = select(AbandonedPrompt.id).where(AbandonedPrompt.next_try_at <= func.now())
    return due.exists()


def take_due(session: Session, *, limit: int) -> list[Abandoned]:
    """Take the prompts to try now; each comes due again, ever later, until it is forgotten."""
    due = (
        select(AbandonedPrompt.id)
        .where(AbandonedPrompt.next_try_at <= func.now())
        .order_by(AbandonedPrompt.next_try_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")  # found once: a subquery may be run again, and take more than the limit
    )
    pause_s = func.least(func.power(2, AbandonedPrompt.tries + 1), LONGEST_PAUSE_S)
    rows = session.execute(
        update(AbandonedPrompt)
        .where(AbandonedPrompt.id.in_(select(due.c.id)))
        .values(
            tries=AbandonedPrompt.tries + 1,
            next_try_at=func.now() + func.make_interval(0, 0, 0, 0, 0, 0, pause_s),
        )
        .returning(AbandonedPrompt.id, AbandonedPrompt.backend, AbandonedPrompt.prompt_id)
        .execution_options(synchronize_session=False)
    )
    return [Abandoned(row.id, row.backend, row.prompt_id) for row in rows]


def forget(session: Session, abandoned_id: int) -> None:
    """Strike out a prompt that is gone."""
    session.execute(delete(AbandonedPrompt).where(AbandonedPrompt.id == abandoned_id))


def forget_old(session: Session) -> None:
    """Give up on servers that have been away for a day: they have forgotten it all by then."""
    session.execute(
        delete(AbandonedPrompt).where(
            AbandonedPrompt.created_at < func.now() - timedelta(seconds=FORGET_AFTER_S)
        )
    )
