"""Answer a request that is repeated under its Idempotency-Key as it was answered at first."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from fastapi import Header
from sqlalchemy.orm import Session
from starlette.responses import JSONResponse, Response

from genonaut.domain import idempotency
from genonaut.domain.idempotency import Answer, Ticket
from genonaut.domain.users import Principal

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Repeat the request with the same key and get the same answer, for a day.",
    ),
]

Make = Callable[[], tuple[Answer, Mapping[str, str]]]
"""Do what is asked; give the answer, and the headers that are for this time only."""


def once(
    session: Session, who: Principal, key: str | None, *, act: str, asked: Any, make: Make
) -> Response:
    """Do what is asked, or give the answer an earlier request of the same key got.

    ``act`` and ``asked`` are what a repetition must have in common with the first request.

    Raises:
        InvalidInputError: the key is malformed, or was used with another request.
        ConflictError: the same request is being worked on at this moment.
    """
    if key is None:
        return _response(*make())
    canonical = json.dumps([act, asked], sort_keys=True, separators=(",", ":"))
    ticket = Ticket(who.user_id, key, hashlib.sha256(canonical.encode()).hexdigest())
    earlier = idempotency.earlier_answer(session, ticket)
    if earlier is not None:
        return _response(earlier, {"Idempotency-Replayed": "true"})
    answer, headers = make()
    idempotency.remember(session, ticket, answer)
    return _response(answer, headers)


def _response(answer: Answer, headers: Mapping[str, str]) -> Response:
    location = {"Location": answer.location} if answer.location else {}
    return JSONResponse(answer.body, answer.status_code, headers={**location, **headers})
