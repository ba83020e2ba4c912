"""What was done to rows that were stuck."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import Base, BigId


class Repair(Base):
    """One act of a rule: on one row, or on ``count`` of them where none is named."""

    __tablename__ = "repairs"
    __table_args__ = (
        CheckConstraint("count >= 1", name="count"),
        Index("ix_repairs_at", "at"),
        Index("ix_repairs_kind_row_id", "kind", "row_id", "id"),
    )

    id: Mapped[BigId]
    at: Mapped[datetime] = mapped_column(server_default=func.now())
    rule: Mapped[str] = mapped_column(String(30))
    kind: Mapped[str] = mapped_column(String(20))
    row_id: Mapped[int | None] = mapped_column(BigInteger)
    count: Mapped[int] = mapped_column(server_default=text("1"))
    worker: Mapped[str | None] = mapped_column(String(255))
    became: Mapped[str] = mapped_column(String(20))
    why: Mapped[str] = mapped_column(Text)
