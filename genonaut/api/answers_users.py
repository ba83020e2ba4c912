"""Describe what admins are told of users and tokens, for the OpenAPI document."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

_USER: dict[str, Any] = {
    "id": "7d4f1c1e-63a5-4f0c-8d52-4f3f6f0f8a10",
    "username": "ada",
    "role": "operator",
    "email": "ada@example.org",
    "is_active": True,
    "created_at": "2026-01-05T10:00:00+00:00",
    "updated_at": "2026-01-05T10:00:00+00:00",
}
_TOKEN: dict[str, Any] = {
    "id": 9,
    "name": "laptop",
    "state": "valid",
    "created_at": "2026-01-05T10:00:00+00:00",
    "expires_at": "2026-04-05T10:00:00+00:00",
    "last_used_at": None,
    "revoked_at": None,
}


class User(BaseModel):
    """Somebody, or a program, that may log in."""

    model_config = ConfigDict(json_schema_extra={"example": _USER})

    id: UUID
    username: str
    role: Literal["user", "auditor", "operator", "admin"]
    email: str | None
    is_active: bool = Field(description="Whether logging in is possible.")
    created_at: datetime
    updated_at: datetime


class UserPage(BaseModel):
    """Users by name."""

    items: list[User]
    next_cursor: str | None


class Token(BaseModel):
    """An API token; what it was is not known any more."""

    model_config = ConfigDict(json_schema_extra={"example": _TOKEN})

    id: int
    name: str
    state: Literal["valid", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None


class NewToken(Token):
    """A token just made."""

    model_config = ConfigDict(json_schema_extra={"example": {**_TOKEN, "token": "gn_…"}})

    token: str = Field(description="Shown this once.")


class TokenPage(BaseModel):
    """Tokens, newest first."""

    items: list[Token]
    next_cursor: str | None
