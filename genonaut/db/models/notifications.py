"""What users are told."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import EMPTY_OBJECT, Base, BigId, CreatedAt


class UserNotification(Base):
    """A fact a user hears of once: ``dedupe_key`` is unique per user."""

    __tablename__ = "user_notifications"
    __table_args__ = (
        UniqueConstraint("user_id", "dedupe_key"),
        Index("ix_user_notifications_user_id_id", "user_id", "id"),
        Index(
            "ix_user_notifications_unread",
            "user_id",
            "id",
            postgresql_where=text("read_at IS NULL"),
        ),
        # By age, for retention: read and unread ones have ages of their own.
        Index(
            "ix_user_notifications_read_at",
            "read_at",
            "id",
            postgresql_where=text("read_at IS NOT NULL"),
        ),
        Index(
            "ix_user_notifications_unread_created_at",
            "created_at",
            "id",
            postgresql_where=text("read_at IS NULL"),
        ),
    )

    id: Mapped[BigId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(50))
    dedupe_key: Mapped[str] = mapped_column(String(200))
    title: Mapped[str] = mapped_column(String(255))
    body: Mapped[str] = mapped_column(Text, server_default="")
    data: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    created_at: Mapped[CreatedAt]
    read_at: Mapped[datetime | None]
