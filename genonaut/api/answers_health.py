"""Describe what auditors are told of queues, processes and health, for the OpenAPI document."""

from typing import Literal

from pydantic import BaseModel, Field


class Queue(BaseModel):
    """What waits in a queue, and what is worked on."""

    queue: str
    pending: int
    due: int = Field(description="Pending, and there to be taken now.")
    running: int
    unpublished: int = Field(description="Due, and without a message at the broker for 30 s.")
    oldest_due_s: float | None = Field(description="For how long the first has been due.")
    claimed_s: float | None = Field(description="Since the last that is unfinished was begun.")


class QueueList(BaseModel):
    """All queues."""

    items: list[Queue]


class Process(BaseModel):
    """A worker or beat that reports."""

    name: str
    kind: Literal["worker", "beat"]
    alive: bool = Field(description="Seen within a minute.")
    seen_s: float = Field(description="Seconds since it was seen.")
    up_s: float = Field(description="Seconds since it started.")
    queues: list[str]
    concurrency: int | None
    pid: int | None


class ProcessList(BaseModel):
    """Workers and beats, the longest silent last."""

    items: list[Process]


class HealthCheck(BaseModel):
    """One thing that is well or not."""

    name: str
    ok: bool
    detail: str
    value: float | None
    limit: float | None = Field(description="What `value` must not pass.")
    unit: str | None


class WholeHealth(BaseModel):
    """`red` when one check is not well."""

    status: Literal["ok", "red"]
    checks: list[HealthCheck]
