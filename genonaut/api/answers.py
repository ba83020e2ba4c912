"""Describe answers for the OpenAPI document; endpoints give the domain's rows as they are."""

from datetime import date, datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from genonaut.api.errors import MEDIA_TYPE

Status = Literal["pending", "running", "completed", "failed", "cancelled"]


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str | None


class Job(BaseModel):
    """A request for pictures, and where it stands."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 17,
                "status": "running",
                "version": 6,
                "prompt": "a lighthouse in a storm, oil painting",
                "negative_prompt": "blurry",
                "checkpoint_model": "sd_xl_base_1.0.safetensors",
                "lora_models": [],
                "width": 768,
                "height": 512,
                "batch_size": 2,
                "sampler_params": {"seed": 41, "steps": 24},
                "has_workflow": False,
                "is_private": False,
                "progress": {"phase": "executing", "percent": 41},
                "attempt": 1,
                "max_attempts": 4,
                "cancel_requested": False,
                "content_id": None,
                "retry_of": None,
                "error": None,
                "celery_task_id": "6f1d…",
                "comfyui_prompt_id": "0b0e…",
                "available_at": "2026-01-05T10:00:00+00:00",
                "created_at": "2026-01-05T10:00:00+00:00",
                "updated_at": "2026-01-05T10:00:03+00:00",
                "started_at": "2026-01-05T10:00:01+00:00",
                "completed_at": None,
                "queue_position": None,
            }
        }
    )

    id: int
    status: Status
    version: int = Field(description="Grows with every change.")
    prompt: str
    negative_prompt: str | None
    checkpoint_model: str | None
    lora_models: list[dict[str, Any]]
    width: int | None
    height: int | None
    batch_size: int
    sampler_params: dict[str, Any]
    has_workflow: bool
    is_private: bool
    progress: dict[str, Any] = Field(description="`phase`, and `percent` while it is drawn.")
    attempt: int
    max_attempts: int
    cancel_requested: bool
    content_id: int | None
    retry_of: int | None
    error: JobError | None
    celery_task_id: str | None
    comfyui_prompt_id: str | None
    available_at: datetime
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    queue_position: int | None = Field(description="Place in everyone's queue; 1 is next.")


class JobPage(BaseModel):
    """Jobs, newest first."""

    items: list[Job]
    next_cursor: str | None


class TimelineEntry(BaseModel):
    """One thing that happened to a job."""

    at: datetime
    event: str
    message: str


class Timeline(BaseModel):
    """A job's story, oldest first."""

    items: list[TimelineEntry]


class SizeLimits(BaseModel):
    """What sides a picture may have, pixels."""

    min: int
    max: int
    multiple_of: int


class Options(BaseModel):
    """What may be chosen; ``known`` is false while no ComfyUI server answers."""

    known: bool
    checkpoints: list[str]
    loras: list[str]
    samplers: list[str]
    schedulers: list[str]
    size: SizeLimits
    batch_size_max: int
    prompt_max: int


class Thumbnail(BaseModel):
    """A small version of an image."""

    url: str
    width: int
    height: int
    types: list[str] = Field(description="What it can be sent as; `Accept` chooses.")


class Image(BaseModel):
    """One picture of an item."""

    position: int
    url: str
    mime: str
    width: int
    height: int
    bytes: int
    sha256: str
    thumbnails: dict[str, Thumbnail]


class Content(BaseModel):
    """A job's result."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 9,
                "title": "a lighthouse in a storm",
                "prompt": "a lighthouse in a storm, oil painting",
                "creator_id": "7d4f1c1e-63a5-4f0c-8d52-4f3f6f0f8a10",
                "is_mine": True,
                "is_private": False,
                "quality_score": None,
                "liked": True,
                "rating": 5,
                "metadata": {},
                "created_at": "2026-01-05T10:00:09+00:00",
                "images": [
                    {
                        "position": 0,
                        "url": "/api/v1/content/9/images/0",
                        "mime": "image/png",
                        "width": 768,
                        "height": 512,
                        "bytes": 401322,
                        "sha256": "5f0c…",
                        "thumbnails": {
                            "256": {
                                "url": "/api/v1/content/9/images/0/thumbnails/256?v=c41d…",
                                "width": 256,
                                "height": 171,
                                "types": ["image/webp"],
                            }
                        },
                    }
                ],
            }
        }
    )

    id: int
    title: str
    prompt: str | None
    creator_id: UUID
    is_mine: bool
    is_private: bool
    quality_score: float | None
    liked: bool
    rating: int | None
    metadata: dict[str, Any]
    created_at: datetime
    images: list[Image]


class ContentPage(BaseModel):
    """Items, newest first."""

    items: list[Content]
    next_cursor: str | None


class Notification(BaseModel):
    """A fact its owner hears of once."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": 31,
                "kind": "job_completed",
                "title": "Your picture is ready",
                "body": "a lighthouse in a storm",
                "data": {"job_id": 17, "content_id": 9},
                "created_at": "2026-01-05T10:00:09+00:00",
                "read_at": None,
            }
        }
    )

    id: int
    kind: str
    title: str
    body: str
    data: dict[str, Any]
    created_at: datetime
    read_at: datetime | None


