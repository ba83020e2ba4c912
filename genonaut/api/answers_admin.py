"""Describe the answers auditors and operators get, for the OpenAPI document."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

RunStatus = Literal["pending", "running", "completed", "failed", "cancelled", "skipped"]


class Task(BaseModel):
    """Something the platform can be told to do."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "content.refresh_stats",
                "title": "Count the collection",
                "description": "Count pictures per creator, model and day anew.",
                "queue": "maintenance",
                "soft_limit_s": 600,
                "hard_limit_s": 900,
                "overlap": "skip",
                "has_overlap_key": False,
                "max_attempts": 4,
                "dry_run": False,
                "only_failed": False,
                "aliases": [],
                "params_schema": {"type": "object", "properties": {"days": {"type": "integer"}}},
                "result_schema": {"type": "object", "properties": {"rows": {"type": "integer"}}},
            }
        }
    )

    name: str
    title: str
    description: str
    queue: str
    soft_limit_s: int = Field(description="When a run is told to end, seconds.")
    hard_limit_s: int = Field(description="When it is killed, seconds.")
    overlap: Literal["skip", "wait", "allow"] = Field(
        description="What becomes of a second run while one is unfinished."
    )
    has_overlap_key: bool = Field(description="Whether that counts per key, not per task.")
    max_attempts: int
    dry_run: bool = Field(description="Whether it can say what it would do, and do nothing.")
    only_failed: bool = Field(
        description="Whether the items that a run could not do can be tried alone."
    )
    aliases: list[str]
    params_schema: dict[str, Any] = Field(description="JSON Schema of the parameters.")
    result_schema: dict[str, Any] = Field(description="JSON Schema of the result.")


class TaskList(BaseModel):
    """All tasks, by name."""

    items: list[Task]


class RunError(BaseModel):
    """Why a run failed."""

    code: str
    message: str | None


_RUN: dict[str, Any] = {
    "id": 5,
    "task": "content.refresh_stats",
    "status": "completed",
    "version": 4,
    "params": {"days": 7},
    "dry_run": False,
    "trigger": "cli",
    "actor": "olga",
    "reason": "after the import",
    "schedule": None,
    "due_at": None,
    "covers": [],
    "queue": "maintenance",
    "held_back": False,
    "progress": {"phase": "completed", "percent": 100},
    "result": {"rows": 12},
    "failed_items": 0,
    "error": None,
    "attempt": 1,
    "max_attempts": 4,
    "worker": "maintenance@host",
    "cancel_requested": False,
    "has_checkpoint": False,
    "parent_id": None,
    "retry_of": None,
    "celery_task_id": "6f1d…",
    "available_at": "2026-01-05T10:00:00+00:00",
    "created_at": "2026-01-05T10:00:00+00:00",
    "updated_at": "2026-01-05T10:00:03+00:00",
    "started_at": "2026-01-05T10:00:01+00:00",
    "completed_at": "2026-01-05T10:00:03+00:00",
}


class Run(BaseModel):
    """One run of a task: what was asked, who asked, how far it is and how it ended."""

    model_config = ConfigDict(json_schema_extra={"example": _RUN})

    id: int
    task: str
    status: RunStatus
    version: int = Field(description="Grows with every change.")
    params: dict[str, Any]
    dry_run: bool
    trigger: Literal["manual", "schedule", "api", "cli", "system"]
    actor: str | None
    reason: str | None
    schedule: str | None
    due_at: datetime | None
    covers: list[datetime] = Field(description="Due times passed over, which it stands for.")
    queue: str
    held_back: bool = Field(description="Waits until another run of the task has ended.")
    progress: dict[str, Any] = Field(
        description="`phase`, and as far as known `done`, `total`, `percent`, `message`."
    )
    result: dict[str, Any] | None
    failed_items: int
    error: RunError | None
    attempt: int
    max_attempts: int
    worker: str | None
    cancel_requested: bool
    has_checkpoint: bool = Field(description="A retry would go on from where it stopped.")
    parent_id: int | None
    retry_of: int | None
    celery_task_id: str
    available_at: datetime
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class RunPage(BaseModel):
    """Runs, newest first."""

    items: list[Run]
    next_cursor: str | None


class FailedItem(BaseModel):
    """An item that a run could not do; the run went on."""

    id: int
    ref: str
    error: str
    created_at: datetime


class FailedItemPage(BaseModel):
    """Items, in the order they failed."""

    items: list[FailedItem]
    next_cursor: str | None


class LogLine(BaseModel):
    """A line the run logged; further members are its values."""

    model_config = ConfigDict(extra="allow")

    at: datetime
    level: str
    event: str


class RunDetails(Run):
    """A run with its last log lines and the first of the items it could not do."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                **_RUN,
                "log_tail": [
                    {
                        "at": "2026-01-05T10:00:02+00:00",
                        "level": "info",
                        "event": "counted",
                        "rows": 12,
                    }
                ],
                "failed": [],
            }
        }
    )

    log_tail: list[LogLine] = Field(description="The last 200 lines, oldest first.")
    failed: list[FailedItem] = Field(description="The first 100; see `…/failures` for all.")


class AuditEntry(BaseModel):
    """An act: who did what."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 3,
                "at": "2026-01-05T10:00:00+00:00",
                "actor": "olga",
                "actor_id": "7d4f1c1e-63a5-4f0c-8d52-4f3f6f0f8a10",
                "action": "run.trigger",
                "target": "run:5",
                "details": {"task": "content.refresh_stats", "reason": "after the import"},
            }
        }
    )

    id: int
    at: datetime
    actor: str
    actor_id: UUID | None = Field(description="None for a program.")
    action: str
    target: str
    details: dict[str, Any]


class AuditPage(BaseModel):
    """Acts, newest first."""

    items: list[AuditEntry]
    next_cursor: str | None
