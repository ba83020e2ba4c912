"""Index deliveries as they are looked for, and let groups of notifications go by age.

Revision ID: f2b81d07c9a4
Revises: e4c7a19d52b8
"""

import sqlalchemy as sa
from alembic import op

revision = "f2b81d07c9a4"
down_revision = "e4c7a19d52b8"
branch_labels = None
depends_on = None

TABLE = "notification_deliveries"
GROUP_KEY = "fk_user_notifications_group_id_user_notifications"


def upgrade() -> None:
    op.drop_index(f"ix_{TABLE}_running", TABLE)
    op.drop_index(f"ix_{TABLE}_status_id", TABLE)
    for status in ("running", "failed"):
        where = sa.text(f"status = '{status}'")
        op.create_index(f"ix_{TABLE}_{status}", TABLE, ["id"], postgresql_where=where)
    op.drop_constraint(GROUP_KEY, "user_notifications")


def downgrade() -> None:
    op.execute(
        """
        UPDATE user_notifications AS told SET group_id = NULL
        WHERE group_id IS NOT NULL
        AND NOT EXISTS (SELECT 1 FROM user_notifications WHERE id = told.group_id)
        """
    )
    op.create_foreign_key(
        GROUP_KEY,
        *("user_notifications", "user_notifications", ["group_id"], ["id"]),
        ondelete="CASCADE",
    )
    for status in ("running", "failed"):
        op.drop_index(f"ix_{TABLE}_{status}", TABLE)
    op.create_index(f"ix_{TABLE}_status_id", TABLE, ["status", "id"])
    where = sa.text("status = 'running'")
    op.create_index(f"ix_{TABLE}_running", TABLE, ["host", "lane"], postgresql_where=where)
