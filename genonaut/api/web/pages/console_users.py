"""Look after users and tokens; for admins."""

from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Request
from starlette.responses import Response

from genonaut.api.deps import Id
from genonaut.api.requests_users import TokenRequest, UserChange, UserRequest
from genonaut.api.routes import users as routes
from genonaut.api.web import lists
from genonaut.api.web.checking import FormError, check, whole
from genonaut.api.web.pages.console import answer_body
from genonaut.api.web.visitor import Form, FormDep, PageRoute, Visitor, VisitorDep
from genonaut.core.clock import utcnow
from genonaut.core.errors import GenonautError
from genonaut.domain import accounts
from genonaut.domain.users import Role

router = APIRouter(prefix="/console/users", include_in_schema=False, route_class=PageRoute)

_HERE = "/console/users"
_PAGE = 50
_TOKENS = 100
_ROLES = list(Role)


@router.get("")
def list_all(request: Request, visitor: VisitorDep) -> Response:
    """List users by name, and offer to make one."""
    return _list(request, visitor)


@router.post("")
def create(request: Request, form: FormDep) -> Response:
    """Make a user."""
    typed = {name: form.get(name) for name in ("username", "email", "role")}
    try:
        asked = check(UserRequest, {**typed, "email": typed["email"] or None})
        made = answer_body(routes.create(asked, form.visitor.caller))
    except (FormError, GenonautError) as error:
        return _list(request, form.visitor, typed=typed, errors=_wrong(error))
    told = f"{made['username']} is made; a token lets them log in."
    return form.visitor.lead(f"{_HERE}/{made['id']}", told)


@router.get("/{user_id}")
def read(user_id: UUID, visitor: VisitorDep) -> Response:
    """Show one user and their tokens."""
    return _show(visitor, user_id)


@router.post("/{user_id}")
def change(user_id: UUID, form: FormDep) -> Response:
    """Change role, address, or whether one may log in; what was not touched stays as it is now.

    So nobody lets in again whom another admin locked out since the page was read.
    """
    visitor = form.visitor
    typed, was = _account(form), _account(form, "was.")
    touched = {name: typed[name] for name in typed if not was["role"] or typed[name] != was[name]}
    if "email" in touched:
        touched["email"] = touched["email"] or None
    try:
        routes.change(user_id, check(UserChange, touched), visitor.caller)
    except (FormError, GenonautError) as error:
        return _show(visitor, user_id, typed=typed, was=was, errors=_wrong(error))
    with visitor.look() as view:
        may_stay = view.who.role.includes(Role.ADMIN)
    return visitor.lead(f"{_HERE}/{user_id}" if may_stay else "/", "It is changed.")


@router.get("/{user_id}/tokens")
def back(user_id: UUID, request: Request, visitor: VisitorDep) -> Response:
    """Lead who comes back to the page that showed a new token to its user."""
    query = f"?{request.url.query}" if request.url.query else ""
    return visitor.lead(f"{_HERE}/{user_id}{query}")


@router.post("/{user_id}/tokens")
def create_token(user_id: UUID, form: FormDep) -> Response:
    """Make a token and show it, in this very answer and nowhere else."""
    visitor = form.visitor
    typed = {"name": form.get("name"), "days": form.get("days")}
    try:
        asked = check(
            TokenRequest, {**typed, "days": whole(typed["days"]) if typed["days"] else None}
        )
        made = answer_body(routes.create_token(user_id, asked, visitor.caller))
    except (FormError, GenonautError) as error:
        return _show(visitor, user_id, new_token=typed, errors=_wrong(error))
    return _show(visitor, user_id, made=made)


@router.post("/{user_id}/tokens/{token_id}/revoke")
def revoke_token(user_id: UUID, token_id: Id, form: FormDep) -> Response:
    """End a token, and its user's browser sessions."""
    routes.revoke_token(user_id, token_id, form.visitor.caller)
    return form.visitor.lead(f"{_HERE}/{user_id}", "The token is good for nothing any more.")


def _account(form: Form, before: str = "") -> dict[str, Any]:
    """Read an account as typed; with ``was.`` as it was when the page was read."""
    return {
        "role": form.get(f"{before}role"),
        "email": form.get(f"{before}email"),
        "is_active": form.has(f"{before}active"),
    }


def _wrong(error: FormError | GenonautError) -> dict[str, str]:
    """Say of each field what is wrong, of the whole under ``""``; what no form mends is raised."""
    if isinstance(error, FormError):
        return error.errors
    if error.http_status not in {409, 422}:
        raise error
    return {error.field or "": str(error)}


def _list(
    request: Request,
    visitor: Visitor,
    *,
    typed: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    words, role = lists.asked(request, "q"), lists.asked(request, "role")
    after = lists.asked(request, "cursor")
    roles = [one for one in _ROLES if one == role]
    with visitor.look(Role.ADMIN) as view:
        rows = accounts.list_users(
            view.session, words=words, roles=roles, after=after or None, limit=_PAGE + 1
        )
        shown = [accounts.public(row) for row in rows[:_PAGE]]
    following = {"q": words, "role": role, "cursor": shown[-1]["username"] if shown else ""}
    return visitor.show(
        "console/users.html",
        view,
        active="users",
        status=422 if errors else 200,
        users=shown,
        words=words,
        chosen=role,
        roles=_ROLES,
        typed=typed or {"username": "", "email": "", "role": Role.USER},
        errors=errors or {},
        following=f"{_HERE}?{urlencode(following)}" if len(rows) > _PAGE else None,
    )


def _show(
    visitor: Visitor,
    user_id: UUID,
    *,
    typed: dict[str, Any] | None = None,
    was: dict[str, Any] | None = None,
    new_token: dict[str, str] | None = None,
    made: dict[str, Any] | None = None,
    errors: dict[str, str] | None = None,
) -> Response:
    """Show a user; ``made`` is a token made just now, which is shown this once."""
    with visitor.look(Role.ADMIN) as view:
        user = accounts.public(accounts.one(view.session, user_id))
        before = lists.before(visitor.request)
        rows = accounts.list_tokens(view.session, user_id, before=before, limit=_TOKENS + 1)
        tokens, following = lists.split(visitor.request, rows, _TOKENS)
        now = utcnow()
        shown = [accounts.public_token(row, now) for row in tokens]
    return visitor.show(
        "console/user.html",
        view,
        active="users",
        status=422 if errors else 200,
        user=user,
        tokens=shown,
        following=following,
        roles=_ROLES,
        typed=typed or user,
        was=was or user,
        new_token=new_token or {"name": "", "days": ""},
        made=made,
        max_days=accounts.MAX_TOKEN_DAYS,
        is_self=view.who.user_id == user_id,
        errors=errors or {},
    )
