"""Index items by when they were made, for the gallery of some days.

Revision ID: b3f9c2d86e15
Revises: a7d3e05b91c6
"""

from alembic import op

revision = "b3f9c2d86e15"
down_revision = "a7d3e05b91c6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_content_items_created_at", "content_items", ["created_at"])


def downgrade() -> None:
    op.drop_index("ix_content_items_created_at", "content_items")
