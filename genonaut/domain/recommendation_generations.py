"""Keep everyone's lists in generations: make one aside, switch to it at once, go back to the last.

Readers follow the one row that is current, so they see the lists of one generation or of another
and never a mixture.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, delete, func, select, update
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, NotFoundError
from genonaut.db.models import (
    ContentItem,
    Recommendation,
    RecommendationGeneration,
    RecommendationServe,
    UserInteraction,
)

EVERYONE = UUID(int=0)
"""Whose list users get of whom nothing is known."""

PRUNE_USERS = 500

_LOCK = "recommendation_generations"
_One = RecommendationGeneration


def current(session: Session) -> RecommendationGeneration | None:
    """Give the generation whose lists are read; None before the first."""
    return session.scalars(select(_One).where(_One.is_current)).one_or_none()


def current_id() -> Any:
    """Give the current generation's id, as part of another query."""
    return select(_One.id).where(_One.is_current).scalar_subquery()


def list_generations(
    session: Session, *, before: int | None = None, limit: int = 50
) -> list[RecommendationGeneration]:
    """List generations, newest first, older than the id ``before``."""
    query: Select[RecommendationGeneration] = select(_One)
    if before is not None:
        query = query.where(_One.id < before)
    return list(session.scalars(query.order_by(_One.id.desc()).limit(limit)))


def public(generation: RecommendationGeneration) -> dict[str, Any]:
    """Give what auditors see, ready for JSON."""

    def _iso(moment: datetime | None) -> str | None:
        return moment.isoformat() if moment else None

    return {
        "id": generation.id,
        "run_id": generation.run_id,
        "algorithm": generation.algorithm,
        "is_current": generation.is_current,
        "is_kept": generation.switched_at is not None and generation.pruned_at is None,
        "refused": generation.refused,
        "evaluation": generation.evaluation,
        "users": generation.users,
        "rows": generation.rows,
        "as_of": _iso(generation.as_of),
        "refreshed_to": _iso(generation.refreshed_to),
        "created_at": _iso(generation.created_at),
        "switched_at": _iso(generation.switched_at),
    }


def fingerprint(session: Session, **also: Any) -> dict[str, Any]:
    """Sum up what lists are made from: while it stays the same, so do they."""
    acts = session.execute(
        select(func.count(), func.max(UserInteraction.updated_at)).select_from(UserInteraction)
    ).one()
    items = session.execute(
        select(func.count(), func.max(ContentItem.id), func.max(ContentItem.updated_at)).where(
            ~ContentItem.is_private
        )
    ).one()
    return {
        "interactions": acts[0],
        "last_interaction": acts[1].isoformat() if acts[1] else None,
        "items": items[0],
        "last_item": items[1],
        "last_change": items[2].isoformat() if items[2] else None,
        **also,
    }


def active_since(session: Session, since: datetime, *, until: datetime) -> list[UUID]:
    """Give the users who did something after ``since`` and up to ``until``, in their order."""
    return list(
        session.scalars(
            select(UserInteraction.user_id)
            .where(UserInteraction.updated_at > since, UserInteraction.updated_at <= until)
            .distinct()
            .order_by(UserInteraction.user_id)
        )
    )


def begin(
    session: Session,
    *,
    run_id: int | None,
    algorithm: str,
    as_of: datetime,
    fingerprint: dict[str, Any],
    evaluation: dict[str, Any] | None,
    refused: str | None = None,
) -> int:
    """Begin a generation that nobody reads yet; give its id. A refused one gets no lists."""
    made = RecommendationGeneration(
        run_id=run_id,
        algorithm=algorithm,
        as_of=as_of,
        fingerprint=fingerprint,
        evaluation=evaluation,
        refused=refused,
    )
    session.add(made)
    session.flush()  # its lists carry the id
    return made.id


def is_there(session: Session, generation_id: int) -> bool:
    """Whether a generation may still be written to."""
    found = session.get(RecommendationGeneration, generation_id)
    return found is not None and found.pruned_at is None


def is_made_with(session: Session, generation_id: int, values: Mapping[str, Any]) -> bool:
    """Whether a generation was begun with these ``values`` of its fingerprint."""
    begun_with = session.get_one(_One, generation_id).fingerprint
    return all(begun_with.get(name) == value for name, value in values.items())


