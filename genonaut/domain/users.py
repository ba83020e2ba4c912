"""Know who is asking: accounts, roles, API tokens, browser sessions, one-time links and tickets."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from genonaut.core.tokens import digest, new_token
from genonaut.db.models import ApiToken, AuditEntry, LoginSession, User

TOUCH_EVERY = timedelta(minutes=1)
LOGIN_LINK_TTL = timedelta(minutes=10)

_USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")

OneTime = Literal["login", "ticket"]


class Role(StrEnum):
    """What an account may do; each role may do all that the ones before it may."""

    USER = "user"
    AUDITOR = "auditor"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: "Role") -> bool:
        """Whether this role may do what ``other`` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. ``expires_at`` is when this login ends, None for never."""

    user_id: UUID
    username: str
    role: Role
    expires_at: datetime | None = None


def create_user(
    session: Session, username: str, *, role: Role = Role.USER, email: str | None = None
) -> User:
    """Open an account.

    Raises:
        InvalidInputError: the name is not 1 to 50 lower-case letters, digits, ``.``, ``_``, ``-``.
        ConflictError: the name or the address is taken.
    """
    if not _USERNAME.fullmatch(username):
        raise InvalidInputError(
            "must be 1 to 50 lower-case letters, digits, '.', '_' or '-',"
            " and begin with a letter or digit",
            field="username",
        )
    user = session.scalars(
        insert(User)
        .values(username=username, role=role, email=email)
        .on_conflict_do_nothing()
        .returning(User)
    ).one_or_none()
    if user is None:
        raise ConflictError(f"a user {username!r} exists already, or the address is taken")
    return user


def find_user(session: Session, username: str) -> User:
    """Give the account of that name.

    Raises: NotFoundError: there is none.
    """
    user = session.scalars(select(User).where(User.username == username)).one_or_none()
    if user is None:
        raise NotFoundError(f"there is no user {username!r}")
    return user


def issue_token(session: Session, user_id: UUID, *, name: str, ttl: timedelta | None = None) -> str:
    """Make an API token and give it: the only time it can be read."""
    if not name.strip() or len(name) > 100:
        raise InvalidInputError("must be 1 to 100 characters", field="name")
    token = new_token()
    session.add(
        ApiToken(
            user_id=user_id,
            name=name.strip(),
            token_hash=digest(token),
            expires_at=None if ttl is None else func.now() + ttl,
        )
    )
    return token


def list_tokens(session: Session, user_id: UUID) -> list[ApiToken]:
    """List a user's tokens, oldest first; what they were is not known any more."""
    return list(
        session.scalars(select(ApiToken).where(ApiToken.user_id == user_id).order_by(ApiToken.id))
    )


def revoke_token(session: Session, token_id: int) -> None:
    """End a token, and its user's browser sessions, which may have been opened with it.

    Raises: NotFoundError: there is no such token. Revoking twice is harmless.
    """
    user_id = session.scalars(
        update(ApiToken)
        .where(ApiToken.id == token_id)
        .values(revoked_at=func.coalesce(ApiToken.revoked_at, func.now()))
        .returning(ApiToken.user_id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if user_id is None:
        raise NotFoundError("there is no such token")
    session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))


def authenticate_token(session: Session, token: str) -> Principal:
    """Give the user of a valid token: one statement, and once a minute a second one.

    Raises: UnauthorizedError: unknown, expired or revoked, or its user is not active.
    """
    row = session.execute(
        select(
            User.id,
            User.username,
            User.role,
            ApiToken.expires_at,
            ApiToken.id.label("token_id"),
            or_(
                ApiToken.last_used_at.is_(None), ApiToken.last_used_at < func.now() - TOUCH_EVERY
            ).label("stale"),
        )
        .join(User, User.id == ApiToken.user_id)
        .where(
            ApiToken.token_hash == digest(token),
            User.is_active,
            ApiToken.revoked_at.is_(None),
            or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > func.now()),
        )
    ).one_or_none()
    principal = _principal(row)
    if row is not None and row.stale:
        _touch(session, row.token_id)
    return principal


