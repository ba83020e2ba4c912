"""Describe answers about notifications, for the OpenAPI document."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field


class Preferences(BaseModel):
    """How one wants to hear."""

    kinds: dict[str, dict[str, bool]] = Field(description="Every kind and channel.")
    timezone: str
    quiet_from: str | None
    quiet_until: str | None
    digest: Literal["immediate", "daily"]
    digest_hour: int
    group_window_s: int
    channels: list["Channel"] = Field(description="What there is, and where it reaches one.")


class Address(BaseModel):
    """Where a channel reaches one."""

    address: str
    state: Literal["active", "unverified", "disabled"]
    verified_at: datetime | None
    disabled_at: datetime | None
    disabled_reason: str | None
    failures: int = Field(description="Messages refused for good, one after the other.")
    secret_rotated_at: datetime | None
    created_at: datetime


class Channel(BaseModel):
    """A way to be reached."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "email",
                "configured": False,
                "reason": "mail is not set up here: SMTP_HOST and MAIL_FROM are needed",
                "takes_address": True,
                "address": None,
            }
        }
    )

    name: str
    configured: bool
    reason: str | None = Field(description="Why it cannot be used here.")
    takes_address: bool
    address: Address | None


class ChannelSet(Channel):
    """A channel whose address was set; ``secret`` is shown this once."""

    secret: str | None = Field(
        default=None, description="What signs webhooks, as Standard Webhooks writes it."
    )


class ChannelList(BaseModel):
    """Every channel."""

    items: list[Channel]


class DeliveryError(BaseModel):
    """Why it was not taken, the last time."""

    code: str
    message: str | None


class Delivery(BaseModel):
    """A message to one address, and how it went."""

    id: int
    notification_id: int | None
    channel: str
    purpose: Literal["notification", "digest", "verification", "test"]
    message_id: str = Field(description="The same however often it is sent.")
    status: Literal["pending", "running", "completed", "failed", "cancelled", "skipped"]
    version: int
    attempt: int
    max_attempts: int
    error: DeliveryError | None
    retry_of: int | None
    available_at: datetime = Field(description="When it is sent, or sent again, at the earliest.")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None


class DeliveryList(BaseModel):
    """Messages about one notification, oldest first."""

    items: list[Delivery]


class AdminDelivery(Delivery):
    """A message, as auditors and operators see it."""

    user_id: UUID
    host: str
    worker: str | None


class AdminDeliveryPage(BaseModel):
    """Messages, newest first."""

    items: list[AdminDelivery]
    next_cursor: str | None


class ChannelHealth(BaseModel):
    """How a channel does; ``sent``, ``failed`` and ``cancelled`` within a day."""

    configured: bool
    reason: str | None
    pending: int
    due: int
    running: int
    retrying: int
    oldest_due_s: float | None
    sent: int
    failed: int
    cancelled: int
    addresses: dict[str, int]
    last_error: dict[str, Any] | None


class DeliveryHealth(BaseModel):
    """Every channel that sends, by name."""

    channels: dict[str, ChannelHealth]
