"""What users are told, how they want to hear it, and each message that carries it to them."""

from datetime import date, datetime, time
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    String,
    Text,
    UniqueConstraint,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import EMPTY_OBJECT, Base, BigId, CreatedAt


class UserNotification(Base):
    """A fact a user hears of once: ``dedupe_key`` is unique per user.

    A hidden one is not in the inbox: its owner does not want the kind there, or it is told of by
    the notice of its group, ``group_id``. It counts as read. ``group_until`` is set on a notice
    that further facts may still join.
    """

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
        Index(
            "ix_user_notifications_group_id",
            "group_id",
            postgresql_where=text("group_id IS NOT NULL"),
        ),
        Index(
            "ix_user_notifications_open_groups",
            "user_id",
            "group_until",
            postgresql_where=text("group_until IS NOT NULL"),
        ),
        CheckConstraint("NOT is_hidden OR read_at IS NOT NULL", name="hidden_is_read"),
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
    is_hidden: Mapped[bool] = mapped_column(server_default=text("false"))
    group_id: Mapped[int | None] = mapped_column(BigInteger)
    group_until: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default="1")


class NotificationPreference(Base):
    """How a user wants to hear; a user without a row wants the defaults.

    ``choices`` maps a kind to what was chosen for channels: ``{"job_failed": {"email": true}}``.
    ``digested_on`` is the user's day whose digest was made, ``digested_to`` the last notification
    that was in one.
    """

    __tablename__ = "notification_preferences"
    __table_args__ = (
        CheckConstraint("(quiet_from IS NULL) = (quiet_until IS NULL)", name="quiet_hours"),
        CheckConstraint("quiet_from <> quiet_until", name="quiet_hours_differ"),
        CheckConstraint("digest IN ('immediate', 'daily')", name="digest"),
        CheckConstraint("digest_hour BETWEEN 0 AND 23", name="digest_hour"),
        CheckConstraint("group_window_s BETWEEN 0 AND 3600", name="group_window_s"),
        Index(
            "ix_notification_preferences_daily",
            "timezone",
            "digest_hour",
            postgresql_where=text("digest = 'daily'"),
        ),
    )

    user_id: Mapped[UUID] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    choices: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    timezone: Mapped[str] = mapped_column(String(64), server_default="UTC")
    quiet_from: Mapped[time | None]
    quiet_until: Mapped[time | None]
    digest: Mapped[str] = mapped_column(String(10), server_default="immediate")
    digest_hour: Mapped[int] = mapped_column(server_default="8")
    digested_on: Mapped[date | None]
    digested_to: Mapped[int] = mapped_column(BigInteger, server_default="0")
    group_window_s: Mapped[int] = mapped_column(server_default="0")
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class NotificationAddress(Base):
    """Where a channel reaches a user; nothing but its check is sent there until it is verified.

    A changed address is a new row: what was signed for or sent to the old one says nothing about
    the new. ``host`` is the machine that is spoken to; ``is_relayed`` says that it is our own
    relay, whatever the address. Secrets are not kept but derived (``domain/signing.py``), from
    ``secret_version`` among others; the one before it counts until a day after ``rotated_at``.
    """

    __tablename__ = "notification_addresses"
    __table_args__ = (
        UniqueConstraint("user_id", "channel"),
        CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)", name="disabled_has_reason"
        ),
    )

    id: Mapped[BigId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    channel: Mapped[str] = mapped_column(String(20))
    address: Mapped[str] = mapped_column(String(2000))
    host: Mapped[str] = mapped_column(String(255))
    is_relayed: Mapped[bool] = mapped_column(server_default=text("false"))
    takes_digest: Mapped[bool] = mapped_column(server_default=text("false"))
    verified_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None] = mapped_column(String(300))
    failures: Mapped[int] = mapped_column(server_default="0")
    secret_version: Mapped[int] = mapped_column(server_default="1")
    rotated_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class NotificationDelivery(Base):
    """One message to one address, from its planning to its end; the same states as a job.

    ``subject`` says what it tells, once per address. ``message_id`` stays the same however often
    it is sent, so that receivers can drop repeats. Deliveries of one ``lane`` are sent one after
    the other; one message at the broker wakes a lane.

    No index covers a column that a lease renewal changes.
    """

    __tablename__ = "notification_deliveries"
    __table_args__ = (
        CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'skipped')",
            name="status",
        ),
        CheckConstraint(
            "purpose IN ('notification', 'digest', 'verification', 'test')", name="purpose"
        ),
        CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="running_has_lease",
        ),
        CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="failed_has_code"),
        CheckConstraint("attempt >= 0 AND attempt <= max_attempts", name="attempt"),
        UniqueConstraint("address_id", "subject"),
        Index(
            "ix_notification_deliveries_lane",
            "lane",
            "id",
            postgresql_where=text("status = 'pending'"),
        ),
        Index(
            "ix_notification_deliveries_unpublished",
            "available_at",
            postgresql_where=text("status = 'pending' AND dispatched_at IS NULL"),
        ),
        Index(
            "ix_notification_deliveries_running",
            "id",
            postgresql_where=text("status = 'running'"),
        ),
        Index(
            "ix_notification_deliveries_sent",
            "address_id",
            "completed_at",
            postgresql_where=text("status = 'completed'"),
        ),
        Index("ix_notification_deliveries_ended", "channel", "completed_at"),
        Index(
            "ix_notification_deliveries_unbound",
            "completed_at",
            "id",
            postgresql_where=text("notification_id IS NULL AND completed_at IS NOT NULL"),
        ),
        Index("ix_notification_deliveries_notification_id", "notification_id"),
        Index("ix_notification_deliveries_user_id_id", "user_id", "id"),
        Index(
            "ix_notification_deliveries_failed", "id", postgresql_where=text("status = 'failed'")
        ),
        Index("ix_notification_deliveries_retry_of", "retry_of"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[BigId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    notification_id: Mapped[int | None] = mapped_column(
        ForeignKey("user_notifications.id", ondelete="CASCADE")
    )
    address_id: Mapped[int | None] = mapped_column(
        ForeignKey("notification_addresses.id", ondelete="SET NULL")
    )
    channel: Mapped[str] = mapped_column(String(20))
    purpose: Mapped[str] = mapped_column(String(20), server_default="notification")
    subject: Mapped[str] = mapped_column(String(100))
    data: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    message_id: Mapped[str] = mapped_column(String(64))
    lane: Mapped[str] = mapped_column(String(64))
    host: Mapped[str] = mapped_column(String(255))
    retry_of: Mapped[int | None] = mapped_column(
        ForeignKey("notification_deliveries.id", ondelete="SET NULL")
    )

    status: Mapped[str] = mapped_column(String(20), server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int] = mapped_column(server_default="10")
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(255))

    celery_task_id: Mapped[str] = mapped_column(String(255))
    dispatched_at: Mapped[datetime | None]
    dispatch_epoch: Mapped[str | None] = mapped_column(String(36))

    cancel_requested_at: Mapped[datetime | None]
    version: Mapped[int] = mapped_column(BigInteger, server_default="1")
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class SigningKey(Base):
    """The key of this installation, made on first use; for where no ``SECRET_KEY`` is set."""

    __tablename__ = "signing_key"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default="1")
    key: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[CreatedAt]