def _touch(session: Session, token_id: int) -> None:
    # Requests with one token come together: whoever does not get the row at once leaves it.
    free = select(ApiToken.id).where(ApiToken.id == token_id).with_for_update(skip_locked=True)
    session.execute(
        update(ApiToken)
        .where(ApiToken.id.in_(free))
        .values(last_used_at=func.now())
        .execution_options(synchronize_session=False)
    )


def open_session(
    session: Session, user_id: UUID, *, ttl: timedelta, until: datetime | None = None
) -> str:
    """Begin a browser session and give its token; it ends after ``ttl``, at ``until`` at latest."""
    return _open(session, user_id, "session", ttl, until)


def authenticate_session(session: Session, token: str) -> Principal:
    """Give the user of a valid browser session.

    Raises: UnauthorizedError: unknown or expired, or its user is not active.
    """
    return _principal(
        session.execute(
            select(User.id, User.username, User.role, LoginSession.expires_at)
            .join(User, User.id == LoginSession.user_id)
            .where(
                LoginSession.token_hash == digest(token),
                LoginSession.kind == "session",
                LoginSession.expires_at > func.now(),
                User.is_active,
            )
        ).one_or_none()
    )


def close_session(session: Session, token: str) -> None:
    """End a browser session; one that has ended already is fine."""
    session.execute(
        delete(LoginSession).where(
            LoginSession.token_hash == digest(token), LoginSession.kind == "session"
        )
    )


def issue_login_link(session: Session, user_id: UUID, *, ttl: timedelta = LOGIN_LINK_TTL) -> str:
    """Give a token that signs its user in once."""
    return _open(session, user_id, "login", ttl, None)


def issue_ticket(
    session: Session, user_id: UUID, *, ttl: timedelta, until: datetime | None = None
) -> str:
    """Give a token that opens one WebSocket, for programs that cannot send a header with it."""
    return _open(session, user_id, "ticket", ttl, until)


def redeem(session: Session, token: str, kind: OneTime) -> Principal:
    """Use up a login link or a ticket; of two who try at once, one succeeds.

    Raises: UnauthorizedError: used, expired or unknown, or its user is not active.
    """
    return _principal(
        session.execute(
            delete(LoginSession)
            .where(
                LoginSession.token_hash == digest(token),
                LoginSession.kind == kind,
                LoginSession.expires_at > func.now(),
                User.id == LoginSession.user_id,
                User.is_active,
            )
            .returning(User.id, User.username, User.role, null().label("expires_at"))
            .execution_options(synchronize_session=False)
        ).one_or_none()
    )


def audit(
    session: Session,
    actor: Principal | str,
    action: str,
    target: str,
    details: dict[str, Any] | None = None,
) -> None:
    """Write down who did what, in the transaction of the act; a text names a program."""
    who = actor.username if isinstance(actor, Principal) else actor
    session.add(
        AuditEntry(
            actor_id=actor.user_id if isinstance(actor, Principal) else None,
            actor=who,
            action=action,
            target=target,
            details=details or {},
        )
    )


def _open(
    session: Session, user_id: UUID, kind: str, ttl: timedelta, until: datetime | None
) -> str:
    token = new_token()
    session.execute(
        delete(LoginSession).where(
            LoginSession.user_id == user_id, LoginSession.expires_at < func.now()
        )
    )
    ends: Any = func.now() + ttl
    session.add(
        LoginSession(
            user_id=user_id,
            kind=kind,
            token_hash=digest(token),
            expires_at=ends if until is None else func.least(ends, until),
        )
    )
    return token


def _principal(row: Any) -> Principal:
    if row is None:
        raise UnauthorizedError("the login is missing, wrong or expired")
    return Principal(row.id, row.username, Role(row.role), row.expires_at)
