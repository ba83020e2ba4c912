"""Tell operators of schedules that are late: whoever should fire them cannot say so."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from genonaut.db.models import Schedule
from genonaut.domain import health, notifications
from genonaut.domain.kinds import Kind

NAMED_AT_MOST = 20


def tell_late(session: Session) -> int:
    """Tell of each due time that has passed over a minute ago, once; give how many were told of.

    Paused and disabled schedules are not late.
    """
    late = health.lateness(session)
    if not late.count:
        return 0
    rows = session.execute(
        select(Schedule.name, Schedule.next_due_at)
        .where(
            Schedule.paused_at.is_(None),
            Schedule.next_due_at < func.now() - timedelta(seconds=health.LATE_AFTER_S),
        )
        .order_by(Schedule.next_due_at, Schedule.name)
        .limit(NAMED_AT_MOST)
    ).all()
    told = 0
    for row in rows:
        due_at = row.next_due_at.isoformat(timespec="seconds")
        told += bool(
            notifications.tell_operators(
                session,
                Kind.SCHEDULE_LATE,
                dedupe_key=f"late:{row.name}:{due_at}",
                title=f"{row.name} is late",
                body=f"It was due at {due_at}, and nothing has fired it. Is beat running?",
                data={"schedule": row.name, "due_at": due_at},
            )
        )
    return told
