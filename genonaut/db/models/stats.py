"""Counts of the collection, refreshed now and then."""

from datetime import date, datetime
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, String, func
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import Base


class ContentStat(Base):
    """How many items and images of one model a creator made on one day (UTC)."""

    __tablename__ = "content_stats"
    __table_args__ = (Index("ix_content_stats_day", "day"),)

    creator_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    model: Mapped[str] = mapped_column(String(255), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    items: Mapped[int] = mapped_column(BigInteger)
    images: Mapped[int] = mapped_column(BigInteger)
    public_items: Mapped[int] = mapped_column(BigInteger)
    public_images: Mapped[int] = mapped_column(BigInteger)
    refreshed_at: Mapped[datetime] = mapped_column(server_default=func.now())
