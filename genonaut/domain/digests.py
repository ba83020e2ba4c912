"""Gather a user's day into one message, at the hour they chose."""

from datetime import date, datetime, timedelta

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from genonaut.db.models import NotificationAddress, NotificationPreference, UserNotification
from genonaut.domain import deliveries
from genonaut.domain.kinds import Kind
from genonaut.domain.preferences import Preferences
from genonaut.domain.quiet import digest_day

NAMED_AT_MOST = 50
_SETTLED = timedelta(minutes=1)
"""What is younger waits for the next: an older one may be committed after it."""


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

    Nothing new, no message. A second call for the same day makes none.
    """
    wanted = Preferences.of(row)
    new = (
        UserNotification.user_id == row.user_id,
        UserNotification.id > row.digested_to,
        UserNotification.created_at < func.now() - _SETTLED,
        UserNotification.group_id.is_(None),
    )
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
            .where(*new, UserNotification.kind.in_(kinds))
            .order_by(UserNotification.id.desc())
        ).all()
        if ids:
            planned.append(
                deliveries.values(
                    address,
                    subject=f"digest:{day.isoformat()}",
                    purpose="digest",
                    data={
                        "notification_ids": sorted(ids[:NAMED_AT_MOST]),
                        "total": len(ids),
                        "day": day.isoformat(),
                    },
                )
            )
    newest = session.scalars(select(func.max(UserNotification.id)).where(*new)).one()
    session.execute(
        update(NotificationPreference)
        .where(NotificationPreference.user_id == row.user_id)
        .values(digested_on=day, digested_to=newest or row.digested_to)
        .execution_options(synchronize_session=False)
    )
    return len(deliveries.store(session, planned))
