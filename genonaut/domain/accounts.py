"""Look after accounts and their tokens: list and change them, and never lock everybody out."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, TypedDict
from uuid import UUID

from sqlalchemy import and_, delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from genonaut.clients.mail import check_address
from genonaut.core.errors import ConflictError, InvalidInputError, NotFoundError
from genonaut.core.tokens import digest
from genonaut.db.models import ApiToken, LoginSession, User
from genonaut.db.session import savepoint
from genonaut.domain import users
from genonaut.domain.users import Role

MAX_TOKEN_DAYS = 3650


class Wanted(TypedDict, total=False):
    """What is to become of an account; what is left out stays."""

    role: Role
    email: str | None
    is_active: bool


Changes = dict[str, dict[str, Any]]
"""What became different: of each field what it was ``before`` and is ``after``."""


class LastAdminError(ConflictError):
    """Nobody would be left to look after the users; make somebody else an admin first."""

    code = "last_admin"


def check_email(text: str) -> str:
    """Give an address in its usual form.

    Raises: InvalidInputError: it is no mail address.
    """
    try:
        return check_address(text)
    except InvalidInputError as error:
        raise InvalidInputError(str(error), field="email") from error


def list_users(
    session: Session,
    *,
    words: str = "",
    roles: Collection[Role] = (),
    is_active: bool | None = None,
    after: str | None = None,
    limit: int = 100,
) -> list[User]:
    """List accounts by name, after the name ``after``.

    ``words`` is a part of the name or the address, in upper or lower case.
    """
    query = select(User)
    if words:
        query = query.where(
            or_(
                User.username.icontains(words, autoescape=True),
                User.email.icontains(words, autoescape=True),
            )
        )
    if roles:
        query = query.where(User.role.in_(roles))
    if is_active is not None:
        query = query.where(User.is_active == is_active)
    if after is not None:
        query = query.where(User.username > after)
    return list(session.scalars(query.order_by(User.username).limit(limit)))


def one(session: Session, user_id: UUID) -> User:
    """Give an account.

    Raises: NotFoundError: there is none.
    """
    user = session.get(User, user_id)
    if user is None:
        raise NotFoundError("there is no such user")
    return user


def change(session: Session, user_id: UUID, wanted: Wanted) -> tuple[User, Changes]:
    """Change an account and say what became different.

    Who is made inactive is logged out everywhere, and can use no token until made active again.

    Raises:
        NotFoundError: there is no such account.
        ConflictError: another user has the address.
        LastAdminError: no active admin would be left, whoever is changed at the same moment.
    """
    user, is_last_admin = _hold(session, user_id)
    changes = {
        name: {"before": getattr(user, name), "after": value}
        for name, value in wanted.items()
        if getattr(user, name) != value
    }
    if is_last_admin and changes.keys() & {"role", "is_active"}:
        raise LastAdminError
    if not changes:
        return user, changes
    try:
        with savepoint(session):
            session.execute(
                update(User).where(User.id == user_id).values(**wanted, updated_at=func.now())
            )
    except IntegrityError as error:  # nothing else that is changed here has to be unique
        raise users.email_taken() from error
    if not wanted.get("is_active", True):
        session.execute(delete(LoginSession).where(LoginSession.user_id == user_id))
    session.refresh(user)
    return user, changes


def _hold(session: Session, user_id: UUID) -> tuple[User, bool]:
    """Lock an account until the transaction ends, and say whether it is the last active admin.

    The active admins are locked with it: of two who each demote the other, the second waits here,
    and then finds the first one's work done.
    """
    is_admin = and_(User.role == Role.ADMIN, User.is_active)
    rows = session.scalars(
        select(User)
        .where(or_(User.id == user_id, is_admin))
        .order_by(User.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    ).all()
    user = next((row for row in rows if row.id == user_id), None)
    if user is None:
        raise NotFoundError("there is no such user")
    admins = [row.id for row in rows if row.role == Role.ADMIN and row.is_active]
    return user, admins == [user_id]


def list_tokens(
    session: Session, user_id: UUID, *, before: int | None = None, limit: int | None = None
) -> list[ApiToken]:
    """List a user's tokens, newest first, older than the id ``before``.

    What they were is not known any more.
    """
    query = select(ApiToken).where(ApiToken.user_id == user_id)
    if before is not None:
        query = query.where(ApiToken.id < before)
    return list(session.scalars(query.order_by(ApiToken.id.desc()).limit(limit)))


def issue_token(
    session: Session, user_id: UUID, *, name: str, ttl: timedelta | None = None
) -> tuple[ApiToken, str]:
    """Make an API token; give its row and, the only time it can be read, the token."""
    token = users.issue_token(session, user_id, name=name, ttl=ttl)
    session.flush()  # its id and times are the database's
    row = session.scalars(select(ApiToken).where(ApiToken.token_hash == digest(token))).one()
    return row, token


def revoke_token(session: Session, token_id: int, *, of: UUID | None = None) -> ApiToken | None:
    """End a token, and its user's browser sessions, which may have been opened with it.

    ``of`` is whose it must be. Gives it if it ended now, None if it had been revoked before:
    revoking twice changes nothing.

    Raises: NotFoundError: there is no such token, or it is not that user's.
    """
    found = select(User.id).join(ApiToken).where(ApiToken.id == token_id)
    if of is not None:
        found = found.where(User.id == of)
    # Held before all else: a session that is just being opened is waited for, and then seen.
    owner = session.scalar(found.with_for_update(of=User, key_share=True))
    if owner is None:
        raise NotFoundError("there is no such token")
    ended = session.scalars(
        update(ApiToken)
        .where(ApiToken.id == token_id, ApiToken.revoked_at.is_(None))
        .values(revoked_at=func.now())
        .returning(ApiToken)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if ended is not None:
        session.execute(delete(LoginSession).where(LoginSession.user_id == owner))
    return ended


def public(user: User) -> dict[str, Any]:
    """Give what admins see of an account, ready for JSON."""
    return {
        "id": str(user.id),
        "username": user.username,
        "role": user.role,
        "email": user.email,
        "is_active": user.is_active,
        "created_at": user.created_at.isoformat(),
        "updated_at": user.updated_at.isoformat(),
    }


def public_token(token: ApiToken, now: datetime) -> dict[str, Any]:
    """Give what admins see of a token, ready for JSON; never what it is, nor its hash."""
    is_expired = token.expires_at is not None and token.expires_at <= now
    return {
        "id": token.id,
        "name": token.name,
        "state": "revoked" if token.revoked_at else "expired" if is_expired else "valid",
        "created_at": token.created_at.isoformat(),
        "expires_at": token.expires_at and token.expires_at.isoformat(),
        "last_used_at": token.last_used_at and token.last_used_at.isoformat(),
        "revoked_at": token.revoked_at and token.revoked_at.isoformat(),
    }
