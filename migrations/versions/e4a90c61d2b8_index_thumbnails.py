"""Find pictures by the state of their thumbnails, and by the files these are in.

Revision ID: e4a90c61d2b8
Revises: a41c7e0d93b8
"""

import sqlalchemy as sa
from alembic import op

revision = "e4a90c61d2b8"
down_revision = "a41c7e0d93b8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_content_images_thumb_missing",
        "content_images",
        ["id"],
        postgresql_where=sa.text("thumb_spec IS NULL AND thumb_error IS NULL"),
    )
    op.create_index(
        "ix_content_images_thumb_failed",
        "content_images",
        ["id"],
        postgresql_where=sa.text("thumb_error IS NOT NULL"),
    )
    op.create_index(
        "ix_content_images_thumb_spec",
        "content_images",
        ["thumb_spec"],
        postgresql_where=sa.text("thumb_spec IS NOT NULL AND thumb_error IS NULL"),
    )
    op.create_index(
        "ix_content_images_thumbnail_keys",
        "content_images",
        [sa.text("jsonb_path_query_array(thumbnails, '$.*.\"key\"'::jsonpath)")],
        postgresql_using="gin",
    )


def downgrade() -> None:
    for name in ("thumbnail_keys", "thumb_spec", "thumb_failed", "thumb_missing"):
        op.drop_index(f"ix_content_images_{name}", "content_images")
