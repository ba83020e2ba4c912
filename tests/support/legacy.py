"""Rows as they were before the tables were merged, one for each odd thing seen in the wild."""

import json
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, text

ADA, BOB = UUID(int=1), UUID(int=2)
T = "2024-05-01 10:00:0{}.123456"
STATUSES = ("pending", "processing", "running", "started", "completed", "failed", "cancelled")
PARAMETERS: tuple[Any, ...] = (
    None,
    {"seed": 7, "nested": {"null": None}},
    [1, "two", None],
    "a bare word",
    42,
    {},
    {"parameters": "its own"},
)


def insert(connection: Connection, table: str, **values: Any) -> None:
    """Insert one row; dicts, lists and ``Json`` become JSON, None stays NULL."""
    names = ", ".join(values)
    slots = ", ".join(
        f"CAST(:{name} AS jsonb)" if isinstance(value, dict | list | Json) else f":{name}"
        for name, value in values.items()
    )
    given = {
        name: value.text
        if isinstance(value, Json)
        else json.dumps(value)
        if isinstance(value, dict | list)
        else value
        for name, value in values.items()
    }
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({slots})"), given)


class Json:
    """A JSON value that Python would pass as something else: a number, a word, null."""

    def __init__(self, value: Any) -> None:
        self.text = json.dumps(value)


def fill(connection: Connection) -> None:
    """Fill a database at the baseline revision."""
    for number, user in enumerate((ADA, BOB)):
        insert(
            connection,
            "users",
            id=user,
            username=f"üser{number}",
            email=f"u{number}@example.org",
            is_active=number == 0,
            created_at=T.format(1),
            updated_at=T.format(2),
        )
    for number, metadata in enumerate((None, {"a": 1}, [1, 2], Json(None), Json("word"))):
        insert(
            connection,
            "content_items",
            title=f"Bild {number} 🦊",
            content_type="image" if number else "text",
            content_data=f"/old/path/{number}.png",
            item_metadata=metadata,
            prompt=None if number == 1 else "ein Fuchs",
            creator_id=ADA,
            quality_score=0.5 if number else None,
            is_private=number % 2 == 1,
            created_at=T.format(1),
            updated_at=T.format(2),
        )
    for number, status in enumerate(STATUSES):
        for kind in ("image", "text"):
            parameters = PARAMETERS[number]
            ended = status in {"completed", "failed", "cancelled"}
            insert(
                connection,
                "generation_jobs",
                user_id=ADA if number % 2 else BOB,
                job_type=kind,
                prompt=f"日本語 {status} 'quoted' :colon %s {{}}",
                parameters=parameters
                if parameters is None or isinstance(parameters, dict | list)
                else Json(parameters),
                status=status,
                # Two jobs name the same item.
                result_content_id=1 if status == "completed" else None,
                error_message="es war kaputt: 100%" if status == "failed" else None,
                created_at=T.format(1),
                updated_at=T.format(5),
                started_at=T.format(2) if number else None,
                completed_at=T.format(4) if ended else None,
            )
    insert(
        connection,
        "generation_jobs",
        user_id=ADA,
        job_type="image",
        prompt="JSON null",
        parameters=Json(None),
        status="completed",
        result_content_id=2,
        created_at=T.format(1),
        updated_at=T.format(5),
        completed_at=T.format(4),
    )
    for number, status in enumerate(STATUSES):
        insert(
            connection,
            "comfyui_generation_requests",
            user_id=ADA,
            prompt=f"ein Fuchs 🦊 {number}",
            negative_prompt=None if number % 2 else "blurry",
            checkpoint_model="sd.safetensors",
            lora_models=([{"name": "a", "strength_model": None}], None, [], {"odd": 1})[number % 4],
            width=512,
            height=768,
            batch_size=1 + number % 3,
            sampler_params=({"seed": 1, "cfg": None}, None, [1])[number % 3],
            status=status,
            comfyui_prompt_id=None if number == 0 else f"prompt-{number}",
            output_paths=None if number % 2 else [f"/out/{number}.png"],
            thumbnail_paths=None if number % 3 else {"256": "t.png"},
            error_message="CUDA" if status == "failed" else None,
            created_at=T.format(0),
            updated_at=T.format(5),
            started_at=T.format(2) if number else None,
            completed_at=T.format(4) if status in {"completed", "failed", "cancelled"} else None,
        )
