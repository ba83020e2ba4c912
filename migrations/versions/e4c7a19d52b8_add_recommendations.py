"""Add what users did with pictures, and what they might like next.

Revision ID: e4c7a19d52b8
Revises: e4a17c60d2b8
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "e4c7a19d52b8"
down_revision = "e4a17c60d2b8"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
EMPTY = sa.text("'{}'::jsonb")


def upgrade() -> None:
    op.create_table(
        "user_interactions",
        sa.Column("user_id", UUID(as_uuid=True), nullable=False),
        sa.Column("content_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("rating", sa.SmallInteger()),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "kind IN ('view', 'like', 'rate', 'download', 'share', 'dismiss')",
            name=op.f("ck_user_interactions_kind"),
        ),
        sa.CheckConstraint(
            "(kind = 'rate') = (rating IS NOT NULL)",
            name=op.f("ck_user_interactions_rating_of_rate"),
        ),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name=op.f("ck_user_interactions_rating")),
        sa.CheckConstraint("times >= 0", name=op.f("ck_user_interactions_times")),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_user_interactions_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["content_id"],
            ["content_items.id"],
            name=op.f("fk_user_interactions_content_id_content_items"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "content_id", "kind", name="pk_user_interactions"),
    )
    op.create_index("ix_user_interactions_content_id", "user_interactions", ["content_id"])
    op.create_index("ix_user_interactions_updated_at", "user_interactions", ["updated_at"])
    op.create_table(
        "recommendation_generations",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("run_id", sa.BigInteger()),
        sa.Column("algorithm", sa.String(length=50), nullable=False),
        sa.Column("fingerprint", JSONB, server_default=EMPTY, nullable=False),
        sa.Column("evaluation", JSONB),
        sa.Column("users", sa.Integer(), server_default="0", nullable=False),
        sa.Column("rows", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("is_current", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("refused", sa.Text()),
        sa.Column("as_of", sa.DateTime(True), nullable=False),
        sa.Column("refreshed_to", sa.DateTime(True)),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("switched_at", sa.DateTime(True)),
        sa.Column("pruned_at", sa.DateTime(True)),
        sa.CheckConstraint(
            "NOT is_current OR (switched_at IS NOT NULL AND pruned_at IS NULL)",
            name=op.f("ck_recommendation_generations_current_has_lists"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"],
            ["task_runs.id"],
            name=op.f("fk_recommendation_generations_run_id_task_runs"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recommendation_generations")),
    )
    op.create_index(
        "uq_recommendation_generations_current",
        "recommendation_generations",
        ["is_current"],
        unique=True,
        postgresql_where=sa.text("is_current"),
    )
    op.create_index(
        "ix_recommendation_generations_run_id", "recommendation_generations", ["run_id"]
    )
    op.create_table(
        "recommendations",
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", UUID(as_uuid=True), nullable=False),
        sa.Column("rank", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("content_id", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.REAL(), nullable=False),
        sa.Column("reason", sa.SmallInteger(), nullable=False),
        sa.Column("because_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint(
            "generation_id",
            "user_id",
            "rank",
            name="pk_recommendations",
            postgresql_include=["content_id", "score", "reason", "because_id"],
        ),
    )
    op.create_table(
        "recommendation_serves",
        sa.Column("user_id", UUID(as_uuid=True), nullable=False),
        sa.Column("generation_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("up_to_rank", sa.SmallInteger(), nullable=False),
        sa.Column("times", sa.Integer(), server_default="1", nullable=False),
        sa.Column("first_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("last_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_recommendation_serves_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "generation_id", name="pk_recommendation_serves"),
    )


def downgrade() -> None:
    op.drop_table("recommendation_serves")
    op.drop_table("recommendations")
    op.drop_table("recommendation_generations")
    op.drop_table("user_interactions")
