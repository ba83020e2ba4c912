"""Know which processes are alive: each writes a row, health reads it."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.db.models import Heartbeat

FORGET_AFTER_S = 24 * 3600


def beat(
    session: Session, name: str, *, kind: str, started_at: datetime, info: dict[str, Any]
) -> None:
    """Record that the process ``name`` is alive now."""
    values = {"kind": kind, "started_at": started_at, "seen_at": func.now(), "info": info}
    session.execute(
        insert(Heartbeat)
        .values(name=name, **values)
        .on_conflict_do_update(index_elements=["name"], set_=values)
    )


def leave(session: Session, name: str) -> None:
    """Forget a process that ended in good order."""
    session.execute(delete(Heartbeat).where(Heartbeat.name == name))


def forget_old(session: Session) -> None:
    """Drop the rows of processes not seen for a day."""
    session.execute(
        delete(Heartbeat).where(Heartbeat.seen_at < func.now() - timedelta(seconds=FORGET_AFTER_S))
    )


def ages(
    session: Session, *, kind: str | None = None, queue: str | None = None
) -> dict[str, float]:
    """Give the seconds since each process was last seen, by name; ``queue``: who serves it."""
    query = select(
        Heartbeat.name, func.extract("epoch", func.now() - Heartbeat.seen_at).label("age_s")
    )
    if kind is not None:
        query = query.where(Heartbeat.kind == kind)
    if queue is not None:
        query = query.where(Heartbeat.info.contains({"queues": [queue]}))
    return {name: float(age_s) for name, age_s in session.execute(query)}