class NotificationPage(BaseModel):
    """Notifications, newest first."""

    items: list[Notification]
    next_cursor: str | None


class Count(BaseModel):
    """How many."""

    count: int


class Me(BaseModel):
    """Who is logged in; ``csrf_token`` is for pages with a session cookie."""

    id: UUID
    username: str
    role: str
    csrf_token: str | None


class SocketTicket(BaseModel):
    """A ticket that opens one socket."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"ticket": "gn_….session5", "expires_in_s": 60}}
    )

    ticket: str
    expires_in_s: int


class Check(BaseModel):
    """The state of one part."""

    ok: bool
    detail: str


class CreatorCount(BaseModel):
    """What one creator has made."""

    username: str
    items: int
    images: int


class ModelCount(BaseModel):
    """What was made with one checkpoint."""

    model: str
    items: int
    images: int


class DayCount(BaseModel):
    """What was made on one day, UTC."""

    day: date
    items: int
    images: int


class Stats(BaseModel):
    """Counts of what one may see, the most or the newest first, at most 100 lines each."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "since": "2026-01-01",
                "refreshed_at": "2026-01-05T10:00:00+00:00",
                "items": 3,
                "images": 5,
                "creators": [{"username": "ada", "items": 3, "images": 5}],
                "models": [{"model": "sd_xl_base_1.0.safetensors", "items": 3, "images": 5}],
                "days": [{"day": "2026-01-05", "items": 3, "images": 5}],
            }
        }
    )

    since: date
    refreshed_at: datetime | None = Field(description="When it was last counted.")
    items: int
    images: int
    creators: list[CreatorCount]
    models: list[ModelCount]
    days: list[DayCount]


class Health(BaseModel):
    """The state of the whole, and of its parts."""

    status: Literal["ok", "degraded", "down"]
    checks: dict[str, Check]


class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Received(BaseModel):
    """The webhook was recorded."""

    job_id: int


class ProblemItem(BaseModel):
    """One wrong part: ``pointer`` into the body, or ``query``, ``path``, ``header`` by name."""

    model_config = ConfigDict(extra="allow")

    detail: str


class Problem(BaseModel):
    """An error, as RFC 9457 says."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": "urn:genonaut:problem:invalid_input",
                "title": "Unprocessable Content",
                "status": 422,
                "detail": "width: Input should be a multiple of 8",
                "code": "invalid_input",
                "errors": [{"pointer": "#/width", "detail": "Input should be a multiple of 8"}],
            }
        }
    )

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemItem] | None = None
    run_id: int | None = Field(
        default=None, description="With `already_running`: the run that is in the way."
    )


_MEANINGS = {
    400: "The body is not JSON, or not UTF-8.",
    401: "There is no valid login.",
    403: "The login does not allow it, or the CSRF token is missing.",
    404: "It does not exist, or is not yours.",
    408: "The body stopped half-way.",
    409: "Its present state forbids it.",
    412: "It was changed since; read it again.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    416: "The range lies outside the file.",
    422: "A value is wrong; `errors` names each.",
    428: "`If-Match` is missing.",
    429: "Too much at once; see `Retry-After`.",
    503: "Waiting may cure it; see `Retry-After`.",
}

Documented = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Documented:
    """Document the problems an operation may answer with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _MEANINGS[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


READING = problems(401, 422, 503)
CHANGING = problems(401, 403, 408, 413, 422, 503)
POSTING = problems(400, 401, 403, 408, 413, 415, 422, 503)
