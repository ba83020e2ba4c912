"""Write down how a user wants to hear."""

from collections.abc import Collection
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import InvalidInputError
from genonaut.db.models import NotificationPreference, UserNotification
from genonaut.domain import digests
from genonaut.domain.kinds import Kind
from genonaut.domain.preferences import Preferences, read
from genonaut.domain.quiet import digest_day


def save(
    session: Session, user_id: UUID, wanted: Preferences, *, channels: Collection[str]
) -> Preferences:
    """Keep what a user wants.

    Kinds left out of ``choices`` take their defaults. Whoever begins with daily digests gets the
    first for what happens from now on; whoever ends them gets a last one for what has waited.

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
    was_daily = before is not None and before.digest == "daily"
    if before is not None and was_daily and not wanted.is_daily:
        digests.make_last(session, before)
    if wanted.is_daily and not was_daily:
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
