"""Take down what users do with pictures: what recommendations are made from."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, ScalarSelect, case, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import InstrumentedAttribute, Session

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import ContentItem, UserInteraction
from genonaut.domain import content

REPEAT_AFTER = timedelta(minutes=1)
"""The same act sooner than this is the same one: a page loaded again, a double click."""


class Act(StrEnum):
    """What a user may do with a picture."""

    VIEW = "view"
    LIKE = "like"
    UNLIKE = "unlike"
    RATE = "rate"
    DOWNLOAD = "download"
    SHARE = "share"
    DISMISS = "dismiss"
    RECALL = "recall"


_KINDS = {Act.UNLIKE: Act.LIKE, Act.RECALL: Act.DISMISS}
_COUNTED = frozenset({Act.VIEW, Act.DOWNLOAD, Act.SHARE})


@dataclass(frozen=True, slots=True)
class Opinion:
    """What a user thinks of an item."""

    liked: bool = False
    rating: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """What a user has done with an item so far."""

    content_id: int
    views: int = 0
    downloads: int = 0
    shares: int = 0
    liked: bool = False
    dismissed: bool = False
    rating: int | None = None

    def public(self) -> dict[str, Any]:
        """Give it ready for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


def record(
    session: Session, user_id: UUID, content_id: int, act: Act, *, rating: int | None = None
) -> Standing:
    """Take down what a user did with an item they may see; give how they stand to it then.

    A like, its taking back, a rating, a dismissal and its recall may be repeated and change nothing
    more. Views, downloads and shares are counted, those within a minute as one. ``rating`` is 1 to
    5 and belongs to ``rate`` alone.

    Raises:
        NotFoundError: there is no such item, or it is another user's private one.
        InvalidInputError: a rating is missing, or there is one where none belongs.
    """
    if (rating is not None) != (act is Act.RATE):
        raise InvalidInputError("belongs to the act rate, which needs it", field="rating")
    content.visible(session, user_id, content_id, hold=True)
    kind = _KINDS.get(act, act)
    if kind is not act:
        session.execute(
            update(UserInteraction)
            .where(
                UserInteraction.user_id == user_id,
                UserInteraction.content_id == content_id,
                UserInteraction.kind == kind,
                UserInteraction.times > 0,
            )
            .values(times=0, updated_at=func.now())
            .execution_options(synchronize_session=False)
        )
    else:
        _upsert(session, user_id, content_id, kind, rating)
    return standing(session, user_id, content_id)


def _upsert(
    session: Session, user_id: UUID, content_id: int, kind: Act, rating: int | None
) -> None:
    row = UserInteraction
    new = insert(row).values(user_id=user_id, content_id=content_id, kind=kind, rating=rating)
    if kind in _COUNTED:
        changed: dict[str, Any] = {"times": row.times + 1}
        when = row.updated_at < func.now() - REPEAT_AFTER
    else:
        changed = {"times": 1, "rating": new.excluded.rating}
        when = row.times.is_distinct_from(1) | row.rating.is_distinct_from(new.excluded.rating)
    session.execute(
        new.on_conflict_do_update(
            index_elements=["user_id", "content_id", "kind"],
            set_={**changed, "updated_at": func.now()},
            where=when,
        )
    )


def standing(session: Session, user_id: UUID, content_id: int) -> Standing:
    """Give what a user has done with an item so far."""

    def _times(kind: Act) -> Any:
        return func.coalesce(
            func.sum(case((UserInteraction.kind == kind, UserInteraction.times))), 0
        )

    found = session.execute(
        select(
            _times(Act.VIEW).label("views"),
            _times(Act.DOWNLOAD).label("downloads"),
            _times(Act.SHARE).label("shares"),
            (_times(Act.LIKE) > 0).label("liked"),
            (_times(Act.DISMISS) > 0).label("dismissed"),
            func.max(UserInteraction.rating).label("rating"),
        ).where(UserInteraction.user_id == user_id, UserInteraction.content_id == content_id)
    ).one()
    return Standing(content_id, **found._mapping)


def opinion_on(
    user_id: ColumnElement[UUID], content_id: ColumnElement[int] | InstrumentedAttribute[int]
) -> ScalarSelect[Any]:
    """Give what a user thinks of an item as one JSON value of a query: those of Opinion."""
    acts = UserInteraction
    likes = (acts.kind == Act.LIKE) & (acts.times > 0)
    liked = func.coalesce(func.bool_or(likes), False)
    return (
        select(func.json_build_array(liked, func.max(acts.rating)))
        .where(
            acts.user_id == user_id,
            acts.content_id == content_id,
            (acts.kind == Act.LIKE) | (acts.kind == Act.RATE),
        )
        .correlate_except(acts)
        .scalar_subquery()
    )


def opinions(session: Session, user_id: UUID, ids: Collection[int]) -> dict[int, Opinion]:
    """Give what a user thinks of each of some items, in one query."""
    found = dict.fromkeys(ids, Opinion())
    if not found:
        return found
    opinion = opinion_on(literal(user_id), ContentItem.id)
    rows = session.execute(select(ContentItem.id, opinion).where(ContentItem.id.in_(found)))
    return found | {content_id: Opinion(*values) for content_id, values in rows}
