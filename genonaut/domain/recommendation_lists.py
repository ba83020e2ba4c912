"""Read a user's list as it may be shown now, whatever became of its items since it was made.

One statement checks the login and reads the list, its items, their images and what was served.
"""

from datetime import timedelta
from typing import Any, NamedTuple, cast
from uuid import UUID

from sqlalchemy import (
    JSON,
    ColumnElement,
    Integer,
    Row,
    ScalarSelect,
    Select,
    Subquery,
    Table,
    Uuid,
    bindparam,
    func,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, insert
from sqlalchemy.orm import Session

from genonaut.db.models import ContentItem, Recommendation, RecommendationServe, UserInteraction
from genonaut.domain import content, interactions, users
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.content import Item, Picture
from genonaut.domain.interactions import Act, Opinion
from genonaut.domain.recommendation_generations import EVERYONE
from genonaut.domain.users import Login

SERVED_AGAIN_AFTER = timedelta(minutes=1)
NEWEST = 0
"""Stands for the generation where there are no lists yet, and the newest items are given."""

_RANKS = 10_000
_MARKS_OF_NEWEST = 2**62
"""From here on a mark names an item: who joins or leaves the newest items moves all their ranks."""
_ABOVE_ALL = 2**63 - 1
_REASONS = {1: "liked", 2: "seen", 3: "prompt", 4: "popular", 5: "new"}
_WORDS = {
    "liked": "because you liked {}",
    "seen": "because you looked at {}",
    "prompt": "a prompt like that of {}",
}
_ALONE = {
    "liked": "because of what you liked",
    "seen": "because of what you looked at",
    "prompt": "a prompt like those you like",
    "popular": "popular this week",
    "new": "new",
}


class Place(NamedTuple):
    """One item of a list, and why it is there. ``because_id`` is an item the user may see.

    ``served_to`` is the rank up to which the user was shown the list within the last minute.
    """

    generation_id: int
    served_to: int
    rank: int
    score: float
    reason: str
    because_id: int | None
    because_title: str | None
    item: Item
    images: list[Picture]
    opinion: Opinion

    @property
    def words(self) -> str:
        """Say the reason to people."""
        if self.because_title and self.reason in _WORDS:
            return _WORDS[self.reason].format(self.because_title)
        return _ALONE[self.reason]

    @property
    def mark(self) -> int:
        """Name the place, to go on behind it even after newer lists were switched in."""
        if self.generation_id == NEWEST:
            return _MARKS_OF_NEWEST + self.item.id * _RANKS + self.rank
        return self.generation_id * _RANKS + self.rank


_LISTS = cast(Table, Recommendation.__table__)
_ITEMS = cast(Table, ContentItem.__table__)
_ACTS = cast(Table, UserInteraction.__table__)
_SERVES = cast(Table, RecommendationServe.__table__)

_KNOWN = select(bindparam("viewer_id", type_=Uuid()).label("login_user_id"))
_LIMIT = bindparam("places", type_=Integer)


def _showable(viewer_id: ColumnElement[UUID]) -> tuple[ColumnElement[bool], ...]:
    # Looked up item by item, as are titles and images: planning joins takes longer than that.
    dismissed = (
        select(true())
        .where(
            _ACTS.c.user_id == viewer_id,
            _ACTS.c.content_id == _ITEMS.c.id,
            _ACTS.c.kind == Act.DISMISS.value,
            _ACTS.c.times > 0,
        )
        .correlate_except(_ACTS)
        .scalar_subquery()
    )
    return (~_ITEMS.c.is_private, _ITEMS.c.creator_id != viewer_id, dismissed.is_(None))


def _place_of(viewer_id: ColumnElement[UUID], *values: ColumnElement[Any]) -> ColumnElement[Any]:
    opinion = interactions.opinion_on(viewer_id, _ITEMS.c.id)
    return func.json_build_array(*values, content.item_with_pictures(), opinion).label("place")


def _all_of(places: Subquery, order: ColumnElement[Any]) -> ScalarSelect[Any]:
    # As one value: taking a row apart into columns takes longer than reading JSON.
    return select(
        func.json_agg(aggregate_order_by(places.c.place, order), type_=JSON)
    ).scalar_subquery()


def _list_with(login: Select[Any]) -> Select[Any]:
    asked = bindparam("generation_id", type_=_LISTS.c.generation_id.type)
    generation_id = func.coalesce(asked, generations.current_id())
    who = login.add_columns(generation_id.label("generation_id")).cte("who")
    viewer_id = who.c.login_user_id
    source = _ITEMS.alias("source")
    title = (
        select(source.c.title)
        .where(
            source.c.id == _LISTS.c.because_id,
            or_(~source.c.is_private, source.c.creator_id == viewer_id),
        )
        .correlate_except(source)
        .scalar_subquery()
    )
    places = (
        select(
            _LISTS.c.rank,
            _place_of(
                viewer_id,
                *(_LISTS.c[name] for name in ("rank", "score", "reason", "because_id")),
                title,
            ),
        )
        .join_from(_LISTS, _ITEMS, _ITEMS.c.id == _LISTS.c.content_id)
        .where(
            _LISTS.c.generation_id == who.c.generation_id,
            _LISTS.c.user_id == func.coalesce(bindparam("whose", type_=Uuid()), viewer_id),
            _LISTS.c.rank > bindparam("rank", type_=Integer),
            *_showable(viewer_id),
        )
        .order_by(_LISTS.c.rank)
        .limit(_LIMIT)
        .correlate(who)
        .subquery()
    )
    served_to = (
        select(_SERVES.c.up_to_rank)
        .where(
            _SERVES.c.user_id == viewer_id,
            _SERVES.c.generation_id == who.c.generation_id,
            _SERVES.c.last_at >= func.now() - SERVED_AGAIN_AFTER,
        )
        .scalar_subquery()
    )
    return select(who, _all_of(places, places.c.rank).label("places"), served_to.label("served_to"))


def _newest_for(viewer_id: ColumnElement[UUID]) -> Select[Any]:
    newest = (
        select(_ITEMS.c.id, _place_of(viewer_id))
        .where(_ITEMS.c.id < bindparam("before", type_=_ITEMS.c.id.type), *_showable(viewer_id))
        .order_by(_ITEMS.c.id.desc())
        .limit(_LIMIT)
        .subquery()
    )
    return select(_all_of(newest, newest.c.id.desc()))


# Made once: making a statement takes longer than running it.
_LIST = {kind: _list_with(login) for kind, login in users.LOGINS.items()}
_LIST_OF_KNOWN = _list_with(_KNOWN)
_NEWEST = _newest_for(bindparam("viewer_id", type_=Uuid()))


def read(
    session: Session, user_id: UUID, *, after: int | None = None, limit: int = 20
) -> list[Place]:
    """Give a user's list behind the place marked ``after``, best first.

    A user without a list gets what is popular; before the first refresh, what is newest. Items that
    are private, deleted or dismissed by now, and the user's own, are left out.
    """
    own = _of_known(session, user_id, None, after, limit)
    return own or _without_own(session, user_id, after, limit)


def read_with(
    session: Session, login: Login, *, after: int | None = None, limit: int = 20
) -> tuple[UUID, list[Place]]:
    """Give the user of a login, and what :func:`read` gives; one statement checks the login too.

    Raises: UnauthorizedError: the login is not valid.
    """
    row = session.execute(
        _LIST[login.kind], {"secret_hash": login.secret_hash, **_range(None, after, limit)}
    ).one_or_none()
    user_id = users.admit(session, row).user_id
    own = _places(row) if row else []
    return user_id, own or _without_own(session, user_id, after, limit)


def _without_own(session: Session, user_id: UUID, after: int | None, limit: int) -> list[Place]:
    generation, rank = _split(after)
    if generation == NEWEST:
        return _newest(session, user_id, after, limit)
    if rank and _has_own(session, user_id, generation):
        return []
    popular = _of_known(session, user_id, EVERYONE, after, limit)
    return popular if popular or rank else _newest(session, user_id, None, limit)


def _of_known(
    session: Session, viewer_id: UUID, whose: UUID | None, after: int | None, limit: int
) -> list[Place]:
    values = {"viewer_id": viewer_id, **_range(whose, after, limit)}
    return _places(session.execute(_LIST_OF_KNOWN, values).one())


def _split(after: int | None) -> tuple[int | None, int]:
    if after is not None and after >= _MARKS_OF_NEWEST:
        return NEWEST, after % _RANKS
    return (None, 0) if after is None else divmod(after, _RANKS)


def _range(whose: UUID | None, after: int | None, limit: int) -> dict[str, Any]:
    generation, rank = _split(after)
    return {"whose": whose, "generation_id": generation, "rank": rank, "places": limit}


def _places(row: Row[Any]) -> list[Place]:
    generation_id, served_to = row.generation_id, row.served_to or 0
    return [
        Place(
            generation_id,
            served_to,
            rank,
            score,
            _REASONS.get(reason, "popular"),
            None if title is None else because_id,
            title,
            *content.item_of(item),
            Opinion(*opinion),
        )
        for rank, score, reason, because_id, title, item, opinion in row.places or ()
    ]


def _newest(session: Session, viewer_id: UUID, after: int | None, limit: int) -> list[Place]:
    before, skip = (_ABOVE_ALL, 0) if after is None else divmod(after - _MARKS_OF_NEWEST, _RANKS)
    places = max(0, min(limit, _RANKS - 1 - skip))
    values = {"viewer_id": viewer_id, "before": before, "places": places}
    return [
        Place(
            NEWEST, 0, skip + n, 0.0, "new", None, None, *content.item_of(item), Opinion(*opinion)
        )
        for n, (item, opinion) in enumerate(session.scalar(_NEWEST, values) or (), start=1)
    ]


def _has_own(session: Session, user_id: UUID, generation: int | None) -> bool:
    found = session.scalar(
        select(Recommendation.rank).where(
            Recommendation.generation_id == (generation or generations.current_id()),
            Recommendation.user_id == user_id,
            Recommendation.rank == 1,
        )
    )
    return found is not None


def mark_served(session: Session, user_id: UUID, places: list[Place]) -> None:
    """Remember that a user was shown these; at most once a minute, unless they went further.

    In between nothing is asked, written or locked: the places tell what was served. And a write
    does not make the answer wait for the disk: losing it in a crash does no harm.
    """
    if not places or places[-1].generation_id == NEWEST:
        return
    last = places[-1]
    if last.served_to >= last.rank:
        return
    served = RecommendationServe
    new = insert(served).values(
        user_id=user_id, generation_id=last.generation_id, up_to_rank=last.rank
    )
    session.execute(
        new.on_conflict_do_update(
            index_elements=["user_id", "generation_id"],
            set_={
                "up_to_rank": func.greatest(served.up_to_rank, new.excluded.up_to_rank),
                "times": served.times + 1,
                "last_at": func.now(),
            },
            where=or_(
                served.up_to_rank < new.excluded.up_to_rank,
                served.last_at < func.now() - SERVED_AGAIN_AFTER,
            ),
        ).returning(func.set_config("synchronous_commit", "off", True))
    )
