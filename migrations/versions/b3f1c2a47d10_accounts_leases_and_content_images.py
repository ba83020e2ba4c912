"""Add accounts, leases, attempts, images, notifications and the platform's own tables.

Times become aware (they were UTC without saying so) and ids become 64 bits. A job of a kind that
the platform does not run, or of a status that it does not know, ends as ``failed`` with the reason;
a downgrade undoes that. Going down, empty metadata of a content item becomes NULL, users without an
address get ``<name>@invalid``, and what only the new tables hold is gone.

Revision ID: b3f1c2a47d10
Revises: 9872ef1e50c3
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "b3f1c2a47d10"
down_revision = "9872ef1e50c3"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
EMPTY = sa.text("'{}'::jsonb")
TIMES = {
    "users": ("created_at", "updated_at"),
    "content_items": ("created_at", "updated_at"),
    "generation_jobs": ("created_at", "updated_at", "started_at", "completed_at"),
}
STATUSES = "('pending', 'running', 'completed', 'failed', 'cancelled')"


def job_columns() -> tuple[sa.Column, ...]:
    # Made anew for each use: a column belongs to one table.
    return (
        sa.Column("retry_of", sa.BigInteger),
        sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
        sa.Column("max_attempts", sa.Integer, nullable=False, server_default="4"),
        sa.Column("collect_only", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("available_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("lease_token", UUID(as_uuid=True)),
        sa.Column("lease_expires_at", sa.DateTime(True)),
        sa.Column("worker", sa.String(255)),
        sa.Column("dispatched_at", sa.DateTime(True)),
        sa.Column("dispatch_epoch", sa.String(36)),
        sa.Column("backend", sa.String(255)),
        sa.Column("execution_started_at", sa.DateTime(True)),
        sa.Column("waiting_since", sa.DateTime(True)),
        sa.Column("webhook_received_at", sa.DateTime(True)),
        sa.Column("cancel_requested_at", sa.DateTime(True)),
        sa.Column("progress", JSONB, nullable=False, server_default=EMPTY),
        sa.Column("version", sa.BigInteger, nullable=False, server_default="1"),
        sa.Column("error_code", sa.String(50)),
    )


JOB_CHECKS = {
    "status": f"status IN {STATUSES}",
    "running_has_lease": (
        "(status = 'running') = (lease_token IS NOT NULL AND lease_expires_at IS NOT NULL)"
    ),
    "failed_has_code": "status <> 'failed' OR error_code IS NOT NULL",
    "attempt": "attempt >= 0 AND attempt <= max_attempts",
}
JOB_INDEXES = {
    "ix_generation_jobs_user_id_id": (["user_id", "id"], None),
    "ix_generation_jobs_unfinished": (["user_id", "id"], "status IN ('pending', 'running')"),
    "ix_generation_jobs_pending": (["id"], "status = 'pending'"),
    "ix_generation_jobs_unpublished": (
        ["available_at"],
        "status = 'pending' AND dispatched_at IS NULL",
    ),
    "ix_generation_jobs_running": (["id"], "status = 'running'"),
    "ix_generation_jobs_cancelling": (
        ["id"],
        "status IN ('pending', 'running') AND cancel_requested_at IS NOT NULL",
    ),
    "ix_generation_jobs_retry_of": (["retry_of"], None),
}


def upgrade() -> None:
    _users()
    _content()
    _jobs()
    _attempts()
    _notifications()
    _platform()


def _aware(table: str) -> None:
    for column in TIMES[table]:
        op.execute(
            f"ALTER TABLE {table} ALTER COLUMN {column} TYPE timestamptz"
            f" USING {column} AT TIME ZONE 'UTC'"
        )
    op.alter_column(table, "created_at", server_default=NOW)
    op.alter_column(table, "updated_at", server_default=NOW)


def _users() -> None:
    _aware("users")
    op.alter_column("users", "id", server_default=sa.text("gen_random_uuid()"))
    op.alter_column("users", "email", nullable=True)
    op.alter_column("users", "is_active", server_default=sa.text("true"))
    op.add_column("users", sa.Column("role", sa.String(20), nullable=False, server_default="user"))
    op.create_check_constraint(
        op.f("ck_users_role"), "users", "role IN ('user', 'auditor', 'operator', 'admin')"
    )
    op.create_table(
        "api_tokens",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _user_id(),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("expires_at", sa.DateTime(True)),
        sa.Column("last_used_at", sa.DateTime(True)),
        sa.Column("revoked_at", sa.DateTime(True)),
    )
    op.create_index("ix_api_tokens_user_id", "api_tokens", ["user_id"])
    op.create_table(
        "sessions",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _user_id(),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False, unique=True),
        sa.Column("created_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("expires_at", sa.DateTime(True), nullable=False),
        sa.CheckConstraint("kind IN ('session', 'login', 'ticket')", name=op.f("ck_sessions_kind")),
    )
    op.create_index("ix_sessions_user_id", "sessions", ["user_id"])
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])


def _user_id() -> sa.Column[sa.Uuid]:
    return sa.Column(
        "user_id",
        UUID(as_uuid=True),
        sa.ForeignKey("users.id", ondelete="CASCADE"),
        nullable=False,
    )


def _content() -> None:
    _aware("content_items")
    op.alter_column("content_items", "id", type_=sa.BigInteger)
    op.alter_column("content_items", "content_type", server_default="image")
    op.alter_column("content_items", "is_private", server_default=sa.text("false"))
    op.execute(
        """
        UPDATE content_items SET item_metadata =
            CASE WHEN jsonb_typeof(item_metadata) = 'object' THEN item_metadata
                 WHEN item_metadata IS NULL THEN '{}'::jsonb
                 ELSE jsonb_build_object('legacy_metadata', item_metadata) END
            || jsonb_build_object('legacy_data', content_data)
        """
    )
    op.alter_column("content_items", "item_metadata", nullable=False, server_default=EMPTY)
    op.drop_column("content_items", "content_data")
    op.create_index("ix_content_items_creator_id_id", "content_items", ["creator_id", "id"])
    op.create_index(
        "ix_content_items_public",
        "content_items",
        ["id"],
        postgresql_where=sa.text("NOT is_private"),
    )
    op.create_table(
        "content_images",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column(
            "content_id",
            sa.BigInteger,
            sa.ForeignKey("content_items.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("storage_key", sa.String(255), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("mime", sa.String(50), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("bytes", sa.Integer, nullable=False),
        sa.Column("thumbnails", JSONB, nullable=False, server_default=EMPTY),
        sa.Column("thumb_spec", sa.String(32)),
        sa.Column("thumb_error", sa.Text),
        sa.Column("created_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.UniqueConstraint("content_id", "position"),
    )
    op.create_index("ix_content_images_sha256", "content_images", ["sha256"])


def _jobs() -> None:
    _aware("generation_jobs")
    op.alter_column("generation_jobs", "id", type_=sa.BigInteger)
    op.alter_column("generation_jobs", "content_id", type_=sa.BigInteger)
    for column in job_columns():
        op.add_column("generation_jobs", column)
    op.execute("UPDATE generation_jobs SET params = '{}'::jsonb WHERE params IS NULL")
    op.alter_column("generation_jobs", "params", nullable=False, server_default=EMPTY)
    op.execute("UPDATE generation_jobs SET batch_size = 1 WHERE batch_size IS NULL")
    op.alter_column("generation_jobs", "batch_size", nullable=False, server_default="1")
    op.alter_column("generation_jobs", "job_type", server_default="image")
    op.alter_column("generation_jobs", "status", server_default="pending")
    op.execute(
        f"""
        UPDATE generation_jobs SET status = 'failed', error_code = 'unknown_status',
            error_message = 'an upgrade met a status it does not know: ' || status,
            completed_at = coalesce(completed_at, updated_at)
        WHERE status NOT IN {STATUSES}
        """
    )
    op.execute(
        """
        UPDATE generation_jobs SET status = 'failed', error_code = 'unsupported_job_type',
            error_message = 'jobs of type ' || job_type || ' are not run any more',
            completed_at = now()
        WHERE status IN ('pending', 'running') AND job_type <> 'image'
        """
    )
    op.execute(
        """
        UPDATE generation_jobs SET status = 'pending' WHERE status = 'running';
        UPDATE generation_jobs SET error_code = 'legacy'
        WHERE status = 'failed' AND error_code IS NULL
        """
    )
    op.execute(
        """
        UPDATE generation_jobs SET celery_task_id = gen_random_uuid()::text
        WHERE status = 'pending' AND celery_task_id IS NULL
        """
    )
    # The old foreign key has no ON DELETE: deleting a picture must not be stopped by its job.
    op.execute(
        """
        DO $$ DECLARE name text; BEGIN
            FOR name IN SELECT conname FROM pg_constraint
                WHERE conrelid = 'generation_jobs'::regclass AND contype = 'f'
                AND confrelid = 'content_items'::regclass
            LOOP EXECUTE format('ALTER TABLE generation_jobs DROP CONSTRAINT %I', name); END LOOP;
        END $$
        """
    )
    op.create_foreign_key(
        op.f("fk_generation_jobs_content_id_content_items"),
        "generation_jobs",
        "content_items",
        ["content_id"],
        ["id"],
        ondelete="SET NULL",
    )
    op.create_foreign_key(
        op.f("fk_generation_jobs_retry_of_generation_jobs"),
        "generation_jobs",
        "generation_jobs",
        ["retry_of"],
        ["id"],
        ondelete="SET NULL",
    )
    for name, condition in JOB_CHECKS.items():
        op.create_check_constraint(op.f(f"ck_generation_jobs_{name}"), "generation_jobs", condition)
    for name, (columns, where) in JOB_INDEXES.items():
        op.create_index(
            name, "generation_jobs", columns, postgresql_where=sa.text(where) if where else None
        )
    op.execute("ALTER TABLE generation_jobs SET (fillfactor = 80)")


def _attempts() -> None:
    op.create_table(
        "job_attempts",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column(
            "job_id",
            sa.BigInteger,
            sa.ForeignKey("generation_jobs.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(255), nullable=False),
        sa.Column("lease_token", UUID(as_uuid=True), nullable=False),
        sa.Column("backend", sa.String(255)),
        sa.Column("prompt_id", sa.String(255)),
        sa.Column("started_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("ended_at", sa.DateTime(True)),
        sa.Column("outcome", sa.String(20)),
        sa.Column("error_code", sa.String(50)),
        sa.Column("error_message", sa.Text),
        sa.CheckConstraint(
            "outcome IN ('completed', 'failed', 'retried', 'released', 'waiting', 'worker_lost',"
            " 'timed_out', 'cancelled')",
            name=op.f("ck_job_attempts_outcome"),
        ),
        sa.CheckConstraint(
            "(outcome IS NULL) = (ended_at IS NULL)", name=op.f("ck_job_attempts_ended_has_outcome")
        ),
    )
    op.create_index("ix_job_attempts_job_id_id", "job_attempts", ["job_id", "id"])
    op.create_index(
        "ix_job_attempts_open",
        "job_attempts",
        ["job_id"],
        unique=True,
        postgresql_where=sa.text("ended_at IS NULL"),
    )


def _notifications() -> None:
    op.create_table(
        "user_notifications",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        _user_id(),
        sa.Column("kind", sa.String(50), nullable=False),
        sa.Column("dedupe_key", sa.String(200), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("body", sa.Text, nullable=False, server_default=""),
        sa.Column("data", JSONB, nullable=False, server_default=EMPTY),
        sa.Column("created_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("read_at", sa.DateTime(True)),
        sa.UniqueConstraint("user_id", "dedupe_key"),
    )
    op.create_index("ix_user_notifications_user_id_id", "user_notifications", ["user_id", "id"])
    op.create_index(
        "ix_user_notifications_unread",
        "user_notifications",
        ["user_id", "id"],
        postgresql_where=sa.text("read_at IS NULL"),
    )


def _platform() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column(
            "user_id",
            UUID(as_uuid=True),
            sa.ForeignKey("users.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("status_code", sa.Integer, nullable=False),
        sa.Column("location", sa.String(255)),
        sa.Column("answer", JSONB, nullable=False),
        sa.Column("created_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("expires_at", sa.DateTime(True), nullable=False),
    )
    op.create_index("ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"])
    op.create_table(
        "audit_log",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("actor_id", UUID(as_uuid=True)),
        sa.Column("actor", sa.String(100), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("details", JSONB, nullable=False, server_default=EMPTY),
    )
    op.create_index("ix_audit_log_actor_id_id", "audit_log", ["actor_id", "id"])
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("started_at", sa.DateTime(True), nullable=False),
        sa.Column("seen_at", sa.DateTime(True), nullable=False),
        sa.Column("info", JSONB, nullable=False, server_default=EMPTY),
    )
    op.create_index("ix_heartbeats_seen_at", "heartbeats", ["seen_at"])
    op.create_table(
        "abandoned_prompts",
        sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
        sa.Column("backend", sa.String(255), nullable=False),
        sa.Column("prompt_id", sa.String(255), nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_try_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.Column("created_at", sa.DateTime(True), nullable=False, server_default=NOW),
        sa.UniqueConstraint("backend", "prompt_id"),
    )
    op.create_index("ix_abandoned_prompts_next_try_at", "abandoned_prompts", ["next_try_at"])
    op.create_table(
        "webhook_receipts",
        sa.Column("signature", sa.String(64), primary_key=True),
        sa.Column("received_at", sa.DateTime(True), nullable=False, server_default=NOW),
    )
    op.create_index("ix_webhook_receipts_received_at", "webhook_receipts", ["received_at"])


def downgrade() -> None:
    for table in (
        "webhook_receipts",
        "abandoned_prompts",
        "heartbeats",
        "audit_log",
        "idempotency_keys",
        "user_notifications",
        "job_attempts",
        "content_images",
        "sessions",
        "api_tokens",
    ):
        op.drop_table(table)
    _jobs_down()
    _content_down()
    _users_down()


def _naive(table: str) -> None:
    op.alter_column(table, "created_at", server_default=None)
    op.alter_column(table, "updated_at", server_default=None)
    for column in TIMES[table]:
        op.execute(
            f"ALTER TABLE {table} ALTER COLUMN {column} TYPE timestamp"
            f" USING {column} AT TIME ZONE 'UTC'"
        )


def _jobs_down() -> None:
    op.execute("ALTER TABLE generation_jobs RESET (fillfactor)")
    for name in JOB_INDEXES:
        op.drop_index(name, "generation_jobs")
    for name in JOB_CHECKS:
        op.drop_constraint(op.f(f"ck_generation_jobs_{name}"), "generation_jobs")
    op.drop_constraint(op.f("fk_generation_jobs_retry_of_generation_jobs"), "generation_jobs")
    op.drop_constraint(op.f("fk_generation_jobs_content_id_content_items"), "generation_jobs")
    op.create_foreign_key(
        op.f("fk_generation_jobs_result_content_id_content_items"),
        "generation_jobs",
        "content_items",
        ["content_id"],
        ["id"],
    )
    op.execute(
        """
        UPDATE generation_jobs SET
            status = params -> 'migrated_from' ->> 'status',
            error_message = params -> 'migrated_from' ->> 'error_message',
            completed_at = (params -> 'migrated_from' ->> 'completed_at')::timestamp
                AT TIME ZONE 'UTC'
        WHERE error_code IN ('unknown_status', 'unsupported_job_type')
            AND params -> 'migrated_from' ->> 'status' IS NOT NULL
        """
    )
    # A running job keeps no lease in the older form; it would never end.
    op.execute("UPDATE generation_jobs SET status = 'pending' WHERE status = 'running'")
    for column in job_columns():
        op.drop_column("generation_jobs", column.name)
    op.alter_column("generation_jobs", "status", server_default=None)
    op.alter_column("generation_jobs", "job_type", server_default=None)
    op.alter_column("generation_jobs", "batch_size", nullable=True, server_default=None)
    op.alter_column("generation_jobs", "params", nullable=True, server_default=None)
    op.alter_column("generation_jobs", "content_id", type_=sa.Integer)
    op.alter_column("generation_jobs", "id", type_=sa.Integer)
    _naive("generation_jobs")


def _content_down() -> None:
    op.drop_index("ix_content_items_public", "content_items")
    op.drop_index("ix_content_items_creator_id_id", "content_items")
    op.add_column("content_items", sa.Column("content_data", sa.Text))
    op.alter_column("content_items", "item_metadata", nullable=True, server_default=None)
    op.execute(
        """
        UPDATE content_items SET
            content_data = coalesce(item_metadata ->> 'legacy_data', ''),
            item_metadata = CASE
                WHEN item_metadata ? 'legacy_metadata' THEN item_metadata -> 'legacy_metadata'
                ELSE NULLIF(item_metadata - 'legacy_data', '{}'::jsonb) END
        """
    )
    op.alter_column("content_items", "content_data", nullable=False)
    op.alter_column("content_items", "is_private", server_default=None)
    op.alter_column("content_items", "content_type", server_default=None)
    op.alter_column("content_items", "id", type_=sa.Integer)
    _naive("content_items")


def _users_down() -> None:
    op.drop_constraint(op.f("ck_users_role"), "users")
    op.drop_column("users", "role")
    op.alter_column("users", "is_active", server_default=None)
    op.execute("UPDATE users SET email = username || '@invalid' WHERE email IS NULL")
    op.alter_column("users", "email", nullable=False)
    op.alter_column("users", "id", server_default=None)
    _naive("users")
