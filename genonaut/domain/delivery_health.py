"""Say how the channels do: what waits, what was sent and refused lately, which addresses rest."""

from datetime import timedelta
from typing import Any

from sqlalchemy import Float, func, or_, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session

from genonaut.db.models import NotificationAddress, NotificationDelivery
from genonaut.domain.lifecycle import Status

LATELY = timedelta(hours=24)

_WAITING = ("pending", "due", "running", "retrying", "oldest_due_s")


def by_channel(session: Session) -> dict[str, dict[str, Any]]:
    """Count per channel; ``sent``, ``failed`` and ``cancelled`` within a day, ages in seconds."""
    found: dict[str, dict[str, Any]] = {}
    for channel, counted in waiting(session).items():
        found.setdefault(channel, nothing()).update(counted)
    for channel, status, count in _ended(session):
        name = {"completed": "sent"}.get(status, status)
        found.setdefault(channel, nothing())[name] = count
    for channel, verified, disabled, count in _addresses(session):
        state = "disabled" if disabled else "active" if verified else "unverified"
        found.setdefault(channel, nothing())["addresses"][state] += count
    for channel, told in found.items():
        told["last_error"] = _last_error(session, channel)
    return found


def nothing() -> dict[str, Any]:
    """Give the counts of a channel over which nobody ever heard."""
    counts = dict.fromkeys(("pending", "due", "running", "retrying", "sent", "failed"), 0)
    addresses = dict.fromkeys(("active", "unverified", "disabled"), 0)
    more = {"cancelled": 0, "oldest_due_s": None, "last_error": None}
    return {**counts, **more, "addresses": addresses}


def waiting(session: Session) -> dict[str, dict[str, Any]]:
    """Count what is unfinished, per channel that has any; the age in seconds."""
    model = NotificationDelivery
    pending = model.status == Status.PENDING
    is_due = pending & (model.available_at <= func.now())
    is_running = model.status == Status.RUNNING
    age_s = func.extract("epoch", func.now() - func.min(model.available_at).filter(is_due))
    found = session.execute(
        select(
            model.channel,
            func.count().filter(pending),
            func.count().filter(is_due),
            func.count().filter(is_running),
            func.count().filter(pending & model.error_code.is_not(None)),
            sql_cast(func.round(age_s, 1), Float),
        )
        # Not IN, for which PostgreSQL joins no partial indexes and reads all that was ever sent.
        .where(or_(pending, is_running))
        .group_by(model.channel)
    )
    return {channel: dict(zip(_WAITING, counted, strict=True)) for channel, *counted in found}


def _ended(session: Session) -> list[Any]:
    model = NotificationDelivery
    return list(
        session.execute(
            select(model.channel, model.status, func.count())
            .where(model.completed_at > func.now() - LATELY)
            .group_by(model.channel, model.status)
        )
    )


def _addresses(session: Session) -> list[Any]:
    verified = NotificationAddress.verified_at.is_not(None)
    disabled = NotificationAddress.disabled_at.is_not(None)
    return list(
        session.execute(
            select(NotificationAddress.channel, verified, disabled, func.count()).group_by(
                NotificationAddress.channel, verified, disabled
            )
        )
    )


def _last_error(session: Session, channel: str) -> dict[str, Any] | None:
    model = NotificationDelivery
    row = session.execute(
        select(model.id, model.error_code, model.error_message, model.updated_at)
        .where(model.channel == channel, model.status.in_([Status.FAILED, Status.PENDING]))
        .where(model.error_code.is_not(None), model.updated_at > func.now() - LATELY)
        .order_by(model.id.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return None
    return {
        "delivery_id": row.id,
        "code": row.error_code,
        "message": row.error_message,
        "at": row.updated_at.isoformat(),
    }
