"""Generation jobs and their attempts."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import EMPTY_OBJECT, Base, BigId, CreatedAt


class GenerationJob(Base):
    """A user's request for pictures, and where it stands.

    No index covers a column that a lease renewal or a progress write changes, so that both stay
    heap-only updates.
    """

    __tablename__ = "generation_jobs"
    __table_args__ = (
        CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled')", name="status"
        ),
        CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name="running_has_lease",
        ),
        CheckConstraint("status <> 'failed' OR error_code IS NOT NULL", name="failed_has_code"),
        CheckConstraint("attempt >= 0 AND attempt <= max_attempts", name="attempt"),
        Index("ix_generation_jobs_user_id_id", "user_id", "id"),
        Index(
            "ix_generation_jobs_unfinished",
            "user_id",
            "id",
            postgresql_where=text("status IN ('pending', 'running')"),
        ),
        Index("ix_generation_jobs_pending", "id", postgresql_where=text("status = 'pending'")),
        Index(
            "ix_generation_jobs_unpublished",
            "available_at",
            postgresql_where=text("status = 'pending' AND dispatched_at IS NULL"),
        ),
        Index("ix_generation_jobs_running", "id", postgresql_where=text("status = 'running'")),
        Index(
            "ix_generation_jobs_cancelling",
            "id",
            postgresql_where=text(
                "status IN ('pending', 'running') AND cancel_requested_at IS NOT NULL"
            ),
        ),
        Index("ix_generation_jobs_celery_task_id", "celery_task_id"),
        Index("ix_generation_jobs_comfyui_prompt_id", "comfyui_prompt_id"),
        Index("ix_generation_jobs_retry_of", "retry_of"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[BigId]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    job_type: Mapped[str] = mapped_column(String(50), server_default="image")
    prompt: Mapped[str] = mapped_column(Text)
    negative_prompt: Mapped[str | None] = mapped_column(Text)
    checkpoint_model: Mapped[str | None] = mapped_column(String(255))
    lora_models: Mapped[list[Any] | None]
    width: Mapped[int | None]
    height: Mapped[int | None]
    batch_size: Mapped[int] = mapped_column(server_default="1")
    params: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    content_id: Mapped[int | None] = mapped_column(
        ForeignKey("content_items.id", ondelete="SET NULL"), unique=True
    )
    retry_of: Mapped[int | None] = mapped_column(
        ForeignKey("generation_jobs.id", ondelete="SET NULL")
    )

    status: Mapped[str] = mapped_column(String(20), server_default="pending")
    attempt: Mapped[int] = mapped_column(server_default="0")
    max_attempts: Mapped[int] = mapped_column(server_default="4")
    collect_only: Mapped[bool] = mapped_column(server_default=text("false"))
    available_at: Mapped[datetime] = mapped_column(server_default=func.now())
    lease_token: Mapped[UUID | None]
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(String(255))

    celery_task_id: Mapped[str | None] = mapped_column(String(255))
    dispatched_at: Mapped[datetime | None]
    dispatch_epoch: Mapped[str | None] = mapped_column(String(36))

    backend: Mapped[str | None] = mapped_column(String(255))
    comfyui_prompt_id: Mapped[str | None] = mapped_column(String(255))
    execution_started_at: Mapped[datetime | None]
    waiting_since: Mapped[datetime | None]
    webhook_received_at: Mapped[datetime | None]

    cancel_requested_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    version: Mapped[int] = mapped_column(BigInteger, server_default="1")
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class JobAttempt(Base):
    """One claim of a job: who, when, and how it ended. The timeline's source."""

    __tablename__ = "job_attempts"
    __table_args__ = (
        CheckConstraint(
            "outcome IN ('completed', 'failed', 'retried', 'released', 'waiting', 'worker_lost',"
            " 'timed_out', 'cancelled')",
            name="outcome",
        ),
        CheckConstraint("(outcome IS NULL) = (ended_at IS NULL)", name="ended_has_outcome"),
        Index("ix_job_attempts_job_id_id", "job_id", "id"),
        Index(
            "ix_job_attempts_open", "job_id", unique=True, postgresql_where=text("ended_at IS NULL")
        ),
        Index(
            "ix_job_attempts_ended_at",
            "ended_at",
            "id",
            postgresql_where=text("ended_at IS NOT NULL"),
        ),
    )

    id: Mapped[BigId]
    job_id: Mapped[int] = mapped_column(ForeignKey("generation_jobs.id", ondelete="CASCADE"))
    number: Mapped[int]
    worker: Mapped[str] = mapped_column(String(255))
    lease_token: Mapped[UUID]
    backend: Mapped[str | None] = mapped_column(String(255))
    prompt_id: Mapped[str | None] = mapped_column(String(255))
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    ended_at: Mapped[datetime | None]
    outcome: Mapped[str | None] = mapped_column(String(20))
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)
