"""Add schedules, and the switch that pauses them all.

Revision ID: d7e2b84c9f16
Revises: c0d5a91e7b24
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "d7e2b84c9f16"
down_revision = "c0d5a91e7b24"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
EMPTY = sa.text("'{}'::jsonb")


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("params", JSONB, server_default=EMPTY, nullable=False),
        sa.Column("cron", sa.String(length=255)),
        sa.Column("every_s", sa.Integer()),
        sa.Column("anchor_at", sa.DateTime(True)),
        sa.Column("timezone", sa.String(length=64), server_default="UTC", nullable=False),
        sa.Column("overlap", sa.String(length=10)),
        sa.Column("missed", sa.String(length=10), server_default="run_once", nullable=False),
        sa.Column("late_limit_s", sa.Integer(), server_default="300", nullable=False),
        sa.Column("jitter_s", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_due_at", sa.DateTime(True)),
        sa.Column("last_due_at", sa.DateTime(True)),
        sa.Column("source", sa.String(length=10), server_default="operator", nullable=False),
        sa.Column("code_default", JSONB),
        sa.Column("is_edited", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("disabled_reason", sa.Text()),
        sa.Column("paused_at", sa.DateTime(True)),
        sa.Column("paused_by", sa.String(length=100)),
        sa.Column("pause_reason", sa.Text()),
        sa.Column("paused_until", sa.DateTime(True)),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "(cron IS NULL) <> (every_s IS NULL)", name=op.f("ck_schedules_cron_or_interval")
        ),
        sa.CheckConstraint("every_s >= 1", name=op.f("ck_schedules_every_s")),
        sa.CheckConstraint("source IN ('code', 'operator')", name=op.f("ck_schedules_source")),
        sa.CheckConstraint(
            "overlap IN ('skip', 'wait', 'allow')", name=op.f("ck_schedules_overlap")
        ),
        sa.CheckConstraint("missed IN ('run_once', 'skip')", name=op.f("ck_schedules_missed")),
        sa.CheckConstraint(
            "late_limit_s >= 0 AND jitter_s >= 0", name=op.f("ck_schedules_not_negative")
        ),
        sa.CheckConstraint(
            "(next_due_at IS NULL) = (disabled_reason IS NOT NULL)",
            name=op.f("ck_schedules_due_or_disabled"),
        ),
        sa.CheckConstraint(
            "(paused_at IS NULL) = (paused_by IS NULL)",
            name=op.f("ck_schedules_paused_by_someone"),
        ),
        sa.CheckConstraint(
            "paused_until IS NULL OR paused_at IS NOT NULL",
            name=op.f("ck_schedules_until_if_paused"),
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_schedules")),
    )
    op.create_index(
        "ix_schedules_next_due_at",
        "schedules",
        ["next_due_at", "name"],
        postgresql_where=sa.text("paused_at IS NULL AND next_due_at IS NOT NULL"),
    )
    op.create_index(
        "ix_schedules_paused_until",
        "schedules",
        ["paused_until"],
        postgresql_where=sa.text("paused_until IS NOT NULL"),
    )
    op.create_table(
        "schedule_pause",
        sa.Column(
            "id", sa.Integer(), autoincrement=False, server_default=sa.text("1"), nullable=False
        ),
        sa.Column("paused_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("paused_by", sa.String(length=100), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("until", sa.DateTime(True)),
        sa.CheckConstraint("id = 1", name=op.f("ck_schedule_pause_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule_pause")),
    )


def downgrade() -> None:
    op.drop_table("schedule_pause")
    op.drop_table("schedules")
