"""Runs of maintenance tasks, and the items they could not do."""

from datetime import datetime
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


class TaskRun(Base):
    """One run of a task: what was asked, who asked, how far it is and how it ended.

    Runs that must not overlap share an ``overlap_key``: one of them is active (pending or
    running) and one more may be ``held_back`` until that one has ended. A due time of a schedule
    has one run; ``covers`` lists the due times passed over before it, which it stands for.

    No index covers a column that a lease renewal or a progress write changes, so that both stay
    heap-only updates.
    """

    __tablename__ = "task_runs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'skipped')",
            name="status",
        ),
        CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="running_has_lease",
        ),
        CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="failed_has_code"),
        CheckConstraint("attempt >= 0 AND attempt <= max_attempts", name="attempt"),
        CheckConstraint(
            "trigger IN ('manual', 'schedule', 'api', 'cli', 'system')", name="trigger"
        ),
        CheckConstraint("(schedule IS NULL) = (due_at IS NULL)", name="schedule_has_due_time"),
        CheckConstraint("NOT held_back OR overlap_key IS NOT NULL", name="held_back_has_key"),
        UniqueConstraint("schedule", "due_at"),
        Index(
            "uq_task_runs_active",
            "task",
            "overlap_key",
            unique=True,
            postgresql_where=text("status IN ('pending', 'running') AND NOT held_back"),
        ),
        Index(
            "uq_task_runs_held_back",
            "task",
            "overlap_key",
            unique=True,
            postgresql_where=text("status = 'pending' AND held_back"),
        ),
        Index("ix_task_runs_task_id", "task", "id"),
        Index("ix_task_runs_status_id", "status", "id"),
        Index("ix_task_runs_pending", "id", postgresql_where=text("status = 'pending'")),
        Index(
            "ix_task_runs_unpublished",
            "available_at",
            postgresql_where=text("status = 'pending' AND dispatched_at IS NULL AND NOT held_back"),
        ),
        Index("ix_task_runs_running", "id", postgresql_where=text("status = 'running'")),
        Index(
            "ix_task_runs_cancelling",
            "id",
            postgresql_where=text(
                "status IN ('pending', 'running') AND cancel_requested_at IS NOT NULL"
            ),
        ),
        Index("ix_task_runs_parent_id", "parent_id"),
        Index("ix_task_runs_retry_of", "retry_of"),
        Index(
            "ix_task_runs_completed_at",
            "completed_at",
            "id",
            postgresql_where=text("completed_at IS NOT NULL"),
        ),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[BigId]
    task: Mapped[str] = mapped_column(String(100))
    params: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    dry_run: Mapped[bool] = mapped_column(server_default=text("false"))
    trigger: Mapped[str] = mapped_column(String(20))
    actor: Mapped[str | None] = mapped_column(String(100))
    reason: Mapped[str | None] = mapped_column(Text)
    schedule: Mapped[str | None] = mapped_column(String(100))
    due_at: Mapped[datetime | None]
    covers: Mapped[list[Any] | None]
    overlap_key: Mapped[str | None] = mapped_column(String(255))
    held_back: Mapped[bool] = mapped_column(server_default=text("false"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("task_runs.id", ondelete="SET NULL"))
    retry_of: Mapped[int | None] = mapped_column(ForeignKey("task_runs.id", ondelete="SET NULL"))

    status: Mapped[str] = mapped_column(String(20), server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int] = mapped_column(server_default="4")
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(255))
    claimed_at: Mapped[datetime | None]

    queue: Mapped[str] = mapped_column(String(50))
    celery_task_id: Mapped[str] = mapped_column(String(255))
    dispatched_at: Mapped[datetime | None]
    dispatch_epoch: Mapped[str | None] = mapped_column(String(36))

    cancel_requested_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    checkpoint: Mapped[dict[str, Any] | None]
    result: Mapped[dict[str, Any] | None]
    failed_items: Mapped[int] = mapped_column(BigInteger, server_default="0")
    log_tail: Mapped[list[Any]] = mapped_column(server_default=text("'[]'::jsonb"))
    version: Mapped[int] = mapped_column(BigInteger, server_default="1")
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class RunFailure(Base):
    """An item that a run could not do; the run went on."""

    __tablename__ = "run_failures"
    __table_args__ = (UniqueConstraint("run_id", "ref"),)

    id: Mapped[BigId]
    run_id: Mapped[int] = mapped_column(ForeignKey("task_runs.id", ondelete="CASCADE"))
    ref: Mapped[str] = mapped_column(String(255))
    error: Mapped[str] = mapped_column(Text)
    created_at: Mapped[CreatedAt]
