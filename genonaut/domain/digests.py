"""Gather a user's day into one message, at the hour they chose."""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from genonaut.db.models import NotificationAddress, NotificationPreference, UserNotification
from genonaut.domain import deliveries
from genonaut.domain.kinds import Kind
from genonaut.domain.preferences import Preferences
from genonaut.domain.quiet import digest_day, zone

NAMED_AT_MOST = 50
_SETTLED = timedelta(minutes=1)
"""What is younger waits for the next: an older one may be committed after it."""
_NO_ID = 2**63 - 1


def due(session: Session, *, limit: int) -> list[tuple[NotificationPreference, date]]:
    """Lock users whose digest of the day is due, and give the day; those locked are left out."""
    now: datetime = session.scalars(select(func.now())).one()
    wish = NotificationPreference
    hours = session.execute(
        select(wish.timezone, wish.digest_hour).where(wish.digest == "daily").distinct()
    ).all()
    found: list[tuple[NotificationPreference, date]] = []
    for timezone, hour in hours:
        day = digest_day(timezone, hour, now)
        query = (
            select(wish)
            .where(
                wish.digest == "daily",
                wish.timezone == timezone,
                wish.digest_hour == hour,
                func.coalesce(wish.digested_on, day - timedelta(days=1)) < day,
            )
            .limit(limit - len(found))
            .with_for_update(skip_locked=True)
        )
        found += [(row, day) for row in session.scalars(query)]
        if len(found) >= limit:
            break
    return found


def make(session: Session, row: NotificationPreference, day: date) -> int:
    """Plan the digest of one user's day for each address that takes it; give their number.

    Nothing new, no message. A second call for the same day makes none. A notice whose group is
    still open waits for the next, with what came after it.
    """
    news = UserNotification
    opened = select(func.min(news.id)).where(
        news.user_id == row.user_id, news.group_until > func.now()
    )
    settled = (
        news.created_at < func.now() - _SETTLED,
        news.id < func.coalesce(opened.scalar_subquery(), _NO_ID),
    )
    made = _plan(session, row, settled, subject=f"digest:{day.isoformat()}", day=day)
    newest = session.scalars(select(func.max(news.id)).where(*_new(row), *settled)).one()
    session.execute(
        update(NotificationPreference)
        .where(NotificationPreference.user_id == row.user_id)
        .values(digested_on=day, digested_to=newest or row.digested_to)
        .execution_options(synchronize_session=False)
    )
    return made


def make_last(session: Session, row: NotificationPreference) -> int:
    """Plan the digest of all that a user has not had in one, for who ends them; give their number.

    It is sent at once, or when the last group in it is complete.
    """
    newest, closed = session.execute(
        select(func.max(UserNotification.id), func.max(UserNotification.group_until)).where(
            *_new(row)
        )
    ).one()
    now: datetime = session.scalars(select(func.now())).one()
    return _plan(
        session,
        row,
        (),
        subject=f"digest:to:{newest}",
        day=now.astimezone(zone(row.timezone)).date(),
        available_at=max(now, closed + deliveries.GROUP_SETTLES if closed else now),
    )


def _new(row: NotificationPreference) -> tuple[ColumnElement[bool], ...]:
    news = UserNotification
    return (news.user_id == row.user_id, news.id > row.digested_to, news.group_id.is_(None))


def _plan(
    session: Session,
    row: NotificationPreference,
    further: Sequence[ColumnElement[bool]],
    *,
    subject: str,
    day: date,
    **columns: Any,
) -> int:
    wanted = Preferences.of(row)
    addresses = session.scalars(
        select(NotificationAddress).where(
            NotificationAddress.user_id == row.user_id,
            NotificationAddress.takes_digest,
            NotificationAddress.verified_at.is_not(None),
            NotificationAddress.disabled_at.is_(None),
        )
    ).all()
    planned = []
    for address in addresses:
        kinds = [kind for kind in Kind if wanted.wants(kind, address.channel)]
        ids = session.scalars(
            select(UserNotification.id)
            .where(*_new(row), *further, UserNotification.kind.in_(kinds))
            .order_by(UserNotification.id.desc())
        ).all()
        if ids:
            planned.append(
                deliveries.values(
                    address,
                    subject=subject,
                    purpose="digest",
                    data={
                        "notification_ids": sorted(ids[:NAMED_AT_MOST]),
                        "total": len(ids),
                        "day": day.isoformat(),
                    },
                    **columns,
                )
            )
    return len(deliveries.store(session, planned))
