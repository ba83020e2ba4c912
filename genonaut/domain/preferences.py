"""Know how a user wants to hear: which kinds over which channel, when, and how much at once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session

from genonaut.db.models import NotificationPreference
from genonaut.domain.kinds import Kind
from genonaut.domain.quiet import QuietHours, quiet_until

IN_APP = "in_app"

_NOT_UNASKED = {(Kind.JOB_CANCELLED, "email")}
_NOWHERE_UNASKED = {Kind.RECOMMENDATION}
"""What is told only to those who chose it, over a channel or over any."""


@dataclass(frozen=True, slots=True)
class Preferences:
    """What a user wants; made without values, what one wants who never said.

    ``choices`` maps kinds to channels to yes or no; what is not in it takes its default.
    """

    choices: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    timezone: str = "UTC"
    quiet: QuietHours | None = None
    is_daily: bool = False
    digest_hour: int = 8
    group_window_s: int = 0

    @classmethod
    def of(cls, row: Any) -> "Preferences":
        """Read a row, or a result row with its columns; None among them means the defaults."""
        if row is None or row.timezone is None:
            return cls()
        quiet = QuietHours(row.quiet_from, row.quiet_until) if row.quiet_from is not None else None
        return cls(
            choices=row.choices,
            timezone=row.timezone,
            quiet=quiet,
            is_daily=row.digest == "daily",
            digest_hour=row.digest_hour,
            group_window_s=row.group_window_s,
        )

    def wants(self, kind: str, channel: str) -> bool:
        """Whether facts of this kind are to go over this channel."""
        chosen = self.choices.get(kind, {}).get(channel)
        if chosen is not None:
            return chosen
        return kind not in _NOWHERE_UNASKED and (kind, channel) not in _NOT_UNASKED

    def quiet_until(self, now: datetime) -> datetime | None:
        """Give when the quiet that holds ``now`` is over; None when it is not quiet."""
        return quiet_until(self.quiet, self.timezone, now)

    def public(self, channels: Collection[str]) -> dict[str, Any]:
        """Give it ready for JSON, every kind and channel spelt out."""
        quiet = self.quiet
        return {
            "kinds": {
                kind.value: {channel: self.wants(kind, channel) for channel in channels}
                for kind in Kind
            },
            "timezone": self.timezone,
            "quiet_from": quiet.begin.strftime("%H:%M") if quiet else None,
            "quiet_until": quiet.end.strftime("%H:%M") if quiet else None,
            "digest": "daily" if self.is_daily else "immediate",
            "digest_hour": self.digest_hour,
            "group_window_s": self.group_window_s,
        }


def read(session: Session, user_id: UUID) -> Preferences:
    """Give what a user wants."""
    return Preferences.of(session.get(NotificationPreference, user_id))
