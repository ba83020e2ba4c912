"""Add how users want to hear, where, and the messages that are sent there.

Revision ID: e4a17c60d2b8
Revises: e4a90c61d2b8
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "e4a17c60d2b8"
down_revision = "e4a90c61d2b8"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
EMPTY = sa.text("'{}'::jsonb")
FALSE = sa.text("false")


def upgrade() -> None:
    for column in (
        sa.Column("is_hidden", sa.Boolean(), server_default=FALSE, nullable=False),
        sa.Column("group_id", sa.BigInteger()),
        sa.Column("group_until", sa.DateTime(True)),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
    ):
        op.add_column("user_notifications", column)
    op.create_foreign_key(
        op.f("fk_user_notifications_group_id_user_notifications"),
        *("user_notifications", "user_notifications", ["group_id"], ["id"]),
        ondelete="CASCADE",
    )
    op.create_check_constraint(
        op.f("ck_user_notifications_hidden_is_read"),
        "user_notifications",
        "NOT is_hidden OR read_at IS NOT NULL",
    )
    op.create_index(
        "ix_user_notifications_group_id",
        "user_notifications",
        ["group_id"],
        postgresql_where=sa.text("group_id IS NOT NULL"),
    )
    op.create_index(
        "ix_user_notifications_open_groups",
        "user_notifications",
        ["user_id", "group_until"],
        postgresql_where=sa.text("group_until IS NOT NULL"),
    )
    create_preferences()
    create_addresses()
    create_deliveries()
    op.create_table(
        "signing_key",
        sa.Column(
            "id", sa.Integer(), autoincrement=False, server_default=sa.text("1"), nullable=False
        ),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_signing_key_single")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signing_key")),
    )


def create_preferences() -> None:
    op.create_table(
        "notification_preferences",
        sa.Column("user_id", UUID(as_uuid=True), nullable=False),
        sa.Column("choices", JSONB, server_default=EMPTY, nullable=False),
        sa.Column("timezone", sa.String(length=64), server_default="UTC", nullable=False),
        sa.Column("quiet_from", sa.Time()),
        sa.Column("quiet_until", sa.Time()),
        sa.Column("digest", sa.String(length=10), server_default="immediate", nullable=False),
        sa.Column("digest_hour", sa.Integer(), server_default="8", nullable=False),
        sa.Column("digested_on", sa.Date()),
        sa.Column("digested_to", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("group_window_s", sa.Integer(), server_default="0", nullable=False),
        sa.Column("updated_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "(quiet_from IS NULL) = (quiet_until IS NULL)",
            name=op.f("ck_notification_preferences_quiet_hours"),
        ),
        sa.CheckConstraint(
            "quiet_from <> quiet_until",
            name=op.f("ck_notification_preferences_quiet_hours_differ"),
        ),
        sa.CheckConstraint(
            "digest IN ('immediate', 'daily')", name=op.f("ck_notification_preferences_digest")
        ),
        sa.CheckConstraint(
            "digest_hour BETWEEN 0 AND 23", name=op.f("ck_notification_preferences_digest_hour")
        ),
        sa.CheckConstraint(
            "group_window_s BETWEEN 0 AND 3600",
            name=op.f("ck_notification_preferences_group_window_s"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_notification_preferences_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_notification_preferences")),
    )
    op.create_index(
        "ix_notification_preferences_daily",
        "notification_preferences",
        ["timezone", "digest_hour"],
        postgresql_where=sa.text("digest = 'daily'"),
    )


def create_addresses() -> None:
    op.create_table(
        "notification_addresses",
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", UUID(as_uuid=True), nullable=False),
        sa.Column("channel", sa.String(length=20), nullable=False),
        sa.Column("address", sa.String(length=2000), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("is_relayed", sa.Boolean(), server_default=FALSE, nullable=False),
        sa.Column("takes_digest", sa.Boolean(), server_default=FALSE, nullable=False),
        sa.Column("verified_at", sa.DateTime(True)),
        sa.Column("disabled_at", sa.DateTime(True)),
        sa.Column("disabled_reason", sa.String(length=300)),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("secret_version", sa.Integer(), server_default="1", nullable=False),
        sa.Column("rotated_at", sa.DateTime(True)),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.CheckConstraint(
            "(disabled_at IS NULL) = (disabled_reason IS NULL)",
            name=op.f("ck_notification_addresses_disabled_has_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_notification_addresses_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_addresses")),
        sa.UniqueConstraint(
            "user_id", "channel", name=op.f("uq_notification_addresses_user_id_channel")
        ),
    )


def create_deliveries() -> None:
    table = "notification_deliveries"
    op.create_table(
        table,
        sa.Column("id", sa.BigInteger(), sa.Identity(), nullable=False),
        sa.Column("user_id", UUID(as_uuid=True), nullable=False),
        sa.Column("notification_id", sa.BigInteger()),
        sa.Column("address_id", sa.BigInteger()),
        sa.Column("channel", sa.String(length=20), nullable=False),
        sa.Column("purpose", sa.String(length=20), server_default="notification", nullable=False),
        sa.Column("subject", sa.String(length=100), nullable=False),
        sa.Column("data", JSONB, server_default=EMPTY, nullable=False),
        sa.Column("message_id", sa.String(length=64), nullable=False),
        sa.Column("lane", sa.String(length=64), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("retry_of", sa.BigInteger()),
        sa.Column("status", sa.String(length=20), server_default="pending", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("max_attempts", sa.Integer(), server_default="10", nullable=False),
        sa.Column("available_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("lease_token", UUID(as_uuid=True)),
        sa.Column("lease_expires_at", sa.DateTime(True)),
        sa.Column("worker", sa.String(length=255)),
        sa.Column("celery_task_id", sa.String(length=255), nullable=False),
        sa.Column("dispatched_at", sa.DateTime(True)),
        sa.Column("dispatch_epoch", sa.String(length=36)),
        sa.Column("cancel_requested_at", sa.DateTime(True)),
        sa.Column("version", sa.BigInteger(), server_default="1", nullable=False),
        sa.Column("error_code", sa.String(length=50)),
        sa.Column("error_message", sa.Text()),
        sa.Column("created_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("updated_at", sa.DateTime(True), server_default=NOW, nullable=False),
        sa.Column("started_at", sa.DateTime(True)),
        sa.Column("completed_at", sa.DateTime(True)),
        sa.CheckConstraint(
            "status IN ('pending', 'running', 'completed', 'failed', 'cancelled', 'skipped')",
            name=op.f(f"ck_{table}_status"),
        ),
        sa.CheckConstraint(
            "purpose IN ('notification', 'digest', 'verification', 'test')",
            name=op.f(f"ck_{table}_purpose"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL)",
            name=op.f(f"ck_{table}_running_has_lease"),
        ),
        sa.CheckConstraint(
            "status <> 'failed' OR error_code IS NOT NULL",
            name=op.f(f"ck_{table}_failed_has_code"),
        ),
        sa.CheckConstraint(
            "attempt >= 0 AND attempt <= max_attempts", name=op.f(f"ck_{table}_attempt")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f(f"fk_{table}_user_id_users"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["notification_id"],
            ["user_notifications.id"],
            name=op.f(f"fk_{table}_notification_id_user_notifications"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["address_id"],
            ["notification_addresses.id"],
            name=op.f(f"fk_{table}_address_id_notification_addresses"),
            ondelete="SET NULL",
        ),
        sa.ForeignKeyConstraint(
            ["retry_of"],
            [f"{table}.id"],
            name=op.f(f"fk_{table}_retry_of_{table}"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}")),
        sa.UniqueConstraint("address_id", "subject", name=op.f(f"uq_{table}_address_id_subject")),
        postgresql_with={"fillfactor": "80"},
    )
    for name, columns, where in (
        ("lane", ["lane", "id"], "status = 'pending'"),
        ("unpublished", ["available_at"], "status = 'pending' AND dispatched_at IS NULL"),
        ("running", ["host", "lane"], "status = 'running'"),
        ("sent", ["address_id", "completed_at"], "status = 'completed'"),
        ("ended", ["channel", "completed_at"], None),
        ("notification_id", ["notification_id"], None),
        ("user_id_id", ["user_id", "id"], None),
        ("status_id", ["status", "id"], None),
        ("retry_of", ["retry_of"], None),
    ):
        condition = None if where is None else sa.text(where)
        op.create_index(f"ix_{table}_{name}", table, columns, postgresql_where=condition)


def downgrade() -> None:
    op.drop_table("signing_key")
    op.drop_table("notification_deliveries")
    op.drop_table("notification_addresses")
    op.drop_table("notification_preferences")
    # What is hidden has no place in the older inbox: its group or its owner's wish stands for it.
    op.execute("DELETE FROM user_notifications WHERE is_hidden")
    op.drop_index("ix_user_notifications_open_groups", "user_notifications")
    op.drop_index("ix_user_notifications_group_id", "user_notifications")
    op.drop_constraint("ck_user_notifications_hidden_is_read", "user_notifications")
    op.drop_constraint("fk_user_notifications_group_id_user_notifications", "user_notifications")
    for name in ("version", "group_until", "group_id", "is_hidden"):
        op.drop_column("user_notifications", name)
