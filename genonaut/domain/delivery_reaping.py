"""Say which messages are stuck and what becomes of them; see ``domain/reaping.py``."""

from typing import Any

from sqlalchemy.orm import Session

from genonaut.db.models import NotificationDelivery
from genonaut.domain import repairs
from genonaut.domain.deliveries import DELIVERIES
from genonaut.domain.lifecycle import Status
from genonaut.domain.repairs import Conditions, Limits, Rule, Verdict


def _judge_lost(row: NotificationDelivery, _: Limits) -> Verdict:
    """The one that was being sent is repeated, under the same id."""
    return repairs.judge_lost(row, goes_on=row.attempt < row.max_attempts)


def _take_back(
    session: Session, row: NotificationDelivery, when: Conditions, verdict: Verdict, _: Limits
) -> Status:
    again = repairs.DUE_AGAIN if verdict.becomes is Status.PENDING else {}
    told: dict[str, Any] = {"error_code": "worker_lost", "error_message": verdict.why}
    DELIVERIES.move(session, row.id, verdict.becomes, when=when, **again, **told)
    return verdict.becomes


def _name(row: NotificationDelivery) -> str:
    return f"{row.purpose} by {row.channel}"


WORKER_LOST = Rule(
    "worker_lost",
    "delivery",
    NotificationDelivery,
    is_stale=lambda limits: repairs.lease_has_ended(NotificationDelivery, limits),
    since=lambda _: NotificationDelivery.lease_expires_at.expression,
    judge=_judge_lost,
    act=_take_back,
    what=_name,
    takes_from_holders=True,
)

DELIVERY_RULES: tuple[Rule[Any], ...] = (WORKER_LOST,)
