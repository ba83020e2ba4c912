"""What was made: content items and their images."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import EMPTY_OBJECT, Base, BigId, CreatedAt


class ContentItem(Base):
    """One job's result: one item, one or more images."""

    __tablename__ = "content_items"
    __table_args__ = (
        Index("ix_content_items_creator_id_id", "creator_id", "id"),
        Index("ix_content_items_created_at", "created_at"),
        Index("ix_content_items_public", "id", postgresql_where=text("NOT is_private")),
    )

    id: Mapped[BigId]
    title: Mapped[str] = mapped_column(String(255))
    content_type: Mapped[str] = mapped_column(String(50), server_default="image")
    prompt: Mapped[str | None] = mapped_column(Text)
    creator_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    is_private: Mapped[bool] = mapped_column(server_default=text("false"))
    quality_score: Mapped[float | None]
    item_metadata: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ContentImage(Base):
    """One picture of an item, with its thumbnails.

    ``thumbnails`` maps the edge in pixels (of WebP; ``512.avif`` of other formats) to ``{"key",
    "width", "height", "bytes"}``; ``thumb_spec`` is the hash of the settings that made them. While
    it is NULL they are missing. With a ``thumb_error`` the last try has failed, and what there is
    comes from an earlier one.
    """

    __tablename__ = "content_images"
    __table_args__ = (
        UniqueConstraint("content_id", "position"),
        Index("ix_content_images_sha256", "sha256"),
        Index(
            "ix_content_images_thumb_missing",
            "id",
            postgresql_where=text("thumb_spec IS NULL AND thumb_error IS NULL"),
        ),
        Index(
            "ix_content_images_thumb_failed",
            "id",
            postgresql_where=text("thumb_error IS NOT NULL"),
        ),
        Index(
            "ix_content_images_thumb_spec",
            "thumb_spec",
            postgresql_where=text("thumb_spec IS NOT NULL AND thumb_error IS NULL"),
        ),
        Index(
            "ix_content_images_thumbnail_keys",
            text("jsonb_path_query_array(thumbnails, '$.*.\"key\"'::jsonpath)"),
            postgresql_using="gin",
        ),
    )

    id: Mapped[BigId]
    content_id: Mapped[int] = mapped_column(ForeignKey("content_items.id", ondelete="CASCADE"))
    position: Mapped[int]
    storage_key: Mapped[str] = mapped_column(String(255))
    sha256: Mapped[str] = mapped_column(String(64))
    mime: Mapped[str] = mapped_column(String(50))
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int]
    thumbnails: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    thumb_spec: Mapped[str | None] = mapped_column(String(32))
    thumb_error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
