"""Add repairs: what the reconciler did to rows that were stuck, and why.

Revision ID: e4a9c1d63f58
Revises: d7e2b84c9f16
"""

import sqlalchemy as sa
from alembic import op

revision = "e4a9c1d63f58"
down_revision = "d7e2b84c9f16"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "repairs",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("at", sa.DateTime(True), server_default=sa.text("now()"), nullable=False),
        sa.Column("rule", sa.String(length=30), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("row_id", sa.BigInteger()),
        sa.Column("count", sa.Integer(), server_default=sa.text("1"), nullable=False),
        sa.Column("worker", sa.String(length=255)),
        sa.Column("became", sa.String(length=20), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.CheckConstraint("count >= 1", name=op.f("ck_repairs_count")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_repairs")),
    )
    op.create_index("ix_repairs_at", "repairs", ["at"])
    op.create_index("ix_repairs_kind_row_id", "repairs", ["kind", "row_id", "id"])


def downgrade() -> None:
    op.drop_table("repairs")
