"""Schedules: what runs by itself, and when next."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, String, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from genonaut.db.models.base import EMPTY_OBJECT, Base, CreatedAt


class Schedule(Base):
    """A task that runs at times given by a cron text, or by an interval from an anchor.

    ``next_due_at`` is NULL exactly while the schedule is disabled, for ``disabled_reason``; while
    it is paused, it stands still. ``code_default`` is what the code said when it was last
    synchronised, NULL if it says nothing; ``is_edited`` tells that an operator's values count
    instead. ``version`` counts edits, not firings.
    """

    __tablename__ = "schedules"
    __table_args__ = (
        CheckConstraint("(cron IS NULL) <> (every_s IS NULL)", name="cron_or_interval"),
        CheckConstraint("every_s >= 1", name="every_s"),
        CheckConstraint("source IN ('code', 'operator')", name="source"),
        CheckConstraint("overlap IN ('skip', 'wait', 'allow')", name="overlap"),
        CheckConstraint("missed IN ('run_once', 'skip')", name="missed"),
        CheckConstraint("late_limit_s >= 0 AND jitter_s >= 0", name="not_negative"),
        CheckConstraint(
            "(next_due_at IS NULL) = (disabled_reason IS NOT NULL)", name="due_or_disabled"
        ),
        CheckConstraint("(paused_at IS NULL) = (paused_by IS NULL)", name="paused_by_someone"),
        CheckConstraint("paused_until IS NULL OR paused_at IS NOT NULL", name="until_if_paused"),
        Index(
            "ix_schedules_next_due_at",
            "next_due_at",
            "name",
            postgresql_where=text("paused_at IS NULL AND next_due_at IS NOT NULL"),
        ),
        Index(
            "ix_schedules_paused_until",
            "paused_until",
            postgresql_where=text("paused_until IS NOT NULL"),
        ),
    )

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    task: Mapped[str] = mapped_column(String(100))
    params: Mapped[dict[str, Any]] = mapped_column(server_default=EMPTY_OBJECT)
    cron: Mapped[str | None] = mapped_column(String(255))
    every_s: Mapped[int | None]
    anchor_at: Mapped[datetime | None]
    timezone: Mapped[str] = mapped_column(String(64), server_default="UTC")
    overlap: Mapped[str | None] = mapped_column(String(10))
    missed: Mapped[str] = mapped_column(String(10), server_default="run_once")
    late_limit_s: Mapped[int] = mapped_column(server_default="300")
    jitter_s: Mapped[int] = mapped_column(server_default="0")
    next_due_at: Mapped[datetime | None]
    last_due_at: Mapped[datetime | None]

    source: Mapped[str] = mapped_column(String(10), server_default="operator")
    code_default: Mapped[dict[str, Any] | None]
    is_edited: Mapped[bool] = mapped_column(server_default=text("false"))
    disabled_reason: Mapped[str | None] = mapped_column(Text)
    paused_at: Mapped[datetime | None]
    paused_by: Mapped[str | None] = mapped_column(String(100))
    pause_reason: Mapped[str | None] = mapped_column(Text)
    paused_until: Mapped[datetime | None]

    version: Mapped[int] = mapped_column(BigInteger, server_default="1")
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class SchedulePause(Base):
    """The switch that pauses every schedule: one row while it is on."""

    __tablename__ = "schedule_pause"
    __table_args__ = (CheckConstraint("id = 1", name="single"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, server_default="1")
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paused_by: Mapped[str] = mapped_column(String(100))
    reason: Mapped[str | None] = mapped_column(Text)
    until: Mapped[datetime | None]
