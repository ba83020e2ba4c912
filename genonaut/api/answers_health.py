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


class StaleRow(BaseModel):
    """Something that is stuck."""

    rule: str = Field(description="What found it, such as `worker_lost` or `overtime`.")
    kind: Literal["job", "run"]
    id: int | None
    what: str = Field(description="The task of a run, the beginning of a job's prompt.")
    worker: str | None = Field(description="Who has it, or had it.")
    stale_s: float = Field(description="For how long, seconds.")
    why: str
    becomes: str = Field(description="The state it will be in, or `published`.")


class RepairRecord(BaseModel):
    """What was done to something that was stuck."""

    at: str
    rule: str
    kind: Literal["job", "run", "redis"]
    id: int | None = Field(description="Null where `count` rows or keys are meant.")
    count: int
    worker: str | None
    became: str
    why: str


class StaleReport(BaseModel):
    """What is stuck now, and what was lately."""

    counts: dict[str, int] = Field(description="How many are stuck, by `kind.rule`.")
    items: list[StaleRow] = Field(description="The longest there of each rule.")
    recent: list[RepairRecord] = Field(description="What was done last, newest first.")
