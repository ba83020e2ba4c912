"""Describe answers about recommendations for the OpenAPI document."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from genonaut.api.answers import Content


class Reason(BaseModel):
    """Why an item is recommended."""

    kind: Literal["liked", "seen", "prompt", "popular", "new"]
    text: str
    content_id: int | None = Field(description="The item that is the reason, if one is.")


class RecommendedItem(BaseModel):
    """One place of a list."""

    rank: int
    score: float
    reason: Reason
    content: Content


class RecommendationPage(BaseModel):
    """What one might like, best first."""

    items: list[RecommendedItem]
    next_cursor: str | None


class Standing(BaseModel):
    """What a user has done with an item so far."""

    content_id: int
    views: int
    downloads: int
    shares: int
    liked: bool
    dismissed: bool
    rating: int | None


class Generation(BaseModel):
    """One making of everyone's lists."""

    id: int
    run_id: int | None
    algorithm: str
    is_current: bool
    is_kept: bool = Field(description="Whether its lists are still there.")
    refused: str | None = Field(description="Why it was not switched in.")
    evaluation: dict[str, Any] | None
    users: int
    rows: int
    as_of: datetime
    refreshed_to: datetime | None
    created_at: datetime
    switched_at: datetime | None


class GenerationPage(BaseModel):
    """Makings, newest first."""

    items: list[Generation]
    next_cursor: str | None
