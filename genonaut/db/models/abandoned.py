"""Prompts left at a ComfyUI server that nobody waits for any more."""

from datetime import datetime

from sqlalchemy import Index, String, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import Base, BigId, CreatedAt


class AbandonedPrompt(Base):
    """A prompt to remove from a server, which may be away at the moment."""

    __tablename__ = "abandoned_prompts"
    __table_args__ = (
        UniqueConstraint("backend", "prompt_id"),
        Index("ix_abandoned_prompts_next_try_at", "next_try_at"),
    )

    id: Mapped[BigId]
    backend: Mapped[str] = mapped_column(String(255))
    prompt_id: Mapped[str] = mapped_column(String(255))
    tries: Mapped[int] = mapped_column(server_default="0")
    next_try_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[CreatedAt]
