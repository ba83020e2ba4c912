"""Read the clock at the edge; rules take times as values."""

from datetime import UTC, datetime


def utcnow() -> datetime:
    """Give the present moment, aware, UTC."""
    return datetime.now(UTC)
