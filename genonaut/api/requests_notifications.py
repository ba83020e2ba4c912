"""Say what bodies about notifications may hold; what does not fit is a 422 that names the field."""

from datetime import time
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from genonaut.api.requests import Body, storable
from genonaut.core.text import is_unprinted
from genonaut.domain.notifications import MAX_BODY, MAX_TITLE
from genonaut.domain.preferences import Preferences
from genonaut.domain.quiet import QuietHours
from genonaut.worker.schedule import zones

_WALL = r"^(?:[01][0-9]|2[0-3]):[0-5][0-9]$"


def _line(value: str) -> str:
    storable(value)
    if not value.strip() or any(is_unprinted(char) for char in value):
        raise ValueError("must be one line, without control characters, and not blank")
    return value


def _zone(value: str) -> str:
    if value not in zones():
        raise ValueError("must be an IANA time zone, such as Europe/Berlin")
    return value


Word = Annotated[str, Field(max_length=50), AfterValidator(storable)]
Wall = Annotated[str, Field(pattern=_WALL, description="Hour and minute, as `22:30`.")]


class ReadRequest(Body):
    """Mark a notification."""

    read: bool


class PreferencesRequest(Body):
    """How one wants to hear; what is left out takes its default."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "kinds": {"job_completed": {"email": False}, "job_cancelled": {"in_app": False}},
                "timezone": "Europe/Berlin",
                "quiet_from": "22:00",
                "quiet_until": "07:00",
                "digest": "daily",
                "digest_hour": 8,
                "group_window_s": 60,
            }
        }
    )

    kinds: dict[Word, dict[Word, bool]] = Field(
        default={}, max_length=50, description="What to hear of, over which channel."
    )
    timezone: Annotated[str, Field(max_length=64), AfterValidator(_zone)] = Field(
        default="UTC", description="Whose wall clock the times below mean."
    )
    quiet_from: Wall | None = Field(default=None, description="Nothing is sent from then on …")
    quiet_until: Wall | None = Field(default=None, description="… until then.")
    digest: Literal["immediate", "daily"] = Field(
        default="immediate", description="`daily`: mail comes once a day, at `digest_hour`."
    )
    digest_hour: int = Field(default=8, ge=0, le=23, description="Hour of the daily digest.")
    group_window_s: int = Field(
        default=0,
        ge=0,
        le=3600,
        description="Jobs that complete within so many seconds are one notice; 0: each its own.",
    )

    @model_validator(mode="after")
    def _quiet_has_both_ends(self) -> "PreferencesRequest":
        if (self.quiet_from is None) != (self.quiet_until is None):
            raise ValueError("quiet_from and quiet_until come together")
        if self.quiet_from is not None and self.quiet_from == self.quiet_until:
            raise ValueError("quiet_from and quiet_until must differ")
        return self

    def to_preferences(self) -> Preferences:
        """Give it to the domain."""
        quiet = None
        if self.quiet_from is not None and self.quiet_until is not None:
            quiet = QuietHours(
                time.fromisoformat(self.quiet_from), time.fromisoformat(self.quiet_until)
            )
        return Preferences(
            choices=self.kinds,
            timezone=self.timezone,
            quiet=quiet,
            is_daily=self.digest == "daily",
            digest_hour=self.digest_hour,
            group_window_s=self.group_window_s,
        )


class AddressRequest(Body):
    """Where a channel is to reach one."""

    model_config = ConfigDict(json_schema_extra={"example": {"address": "ada@example.org"}})

    address: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(storable)] = Field(
        description="A mail address, or the URL of a webhook."
    )


class AnnouncementRequest(Body):
    """Tell a user, or all, something."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {"title": "Maintenance at 18:00 UTC", "body": "Half an hour."}
        }
    )

    username: Annotated[str, Field(max_length=50), AfterValidator(storable)] | None = Field(
        default=None, description="Left out: everyone."
    )
    kind: Literal["system"] = Field(default="system", description="The others tell themselves.")
    title: Annotated[str, Field(max_length=MAX_TITLE), AfterValidator(_line)] = Field(
        description="One line."
    )
    body: Annotated[str, Field(max_length=MAX_BODY), AfterValidator(storable)] = Field(
        default="", description="What there is to say."
    )
