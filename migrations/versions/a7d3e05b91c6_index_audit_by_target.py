"""Index the audit log by what was acted on.

Revision ID: a7d3e05b91c6
Revises: f2b81d07c9a4
"""

from alembic import op

revision = "a7d3e05b91c6"
down_revision = "f2b81d07c9a4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_audit_log_target_id", "audit_log", ["target", "id"])


def downgrade() -> None:
    op.drop_index("ix_audit_log_target_id", "audit_log")
