"""Read a user's list as it may be shown now, whatever became of its items since it was made."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Uuid, and_, func, literal, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session, aliased

from genonaut.db.models import ContentItem, Recommendation, RecommendationServe, UserInteraction
from genonaut.domain import recommendation_generations as generations
from genonaut.domain.interactions import Act
from genonaut.domain.recommendation_generations import EVERYONE

SERVED_AGAIN_AFTER_S = 60
NEWEST = 0
"""Stands for the generation where there are no lists yet, and the newest items are given."""

_RANKS = 10_000
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


@dataclass(frozen=True, slots=True)
class Place:
    """One item of a list, and why it is there. ``because_id`` is an item the user may see."""

    generation_id: int
    rank: int
    item: ContentItem
    score: float
    reason: str
    because_id: int | None = None
    because_title: str | None = None

    @property
    def words(self) -> str:
        """Say the reason to people."""
        if self.because_title and self.reason in _WORDS:
            return _WORDS[self.reason].format(self.because_title)
        return _ALONE[self.reason]

    @property
    def mark(self) -> int:
        """Name the place, to go on behind it even after newer lists were switched in."""
        return self.generation_id * _RANKS + self.rank


def read(
    session: Session, user_id: UUID, *, after: int | None = None, limit: int = 20
) -> list[Place]:
    """Give a user's list behind the place marked ``after``, best first.

    A user without a list gets what is popular; before the first refresh, what is newest. Items that
    are private, deleted or dismissed by now, and the user's own, are left out.
    """
    generation, rank = divmod(after, _RANKS) if after is not None else (None, 0)
    if generation == NEWEST:
        return _newest(session, user_id, rank, limit)
    own = _places(session, user_id, user_id, generation, rank, limit)
    if own or (rank and _has_own(session, user_id, generation)):
        return own
    popular = _places(session, EVERYONE, user_id, generation, rank, limit)
    return popular if popular or rank else _newest(session, user_id, 0, limit)


def _places(
    session: Session, whose: UUID, viewer_id: UUID, generation: int | None, rank: int, limit: int
) -> list[Place]:
    source = aliased(ContentItem)
    because_seen = and_(
        source.id == Recommendation.because_id,
        or_(~source.is_private, source.creator_id == viewer_id),
    )
    rows = session.execute(
        select(Recommendation, ContentItem, source.id.label("source_id"), source.title)
        .join(ContentItem, ContentItem.id == Recommendation.content_id)
        .join(source, because_seen, isouter=True)
        .where(
            Recommendation.generation_id == (generation or generations.current_id()),
            Recommendation.user_id == whose,
            Recommendation.rank > rank,
            *_showable(viewer_id),
        )
        .order_by(Recommendation.rank)
        .limit(limit)
    )
    return [
        Place(
            place.generation_id,
            place.rank,
            item,
            place.score,
            _REASONS.get(place.reason, "popular"),
            source_id,
            title,
        )
        for place, item, source_id, title in rows
    ]


def _newest(session: Session, viewer_id: UUID, skip: int, limit: int) -> list[Place]:
    items = session.scalars(
        select(ContentItem)
        .where(*_showable(viewer_id))
        .order_by(ContentItem.id.desc())
        .offset(skip)
        .limit(max(0, min(limit, _RANKS - 1 - skip)))
    )
    return [Place(NEWEST, skip + n, item, 0.0, "new") for n, item in enumerate(items, start=1)]


def _showable(viewer_id: UUID) -> tuple[ColumnElement[bool], ...]:
    dismissed = select(UserInteraction.content_id).where(
        UserInteraction.user_id == viewer_id,
        UserInteraction.content_id == ContentItem.id,
        UserInteraction.kind == Act.DISMISS,
        UserInteraction.times > 0,
    )
    return (~ContentItem.is_private, ContentItem.creator_id != viewer_id, ~dismissed.exists())


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

    In between nothing is written, not even a lock: reading again costs a look at one row. And a
    write does not make the answer wait for the disk: losing it in a crash does no harm.
    """
    if not places or places[-1].generation_id == NEWEST:
        return
    last = places[-1]
    served = RecommendationServe
    lately = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, SERVED_AGAIN_AFTER_S)
    known = select(served.user_id).where(
        served.user_id == user_id,
        served.generation_id == last.generation_id,
        served.up_to_rank >= last.rank,
        served.last_at >= lately,
    )
    new = insert(served).from_select(
        ["user_id", "generation_id", "up_to_rank"],
        select(literal(user_id, Uuid()), literal(last.generation_id), literal(last.rank)).where(
            ~known.exists()
        ),
    )
    session.execute(
        new.on_conflict_do_update(
            index_elements=["user_id", "generation_id"],
            set_={
                "up_to_rank": func.greatest(served.up_to_rank, new.excluded.up_to_rank),
                "times": served.times + 1,
                "last_at": func.now(),
            },
            where=or_(served.up_to_rank < new.excluded.up_to_rank, served.last_at < lately),
        ).returning(func.set_config("synchronous_commit", "off", True))
    )
