"""Show who did what; it is written by :func:`genonaut.domain.users.audit`."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.db.models import AuditEntry


def entries(
    session: Session, *, target: str | None = None, before: int | None = None, limit: int = 50
) -> list[AuditEntry]:
    """List acts, those on ``target`` or all, newest first, older than the id ``before``."""
    query = select(AuditEntry)
    if target is not None:
        query = query.where(AuditEntry.target == target)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    return list(session.scalars(query.order_by(AuditEntry.id.desc()).limit(limit)))


def public(entry: AuditEntry) -> dict[str, Any]:
    """Give what auditors see, ready for JSON."""
    return {
        "id": entry.id,
        "at": entry.at.isoformat(),
        "actor": entry.actor,
        "actor_id": str(entry.actor_id) if entry.actor_id else None,
        "action": entry.action,
        "target": entry.target,
        "details": entry.details,
    }
