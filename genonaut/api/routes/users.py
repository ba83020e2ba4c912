"""Let admins make and change users, and give and take away their tokens."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Request
from pydantic import AfterValidator
from starlette.responses import JSONResponse, Response

from genonaut.api import answers_users as answers
from genonaut.api import pagination, repeats
from genonaut.api.answers import CHANGING, POSTING, READING, problems
from genonaut.api.deps import CallerDep, Id
from genonaut.api.pagination import CursorParam, LimitParam
from genonaut.api.repeats import KeyHeader
from genonaut.api.requests import storable
from genonaut.api.requests_users import TokenRequest, UserChange, UserRequest
from genonaut.api.triggering import Made
from genonaut.core.clock import utcnow
from genonaut.domain import accounts, users
from genonaut.domain.idempotency import Answer
from genonaut.domain.users import Role

router = APIRouter(prefix="/admin/users", tags=["users"])

USERS = "/api/v1/admin/users"

_LOCATION = {"Location": {"description": "The user.", "schema": {"type": "string"}}}


@router.get(
    "",
    operation_id="listUsers",
    responses={200: {"model": answers.UserPage}, **READING, **problems(403)},
)
def list_users(
    request: Request,
    caller: CallerDep,
    q: Annotated[
        str,
        Query(max_length=100, description="A part of the name or the address."),
        AfterValidator(storable),
    ] = "",
    role: Annotated[list[Role] | None, Query(description="Any of these.")] = None,
    is_active: Annotated[
        bool | None, Query(description="Only who may, or may not, log in.")
    ] = None,
    limit: LimitParam = 50,
    cursor: Annotated[
        str | None,
        Query(max_length=100, description="`next_cursor` of the page before."),
        AfterValidator(lambda value: value if value is None else storable(value)),
    ] = None,
) -> Response:
    """List users by name."""
    with caller.transaction(role=Role.ADMIN) as (session, _):
        rows = accounts.list_users(
            session,
            words=q.strip(),
            roles=role or (),
            is_active=is_active,
            after=cursor,
            limit=limit + 1,
        )
    return pagination.page(
        request, rows, limit, accounts.public, cursor_of=lambda row: row.username
    )


@router.post(
    "",
    status_code=201,
    operation_id="createUser",
    responses={201: {"model": answers.User, "headers": _LOCATION}, **POSTING, **problems(409)},
)
def create(body: UserRequest, caller: CallerDep, key: KeyHeader = None) -> Response:
    """Make a user, who can log in with a token made for them."""
    with caller.transaction(role=Role.ADMIN) as (session, who):

        def make() -> Made:
            user = users.create_user(session, body.username, role=Role(body.role), email=body.email)
            details = {"role": user.role, "email": user.email}
            users.audit(session, who, "user.create", f"user:{user.username}", details)
            return Answer(201, f"{USERS}/{user.id}", accounts.public(user)), {}

        return repeats.once(
            session, who, key, act="user.create", asked=body.model_dump(), make=make
        )


@router.get(
    "/{user_id}",
    operation_id="readUser",
    responses={200: {"model": answers.User}, **READING, **problems(403, 404)},
)
def read(user_id: UUID, caller: CallerDep) -> Response:
    """Read one."""
    with caller.transaction(role=Role.ADMIN) as (session, _):
        return JSONResponse(accounts.public(accounts.one(session, user_id)))


@router.patch(
    "/{user_id}",
    operation_id="changeUser",
    responses={200: {"model": answers.User}, **POSTING, **problems(404, 409)},
)
def change(user_id: UUID, body: UserChange, caller: CallerDep) -> Response:
    """Change role, address, or whether one may log in; the last active admin stays one.

    The name stays: schedules, runs and the audit log tell by it who did what.
    """
    with caller.transaction(role=Role.ADMIN) as (session, who):
        user, changes = accounts.change(session, user_id, body.to_wanted())
        if changes:
            target = f"user:{user.username}"
            users.audit(session, who, "user.change", target, {"changes": changes})
        return JSONResponse(accounts.public(user))


@router.get(
    "/{user_id}/tokens",
    operation_id="listTokens",
    responses={200: {"model": answers.TokenPage}, **READING, **problems(403, 404)},
)
def list_tokens(
    user_id: UUID,
    request: Request,
    caller: CallerDep,
    limit: LimitParam = 50,
    cursor: CursorParam = None,
) -> Response:
    """List a user's tokens, newest first, revoked ones too until they are purged."""
    before = pagination.decode(cursor)
    with caller.transaction(role=Role.ADMIN) as (session, _):
        accounts.one(session, user_id)
        rows = accounts.list_tokens(session, user_id, before=before, limit=limit + 1)
    now = utcnow()
    return pagination.page(request, rows, limit, lambda row: accounts.public_token(row, now))


@router.post(
    "/{user_id}/tokens",
    status_code=201,
    operation_id="createToken",
    responses={201: {"model": answers.NewToken}, **POSTING, **problems(404)},
)
def create_token(user_id: UUID, body: TokenRequest, caller: CallerDep) -> Response:
    """Make a token and show it, this once.

    No Idempotency-Key is heeded: answering twice would mean keeping the token.
    """
    ttl = None if body.days is None else timedelta(days=body.days)
    with caller.transaction(role=Role.ADMIN) as (session, who):
        user = accounts.one(session, user_id)
        row, token = accounts.issue_token(session, user_id, name=body.name, ttl=ttl)
        details = {"token_id": row.id, "name": row.name, "days": body.days}
        users.audit(session, who, "token.create", f"user:{user.username}", details)
        return JSONResponse({**accounts.public_token(row, utcnow()), "token": token}, 201)


@router.delete(
    "/{user_id}/tokens/{token_id}",
    status_code=204,
    operation_id="revokeToken",
    responses={
        204: {"description": "It is good for nothing any more; it may have been so before."},
        **CHANGING,
        **problems(404),
    },
)
def revoke_token(user_id: UUID, token_id: Id, caller: CallerDep) -> Response:
    """End a token at once, and its user's browser sessions, which may have been opened with it."""
    with caller.transaction(role=Role.ADMIN) as (session, who):
        user = accounts.one(session, user_id)
        ended = accounts.revoke_token(session, token_id, of=user_id)
        if ended is not None:
            details = {"token_id": token_id, "name": ended.name}
            users.audit(session, who, "token.revoke", f"user:{user.username}", details)
    return Response(status_code=204)
