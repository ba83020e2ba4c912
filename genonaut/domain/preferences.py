"""Know how a user wants to hear: which kinds over which channel, when, and how much at once."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import NotificationPreference, UserNotification
from genonaut.domain.kinds import Kind
from genonaut.domain.quiet import QuietHours, digest_day, quiet_until

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


def save(
    session: Session, user_id: UUID, wanted: Preferences, *, channels: Collection[str]
) -> Preferences:
    """Keep what a user wants.

    Kinds left out of ``choices`` take their defaults. Whoever begins with daily digests gets the
    first for what happens from now on.

    Raises: InvalidInputError: a kind or channel that there is not; ``field`` names it.
    """
    _check(wanted, channels)
    now: datetime = session.scalars(select(func.now())).one()
    quiet = wanted.quiet
    values: dict[str, Any] = {
        "choices": {kind: dict(chosen) for kind, chosen in wanted.choices.items()},
        "timezone": wanted.timezone,
        "quiet_from": quiet.begin if quiet else None,
        "quiet_until": quiet.end if quiet else None,
        "digest": "daily" if wanted.is_daily else "immediate",
        "digest_hour": wanted.digest_hour,
        "group_window_s": wanted.group_window_s,
        "updated_at": func.now(),
    }
    before = session.get(NotificationPreference, user_id, with_for_update=True)
    if wanted.is_daily and (before is None or before.digest != "daily"):
        values |= {
            "digested_on": digest_day(wanted.timezone, wanted.digest_hour, now),
            "digested_to": _newest(user_id),
        }
    session.execute(
        insert(NotificationPreference)
        .values(user_id=user_id, **values)
        .on_conflict_do_update(index_elements=["user_id"], set_=values)
        .execution_options(populate_existing=True)
    )
    session.expire_all()
    return read(session, user_id)


def _newest(user_id: UUID) -> Any:
    newest = func.coalesce(func.max(UserNotification.id), 0)
    return select(newest).where(UserNotification.user_id == user_id).scalar_subquery()


def _check(wanted: Preferences, channels: Collection[str]) -> None:
    for kind, chosen in wanted.choices.items():
        if kind not in set(Kind):
            raise InvalidInputError(f"there is no kind {kind[:50]!r}", field=f"kinds.{kind[:50]}")
        for channel in chosen:
            if channel not in channels:
                raise InvalidInputError(
                    f"there is no channel {channel[:50]!r}", field=f"kinds.{kind}.{channel[:50]}"
                )