def switch(session: Session, generation_id: int, *, users: int, rows: int) -> None:
    """Have readers see this generation's lists from the commit on.

    Raises: ConflictError: it was dropped meanwhile.
    """
    _lock(session)
    session.execute(update(_One).where(_One.is_current).values(is_current=False))
    switched = session.execute(
        update(_One)
        .where(_One.id == generation_id, _One.pruned_at.is_(None))
        .values(is_current=True, switched_at=func.clock_timestamp(), users=users, rows=rows)
        .returning(_One.id)
    )
    if switched.one_or_none() is None:
        raise ConflictError("this generation of lists was dropped meanwhile")


def note_refreshed(session: Session, generation_id: int, up_to: datetime) -> None:
    """Remember up to when single lists of a generation were made anew."""
    session.execute(
        update(_One)
        .where(_One.id == generation_id)
        .values(refreshed_to=func.greatest(func.coalesce(_One.refreshed_to, up_to), up_to))
    )


def go_back(session: Session) -> RecommendationGeneration:
    """Go back to the lists before the current ones, which are kept for that; give their generation.

    Raises:
        NotFoundError: there are no lists yet.
        ConflictError: those before are not kept any more, or never were.
    """
    _lock(session)
    now = current(session)
    if now is None:
        raise NotFoundError("there are no recommendations yet")
    before = session.scalars(
        select(_One)
        .where(_One.id < now.id, _One.switched_at.is_not(None), _One.pruned_at.is_(None))
        .order_by(_One.switched_at.desc())
        .limit(1)
    ).one_or_none()
    if before is None:
        raise ConflictError("there is no earlier generation of lists to go back to")
    session.execute(update(_One).where(_One.id == now.id).values(is_current=False))
    session.execute(
        update(_One)
        .where(_One.id == before.id)
        .values(is_current=True, switched_at=func.clock_timestamp())
    )
    session.expire_all()
    return session.get_one(RecommendationGeneration, before.id)


def gone_back_from(session: Session) -> int | None:
    """Give the newest generation whose lists were read until one went back to the current ones."""
    return _newest_after_current(session, _One.switched_at.is_not(None))


def refused_since(session: Session) -> int | None:
    """Give the newest generation that was refused since the current one was begun."""
    return _newest_after_current(session, _One.refused.is_not(None))


def _newest_after_current(session: Session, condition: ColumnElement[bool]) -> int | None:
    return session.scalar(select(func.max(_One.id)).where(_One.id > current_id(), condition))


def superfluous(session: Session, *, keep: Sequence[int] = ()) -> list[int]:
    """Mark all generations but the current, the one before and ``keep``, and give what to remove.

    Those marked by an earlier run that was stopped before it had removed them are given too.
    """
    _lock(session)
    kept = select(_One.id).where(_One.switched_at.is_not(None), _One.pruned_at.is_(None))
    last_two = list(session.scalars(kept.order_by(_One.switched_at.desc()).limit(2)))
    session.execute(
        update(_One)
        .where(_One.id.not_in([*last_two, *keep]), _One.pruned_at.is_(None))
        .values(pruned_at=func.now())
    )
    left = select(Recommendation.generation_id).distinct()
    gone = select(_One.id).where(_One.pruned_at.is_not(None), _One.id.in_(left))
    return list(session.scalars(gone.order_by(_One.id)))


def remove_some(session: Session, generation_id: int) -> int:
    """Remove the lists of some users of a generation that was marked; 0 when none are left."""
    users = (
        select(Recommendation.user_id)
        .where(Recommendation.generation_id == generation_id, Recommendation.rank == 1)
        .order_by(Recommendation.user_id)
        .limit(PRUNE_USERS)
    )
    named = list(session.scalars(users))
    if not named:
        session.execute(
            delete(RecommendationServe)
            .where(RecommendationServe.generation_id == generation_id)
            .execution_options(synchronize_session=False)
        )
        return 0
    gone = session.execute(
        delete(Recommendation)
        .where(
            Recommendation.generation_id == generation_id,
            Recommendation.user_id >= named[0],
            Recommendation.user_id <= named[-1],
        )
        .returning(Recommendation.rank)
        .execution_options(synchronize_session=False)
    )
    return len(gone.all())


def _lock(session: Session) -> None:
    session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(_LOCK, 0))))
