"""Accounts: users, API tokens, browser sessions and one-time tickets."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, func, text
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import Base, BigId, CreatedAt


class User(Base):
    """A person or program that signs in."""

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("role IN ('user', 'auditor', 'operator', 'admin')", name="role"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    username: Mapped[str] = mapped_column(String(50), unique=True)
    email: Mapped[str | None] = mapped_column(String(255), unique=True)
    role: Mapped[str] = mapped_column(String(20), server_default="user")
    is_active: Mapped[bool] = mapped_column(server_default=text("true"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class ApiToken(Base):
    """A bearer token; only its SHA-256 is kept."""

    __tablename__ = "api_tokens"
    __table_args__ = (Index("ix_api_tokens_ended_at", text("LEAST(revoked_at, expires_at)"), "id"),)

    id: Mapped[BigId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(String(100))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class LoginSession(Base):
    """A browser session (``session``), a login link (``login``) or a socket ticket (``ticket``).

    Links and tickets are deleted by their first use.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        CheckConstraint("kind IN ('session', 'login', 'ticket')", name="kind"),
        Index("ix_sessions_expires_at", "expires_at"),
    )

    id: Mapped[BigId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(20))
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
