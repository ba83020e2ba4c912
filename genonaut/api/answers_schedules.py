"""Describe answers about schedules, for the OpenAPI document."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Pause(BaseModel):
    """Who paused it, and for how long."""

    at: datetime
    by: str
    reason: str | None
    until: datetime | None = Field(description="When it ends by itself.")


_SCHEDULE: dict[str, Any] = {
    "name": "content.refresh_stats.hourly",
    "task": "content.refresh_stats",
    "params": {"days": None},
    "cron": "0 * * * *",
    "every_s": None,
    "anchor_at": None,
    "timezone": "UTC",
    "overlap": None,
    "missed": "run_once",
    "late_limit_s": 300,
    "jitter_s": 0,
    "last_due_at": "2026-01-05T10:00:00+00:00",
    "next_due_at": "2026-01-05T11:00:00+00:00",
    "late_s": 0.0,
    "disabled_reason": None,
    "paused": None,
    "source": "code",
    "code_default": None,
    "is_edited": False,
    "version": 1,
    "created_at": "2026-01-01T10:00:00+00:00",
    "updated_at": "2026-01-01T10:00:00+00:00",
}


class Schedule(BaseModel):
    """What a task is told, and when it runs by itself."""

    model_config = ConfigDict(json_schema_extra={"example": _SCHEDULE})

    name: str
    task: str
    params: dict[str, Any]
    cron: str | None
    every_s: int | None = Field(description="An interval instead of a cron, seconds.")
    anchor_at: datetime | None = Field(description="From when the interval counts; null: 1970.")
    timezone: str
    overlap: Literal["skip", "wait", "allow"] | None = Field(description="Null: as the task says.")
    missed: Literal["run_once", "skip"]
    late_limit_s: int
    jitter_s: int
    last_due_at: datetime | None = Field(description="The last due time that was dealt with.")
    next_due_at: datetime | None = Field(description="Null while it is disabled or paused.")
    late_s: float = Field(description="For how long it has been due, if it may fire; seconds.")
    disabled_reason: str | None = Field(description="Why it cannot be run; null: it can.")
    paused: Pause | None
    source: Literal["code", "operator"]
    code_default: dict[str, Any] | None = Field(description="What the code says, if anything.")
    is_edited: bool = Field(description="Whether an operator's values count instead.")
    version: int = Field(description="Grows with every edit; its `ETag`.")
    created_at: datetime
    updated_at: datetime


class SchedulePage(BaseModel):
    """Schedules by name; ``paused`` is the pause of all, while it is on."""

    paused: Pause | None
    items: list[Schedule]
    next_cursor: str | None


class PauseOfAll(BaseModel):
    """The pause of all schedules; null when there is none."""

    paused: Pause | None


class DueTime(BaseModel):
    """A time at which it is due."""

    due_at: datetime = Field(description="UTC.")
    local: datetime = Field(description="The same in the schedule's zone.")
    mark: Literal["gap", "fold"] | None = Field(
        description="`gap`: the clock skips the time, so it was moved; `fold`: it is there twice."
    )


class Preview(BaseModel):
    """The next due times, found by what fires."""

    timezone: str
    items: list[DueTime]
