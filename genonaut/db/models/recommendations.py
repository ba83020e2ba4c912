"""What users did with pictures, and what they might like next."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Text,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import EMPTY_OBJECT, Base, BigId, CreatedAt


class UserInteraction(Base):
    """What a user did with an item: one row per kind, ``times`` counts repetitions.

    A like that was taken back has ``times`` 0, so that a refresh sees that something changed.
    """

    __tablename__ = "user_interactions"
    __table_args__ = (
        CheckConstraint(
            "kind IN ('view', 'like', 'rate', 'download', 'share', 'dismiss')", name="kind"
        ),
        CheckConstraint("(kind = 'rate') = (rating IS NOT NULL)", name="rating_of_rate"),
        CheckConstraint("rating BETWEEN 1 AND 5", name="rating"),
        CheckConstraint("times >= 0", name="times"),
        Index("ix_user_interactions_content_id", "content_id"),
        Index("ix_user_interactions_updated_at", "updated_at"),
    )

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    content_id: Mapped[int] = mapped_column(
        ForeignKey("content_items.id", ondelete="CASCADE"), primary_key=True
    )
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    rating: Mapped[int | None] = mapped_column(SmallInteger)
    times: Mapped[int] = mapped_column(server_default="1")
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RecommendationGeneration(Base):
    """One making of everyone's lists, and how good it was.

    Readers see the lists of the one that ``is_current``; those of the one before are kept to go
    back to. ``refreshed_to`` is up to when single users' lists were made anew since.
    """

    __tablename__ = "recommendation_generations"
    __table_args__ = (
        CheckConstraint(
            "NOT is_current OR (switched_at IS NOT NULL AND pruned_at IS NULL)",
            name="current_has_lists",
        ),
        Index(
            "uq_recommendation_generations_current",
            "is_current",
            unique=True,
            postgresql_where=text("is_current"),
        ),
        Index("ix_recommendation_generations_run_id", "run_id"),
    )

    id: Mapped[BigId]
    run_id: Mapped[int | None] = mapped_column(ForeignKey("task_runs.id", ondelete="SET NULL"))
    algorithm: Mapped[str] = mapped_column(String(50))
    fingerprint: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    evaluation: Mapped[dict[str, Any] | None]
    users: Mapped[int] = mapped_column(server_default="0")
    rows: Mapped[int] = mapped_column(BigInteger, server_default="0")
    is_current: Mapped[bool] = mapped_column(server_default=text("false"))
    refused: Mapped[str | None] = mapped_column(Text)
    as_of: Mapped[datetime]
    refreshed_to: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    switched_at: Mapped[datetime | None]
    pruned_at: Mapped[datetime | None]


class Recommendation(Base):
    """One place of a user's list.

    Lists are written by the hundred thousand and read by one index, which holds every column; so
    nothing here refers to another table, and what an item has become is looked up when it is read.
    ``because_id`` is 0 where no item is the reason.
    """

    __tablename__ = "recommendations"
    __table_args__ = (
        PrimaryKeyConstraint(
            "generation_id",
            "user_id",
            "rank",
            postgresql_include=["content_id", "score", "reason", "because_id"],
        ),
    )

    generation_id: Mapped[int] = mapped_column(BigInteger, autoincrement=False)
    user_id: Mapped[UUID]
    rank: Mapped[int] = mapped_column(SmallInteger, autoincrement=False)
    content_id: Mapped[int] = mapped_column(BigInteger)
    score: Mapped[float] = mapped_column(REAL)
    reason: Mapped[int] = mapped_column(SmallInteger)
    because_id: Mapped[int] = mapped_column(BigInteger, server_default="0")


class RecommendationServe(Base):
    """That a user was shown the list of a generation, how far and when."""

    __tablename__ = "recommendation_serves"

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    generation_id: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    up_to_rank: Mapped[int] = mapped_column(SmallInteger)
    times: Mapped[int] = mapped_column(server_default="1")
    first_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_at: Mapped[datetime] = mapped_column(server_default=func.now())
