"""Index the moments that retention counts ages from.

Revision ID: a41c7e0d93b8
Revises: e4a9c1d63f58
"""

import sqlalchemy as sa
from alembic import op

revision = "a41c7e0d93b8"
down_revision = "e4a9c1d63f58"
branch_labels = None
depends_on = None

INDEXES = (
    ("user_notifications", "ix_user_notifications_read_at", "read_at", "read_at IS NOT NULL"),
    (
        "user_notifications",
        "ix_user_notifications_unread_created_at",
        "created_at",
        "read_at IS NULL",
    ),
    ("job_attempts", "ix_job_attempts_ended_at", "ended_at", "ended_at IS NOT NULL"),
    ("task_runs", "ix_task_runs_completed_at", "completed_at", "completed_at IS NOT NULL"),
    ("audit_log", "ix_audit_log_at_id", "at", None),
    ("api_tokens", "ix_api_tokens_ended_at", sa.text("LEAST(revoked_at, expires_at)"), None),
)


def upgrade() -> None:
    for table, name, moment, where in INDEXES:
        condition = sa.text(where) if where else None
        op.create_index(name, table, [moment, "id"], postgresql_where=condition)


def downgrade() -> None:
    for table, name, _, _ in reversed(INDEXES):
        op.drop_index(name, table_name=table)
