"""Answer a repeated request with the answer it got the first time."""

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import ConflictError, InvalidInputError
from genonaut.db.models import IdempotencyKey, WebhookReceipt

KEEP = timedelta(hours=24)

_FIELD = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a creating request was answered."""

    status_code: int
    location: str | None
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request made under a key: who made it, and the hash of what it asked for."""

    user_id: UUID
    key: str
    body_hash: str


def earlier_answer(session: Session, request: Ticket) -> Answer | None:
    """Give the answer this request got before; None when it is the first of its kind.

    The key is locked to the end of the transaction, in which :func:`remember` is to be called.

    Raises:
        InvalidInputError: the key is malformed, or was used with another request.
        ConflictError: the same request is being worked on at this moment.
    """
    if not _KEY.fullmatch(request.key):
        raise InvalidInputError("must be 1 to 255 visible ASCII characters", field=_FIELD)
    name = f"idempotency:{request.user_id}:{request.key}"
    if not session.scalar(select(func.pg_try_advisory_xact_lock(func.hashtextextended(name, 0)))):
        raise ConflictError(
            "a request with this Idempotency-Key is being worked on", code="request_in_flight"
        )
    # A statement of its own: its snapshot must be younger than the lock.
    row = session.execute(
        select(
            IdempotencyKey.body_hash,
            IdempotencyKey.status_code,
            IdempotencyKey.location,
            IdempotencyKey.answer,
        ).where(
            IdempotencyKey.user_id == request.user_id,
            IdempotencyKey.key == request.key,
            IdempotencyKey.expires_at > func.now(),
        )
    ).one_or_none()
    if row is None:
        return None
    if row.body_hash != request.body_hash:
        raise InvalidInputError(
            "this key was used with another request", field=_FIELD, code="idempotency_key_reused"
        )
    return Answer(row.status_code, row.location, row.answer)


def remember(session: Session, request: Ticket, answer: Answer) -> None:
    """Keep the answer for a day; an expired one under the same key makes room."""
    values = {
        "body_hash": request.body_hash,
        "status_code": answer.status_code,
        "location": answer.location,
        "answer": answer.body,
        "created_at": func.now(),
        "expires_at": func.now() + KEEP,
    }
    session.execute(
        insert(IdempotencyKey)
        .values(user_id=request.user_id, key=request.key, **values)
        .on_conflict_do_update(index_elements=["user_id", "key"], set_=values)
    )


def is_first_receipt(session: Session, signature: str) -> bool:
    """Record a signed webhook, by its signature; False when it came before."""
    first = session.scalar(
        insert(WebhookReceipt)
        .values(signature=signature)
        .on_conflict_do_nothing()
        .returning(WebhookReceipt.signature)
    )
    return first is not None
