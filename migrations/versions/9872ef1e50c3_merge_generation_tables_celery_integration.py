"""Merge comfyui_generation_requests into generation_jobs, ready for Celery.

Every row moves. What has no column any more goes into ``params``; what a row was before goes into
``params.migrated_from``, from which the downgrade rebuilds it. A half-done row becomes ``failed``:
no worker holds it. Where several old jobs named one content item, the oldest keeps it (one job is
one item now) and the others remember it in ``migrated_from``; a downgrade gives it back unless the
item has been deleted since.

Revision ID: 9872ef1e50c3
Revises: 704ba727e23b
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "9872ef1e50c3"
down_revision = "704ba727e23b"
branch_labels = None
depends_on = None

INTERRUPTED = "interrupted by an upgrade: no worker was holding this job"
HALF_DONE = "('processing', 'running', 'started')"
NEW_COLUMNS = (
    "celery_task_id",
    "negative_prompt",
    "checkpoint_model",
    "lora_models",
    "width",
    "height",
    "batch_size",
    "comfyui_prompt_id",
)


def upgrade() -> None:
    op.alter_column("generation_jobs", "parameters", new_column_name="params")
    op.alter_column("generation_jobs", "result_content_id", new_column_name="content_id")
    op.add_column("generation_jobs", sa.Column("celery_task_id", sa.String(255)))
    op.add_column("generation_jobs", sa.Column("negative_prompt", sa.Text))
    op.add_column("generation_jobs", sa.Column("checkpoint_model", sa.String(255)))
    op.add_column("generation_jobs", sa.Column("lora_models", JSONB))
    op.add_column("generation_jobs", sa.Column("width", sa.Integer))
    op.add_column("generation_jobs", sa.Column("height", sa.Integer))
    op.add_column("generation_jobs", sa.Column("batch_size", sa.Integer))
    op.add_column("generation_jobs", sa.Column("comfyui_prompt_id", sa.String(255)))

    # Parameters that are not an object (a list, a bare value) are kept whole under one key.
    op.execute(
        """
        UPDATE generation_jobs
        SET params = CASE jsonb_typeof(params)
                WHEN 'object' THEN params
                WHEN 'null' THEN '{}'::jsonb
                ELSE jsonb_build_object('parameters', params) END
            || jsonb_build_object('migrated_from', jsonb_build_object(
                'table', 'generation_jobs',
                'status', status,
                'error_message', error_message,
                'completed_at', completed_at,
                'content_id', content_id,
                'parameters', params))
        WHERE params IS NOT NULL
        """
    )
    op.execute(
        """
        UPDATE generation_jobs
        SET params = jsonb_build_object('migrated_from', jsonb_build_object(
                'table', 'generation_jobs',
                'status', status,
                'error_message', error_message,
                'completed_at', completed_at,
                'content_id', content_id))
        WHERE params IS NULL
        """
    )
    op.execute(
        f"""
        UPDATE generation_jobs
        SET status = 'failed', error_message = '{INTERRUPTED}', completed_at = updated_at
        WHERE status IN {HALF_DONE}
        """
    )
    op.execute(
        """
        UPDATE generation_jobs AS later SET content_id = NULL
        FROM generation_jobs AS first
        WHERE first.content_id = later.content_id AND first.id < later.id
        """
    )
    op.execute(
        f"""
        INSERT INTO generation_jobs (
            user_id, job_type, prompt, negative_prompt, checkpoint_model, lora_models, width,
            height, batch_size, comfyui_prompt_id, params, status, error_message,
            created_at, updated_at, started_at, completed_at)
        SELECT user_id, 'image', prompt, negative_prompt, checkpoint_model, lora_models, width,
            height, batch_size, comfyui_prompt_id,
            jsonb_strip_nulls(jsonb_build_object(
                'sampler_params', sampler_params,
                'output_paths', output_paths,
                'thumbnail_paths', thumbnail_paths))
            || jsonb_build_object('migrated_from', jsonb_build_object(
                'table', 'comfyui_generation_requests',
                'id', id,
                'status', status,
                'error_message', error_message,
                'completed_at', completed_at,
                'sampler_params', sampler_params,
                'output_paths', output_paths,
                'thumbnail_paths', thumbnail_paths)),
            CASE WHEN status IN {HALF_DONE} THEN 'failed' ELSE status END,
            CASE WHEN status IN {HALF_DONE} THEN '{INTERRUPTED}' ELSE error_message END,
            created_at, updated_at, started_at,
            CASE WHEN status IN {HALF_DONE} THEN updated_at ELSE completed_at END
        FROM comfyui_generation_requests ORDER BY created_at, id
        """
    )
    op.drop_table("comfyui_generation_requests")
    op.create_unique_constraint(None, "generation_jobs", ["content_id"])
    op.create_index("ix_generation_jobs_celery_task_id", "generation_jobs", ["celery_task_id"])
    op.create_index(
        "ix_generation_jobs_comfyui_prompt_id", "generation_jobs", ["comfyui_prompt_id"]
    )


def downgrade() -> None:
    op.create_table(
        "comfyui_generation_requests",
        sa.Column("id", sa.Integer, sa.Identity(), primary_key=True),
        sa.Column("user_id", UUID(as_uuid=True), sa.ForeignKey("users.id"), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("negative_prompt", sa.Text),
        sa.Column("checkpoint_model", sa.String(255), nullable=False),
        sa.Column("lora_models", JSONB),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("batch_size", sa.Integer, nullable=False),
        sa.Column("sampler_params", JSONB),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("comfyui_prompt_id", sa.String(255), unique=True),
        sa.Column("output_paths", JSONB),
        sa.Column("thumbnail_paths", JSONB),
        sa.Column("error_message", sa.Text),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("updated_at", sa.DateTime, nullable=False),
        sa.Column("started_at", sa.DateTime),
        sa.Column("completed_at", sa.DateTime),
    )
    op.drop_constraint("uq_generation_jobs_content_id", "generation_jobs")
    op.execute(
        f"""
        INSERT INTO comfyui_generation_requests (
            id, user_id, prompt, negative_prompt, checkpoint_model, lora_models, width, height,
            batch_size, comfyui_prompt_id, sampler_params, output_paths, thumbnail_paths,
            status, error_message, created_at, updated_at, started_at, completed_at)
        SELECT (origin ->> 'id')::integer, user_id, prompt, negative_prompt, checkpoint_model,
            lora_models, width, height, batch_size, comfyui_prompt_id,
            origin -> 'sampler_params', origin -> 'output_paths', origin -> 'thumbnail_paths',
            CASE WHEN interrupted THEN origin ->> 'status' ELSE status END,
            CASE WHEN interrupted THEN origin ->> 'error_message' ELSE error_message END,
            created_at, updated_at, started_at,
            CASE WHEN interrupted THEN (origin ->> 'completed_at')::timestamp ELSE completed_at END
        FROM (SELECT *, params -> 'migrated_from' AS origin,
                  error_message IS NOT DISTINCT FROM '{INTERRUPTED}' AS interrupted
              FROM generation_jobs) AS job
        WHERE origin ->> 'table' = 'comfyui_generation_requests'
        """
    )
    op.execute(
        """
        UPDATE comfyui_generation_requests SET
            sampler_params = NULLIF(sampler_params, 'null'),
            output_paths = NULLIF(output_paths, 'null'),
            thumbnail_paths = NULLIF(thumbnail_paths, 'null')
        """
    )
    op.execute(
        "SELECT setval(pg_get_serial_sequence('comfyui_generation_requests', 'id'),"
        " (SELECT coalesce(max(id), 0) + 1 FROM comfyui_generation_requests), false)"
    )
    op.execute(
        "DELETE FROM generation_jobs"
        " WHERE params -> 'migrated_from' ->> 'table' = 'comfyui_generation_requests'"
    )
    # A job made after the upgrade has no older form: its new columns go into its parameters.
    fields = ", ".join(f"'{name}', {name}" for name in NEW_COLUMNS)
    op.execute(
        f"""
        UPDATE generation_jobs
        SET params = coalesce(params, '{{}}'::jsonb)
            || jsonb_strip_nulls(jsonb_build_object({fields}))
        WHERE params -> 'migrated_from' IS NULL
        """
    )
    op.execute(
        f"""
        UPDATE generation_jobs SET
            status = params -> 'migrated_from' ->> 'status',
            error_message = params -> 'migrated_from' ->> 'error_message',
            completed_at = (params -> 'migrated_from' ->> 'completed_at')::timestamp
        WHERE params -> 'migrated_from' ->> 'table' = 'generation_jobs'
            AND error_message = '{INTERRUPTED}'
        """
    )
    op.execute(
        """
        UPDATE generation_jobs SET
            content_id = coalesce(content_id, (
                SELECT id FROM content_items
                WHERE id = (params -> 'migrated_from' ->> 'content_id')::integer)),
            params = params -> 'migrated_from' -> 'parameters'
        WHERE params -> 'migrated_from' ->> 'table' = 'generation_jobs'
        """
    )
    op.drop_index("ix_generation_jobs_comfyui_prompt_id", "generation_jobs")
    op.drop_index("ix_generation_jobs_celery_task_id", "generation_jobs")
    for name in NEW_COLUMNS:
        op.drop_column("generation_jobs", name)
    op.alter_column("generation_jobs", "content_id", new_column_name="result_content_id")
    op.alter_column("generation_jobs", "params", new_column_name="parameters")
