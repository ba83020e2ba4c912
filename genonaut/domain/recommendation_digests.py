"""Tell those who asked for it, once a week, of a few pictures they might like."""

from collections.abc import Collection
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from genonaut.core.text import one_line
from genonaut.db.models import NotificationPreference, User, UserInteraction, UserNotification
from genonaut.domain import notifications, recommendation_lists
from genonaut.domain.kinds import Kind
from genonaut.domain.recommendation_lists import NEWEST, Place

NAMED_AT_MOST = 5
_LOOKED_AT = 100
_REMEMBERED = 52
_TITLE_MAX = 80
_ASKED_FOR = f"$.{Kind.RECOMMENDATION}.* ? (@ == true)"


def week(session: Session) -> str:
    """Name the present week as ISO 8601 does, in UTC: ``2026-W48``."""
    now = func.timezone("UTC", func.now())
    return str(session.scalars(select(func.to_char(now, 'IYYY-"W"IW'))).one())


def untold(session: Session, week: str, *, after: UUID | None, limit: int) -> list[UUID]:
    """Give users behind ``after`` who asked to hear, and have not heard in that week, in order."""
    wish, told = NotificationPreference, UserNotification
    known = select(told.id).where(told.user_id == wish.user_id, told.dedupe_key == _key(week))
    query = (
        select(wish.user_id)
        .join(User, User.id == wish.user_id)
        .where(User.is_active, wish.choices.path_exists(_ASKED_FOR), ~known.exists())
        .order_by(wish.user_id)
        .limit(limit)
    )
    if after is not None:
        query = query.where(wish.user_id > after)
    return list(session.scalars(query))


def tell(session: Session, user_id: UUID, week: str) -> bool:
    """Record the week's notification of a user; whether there was anything new to tell of.

    New is what may be shown now, was in no notification of the year before, and what the user has
    done nothing with. A second call for the same week records none.
    """
    places = recommendation_lists.read(session, user_id, limit=_LOOKED_AT)
    known = _told(session, user_id) | _taken_up(session, user_id, places)
    new = [place.item for place in places if place.item.id not in known][:NAMED_AT_MOST]
    if not new or places[0].generation_id == NEWEST:
        return False
    titles = [one_line(item.title, longest=_TITLE_MAX) for item in new]
    count = "A picture" if len(new) == 1 else f"{len(new)} pictures"
    row = notifications.notify(
        session,
        user_id,
        Kind.RECOMMENDATION,
        dedupe_key=_key(week),
        title=f"{count} you might like",
        body=" · ".join(titles),
        data={
            "content_ids": [item.id for item in new],
            "titles": titles,
            "week": week,
            "link": "/gallery",
        },
    )
    return row is not None


def _key(week: str) -> str:
    return f"recommendations:{week}"


def _told(session: Session, user_id: UUID) -> set[int]:
    rows = session.scalars(
        select(UserNotification.data)
        .where(UserNotification.user_id == user_id, UserNotification.kind == Kind.RECOMMENDATION)
        .order_by(UserNotification.id.desc())
        .limit(_REMEMBERED)
    )
    return {content_id for data in rows for content_id in data.get("content_ids", ())}


def _taken_up(session: Session, user_id: UUID, places: Collection[Place]) -> set[int]:
    return set(
        session.scalars(
            select(UserInteraction.content_id).where(
                UserInteraction.user_id == user_id,
                UserInteraction.content_id.in_([place.item.id for place in places]),
                UserInteraction.times > 0,
            )
        )
    )
