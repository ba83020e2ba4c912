"""What the platform keeps for itself: idempotency keys, audit, heartbeats, seen webhooks."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import EMPTY_OBJECT, Base, BigId, CreatedAt


class IdempotencyKey(Base):
    """The answer given to a creating request, to give again when it is repeated."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_expires_at", "expires_at"),)

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_hash: Mapped[str] = mapped_column(String(64))
    status_code: Mapped[int]
    location: Mapped[str | None] = mapped_column(String(255))
    answer: Mapped[dict[str, Any]]
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]


class AuditEntry(Base):
    """Who did what; written in the transaction of the act, never changed."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_actor_id_id", "actor_id", "id"),
        Index("ix_audit_log_at_id", "at", "id"),
        Index("ix_audit_log_target_id", "target", "id"),
    )

    id: Mapped[BigId]
    at: Mapped[CreatedAt]
    actor_id: Mapped[UUID | None]
    actor: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(100))
    target: Mapped[str] = mapped_column(String(255))
    details: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)


class Heartbeat(Base):
    """A process that is alive: health is read from here, never asked of Celery."""

    __tablename__ = "heartbeats"
    __table_args__ = (Index("ix_heartbeats_seen_at", "seen_at"),)

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    info: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)


class WebhookReceipt(Base):
    """A signed webhook seen before: its repetition within the window is refused."""

    __tablename__ = "webhook_receipts"
    __table_args__ = (Index("ix_webhook_receipts_received_at", "received_at"),)

    signature: Mapped[str] = mapped_column(String(64), primary_key=True)
    received_at: Mapped[CreatedAt]
