"""Add the runs of tasks, the items they could not do, and the counts of the collection.

Revision ID: c0d5a91e7b24
Revises: b3f1c2a47d10
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "c0d5a91e7b24"
down_revision = "b3f1c2a47d10"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
EMPTY = sa.text("'{}'::jsonb")


def upgrade() -> None:
    op.create_table(
        "task_runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("task", sa.String(length=100), nullable=False),
        sa.Column("params", JSONB, server_default=EMPTY, nullable=False),
        sa.Column("dry_run", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("trigger", sa.String(length=20), nullable=False),
        sa.Column("actor", sa.String(length=100)),
        sa.Column("reason", sa.Text()),
        sa.Column("schedule", sa.String(length=100)),
        sa.Column("due_at", sa.DateTime(True)),
        sa.Column("covers", JSONB),
        sa.Column("overlap_key", sa.String(length=255)),
        sa.Column("held_back", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("parent_id", sa.BigInteger()),
        sa.Column("retry_of", sa.BigInteger()),
        sa.Column("status", sa.String(length=20), server_default="pending", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default="4", nullable=False),
        sa.Column("available_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("lease_token", UUID(as_uuid=True)),
        sa.Column("lease_expires_at", sa.DateTime(True)),
        sa.Column("worker", sa.String(length=255)),
        sa.Column("claimed_at", sa.DateTime(True)),
        sa.Column("queue", sa.String(length=50), nullable=False),
        sa.Column("celery_task_id", sa.String(length=255), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(True)),
        sa.Column("dispatch_epoch", sa.String(length=36)),
        sa.Column("cancel_requested_at", sa.DateTime(True)),
        sa.Column("progress", JSONB, server_default=EMPTY, nullable=False),
        sa.Column("checkpoint", JSONB),
        sa.Column("result", JSONB),
        sa.Column("failed_items", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("log_tail", JSONB, server_default=sa.text("'[]'::jsonb"), nullable=False),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("error_code", sa.String(length=50)),
        sa.Column("error_message", sa.Text()),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("started_at", sa.DateTime(True)),
        sa.Column("completed_at", sa.DateTime(True)),
        sa.CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f("ck_task_runs_running_has_lease"),
        ),
        sa.CheckConstraint(
            "status <> 'failed' OR error_code IS NOT NULL",
            name=op.f("ck_task_runs_failed_has_code"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'skipped')",
            name=op.f("ck_task_runs_status"),
        ),
        sa.CheckConstraint(
            "trigger IN ('manual', 'schedule', 'api', 'cli', 'system')",
            name=op.f("ck_task_runs_trigger"),
        ),
        sa.CheckConstraint(
            "(schedule IS NULL) = (due_at IS NULL)", name=op.f("ck_task_runs_schedule_has_due_time")
        ),
        sa.CheckConstraint(
            "NOT held_back OR overlap_key IS NOT NULL", name=op.f("ck_task_runs_held_back_has_key")
        ),
        sa.CheckConstraint(
            "attempt >= 0 AND attempt <= max_attempts", name=op.f("ck_task_runs_attempt")
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["task_runs.id"],
            name=op.f("fk_task_runs_parent_id_task_runs"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["retry_of"],
            ["task_runs.id"],
            name=op.f("fk_task_runs_retry_of_task_runs"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_task_runs")),
        sa.UniqueConstraint("schedule", "due_at", name=op.f("uq_task_runs_schedule_due_at")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        "ix_task_runs_cancelling",
        "task_runs",
        ["id"],
        postgresql_where=sa.text(
            "status IN ('pending', 'running') AND cancel_requested_at IS NOT NULL"
        ),
    )
    op.create_index("ix_task_runs_parent_id", "task_runs", ["parent_id"])
    op.create_index(
        "ix_task_runs_pending", "task_runs", ["id"], postgresql_where=sa.text("status = 'pending'")
    )
    op.create_index("ix_task_runs_retry_of", "task_runs", ["retry_of"])
    op.create_index(
        "ix_task_runs_running", "task_runs", ["id"], postgresql_where=sa.text("status = 'running'")
    )
    op.create_index("ix_task_runs_status_id", "task_runs", ["status", "id"])
    op.create_index("ix_task_runs_task_id", "task_runs", ["task", "id"])
    op.create_index(
        "ix_task_runs_unpublished",
        "task_runs",
        ["available_at"],
        postgresql_where=sa.text("status = 'pending' AND dispatched_at IS NULL AND NOT held_back"),
    )
    op.create_index(
        "uq_task_runs_active",
        "task_runs",
        ["task", "overlap_key"],
        unique=True,
        postgresql_where=sa.text("status IN ('pending', 'running') AND NOT held_back"),
    )
    op.create_index(
        "uq_task_runs_held_back",
        "task_runs",
        ["task", "overlap_key"],
        unique=True,
        postgresql_where=sa.text("status = 'pending' AND held_back"),
    )
    op.create_table(
        "content_stats",
        sa.Column("creator_id", UUID(as_uuid=True), nullable=False),
        sa.Column("model", sa.String(length=255), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("items", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("public_items", sa.BigInteger(), nullable=False),
        sa.Column("public_images", sa.BigInteger(), nullable=False),
        sa.Column("refreshed_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["creator_id"],
            ["users.id"],
            name=op.f("fk_content_stats_creator_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("creator_id", "model", "day", name=op.f("pk_content_stats")),
    )
    op.create_index("ix_content_stats_day", "content_stats", ["day"])
    op.create_table(
        "run_failures",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("ref", sa.String(length=255), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["task_runs.id"],
            name=op.f("fk_run_failures_run_id_task_runs"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run_failures")),
        sa.UniqueConstraint("run_id", "ref", name=op.f("uq_run_failures_run_id_ref")),
    )


def downgrade() -> None:
    op.drop_table("run_failures")
    op.drop_table("task_runs")
    op.drop_table("content_stats")
