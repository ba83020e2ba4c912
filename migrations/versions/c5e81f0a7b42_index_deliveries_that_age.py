"""Index messages that stand for no notification by their end, which retention counts from.

Revision ID: c5e81f0a7b42
Revises: b3f9c2d86e15
"""

import sqlalchemy as sa
from alembic import op

revision = "c5e81f0a7b42"
down_revision = "b3f9c2d86e15"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_notification_deliveries_unbound",
        "notification_deliveries",
        ["completed_at", "id"],
        postgresql_where=sa.text("notification_id IS NULL AND completed_at IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_notification_deliveries_unbound", "notification_deliveries")
