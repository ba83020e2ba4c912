"""Begin browser sessions, so that none outlives what it was opened with.

Who revokes a token or locks a user out holds the user's row and ends the sessions there are. One
that is just being opened is not among them. So who opens one holds the row as well, and only then
looks whether the login is valid: either comes first, and the other sees what it did.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import Session

from genonaut.core.tokens import digest
from genonaut.db.models import LoginSession, User
from genonaut.domain import users
from genonaut.domain.users import Principal


def by_token(session: Session, token: str, *, ttl: timedelta) -> tuple[Principal, str]:
    """Log in with an API token; give who that is, and the token of the new browser session.

    The session ends after ``ttl``, and with the API token at latest.

    Raises: UnauthorizedError: unknown, expired or revoked, or its user is not active.
    """
    _hold(session, users.authenticate_token(session, token).user_id)
    return _begin(session, users.authenticate_token(session, token), ttl)


def by_link(session: Session, link: str, *, ttl: timedelta) -> tuple[Principal, str]:
    """Log in with a one-time link, as :func:`by_token`.

    Raises: UnauthorizedError: used, expired or unknown, or its user is not active.
    """
    owner = session.scalar(
        select(LoginSession.user_id).where(LoginSession.token_hash == digest(link))
    )
    if owner is not None:
        _hold(session, owner)
    return _begin(session, users.redeem(session, link, "login"), ttl)


def _hold(session: Session, user_id: UUID) -> None:
    """Let none of the user's logins be ended until the transaction is over."""
    session.execute(select(User.id).where(User.id == user_id).with_for_update(read=True))


def _begin(session: Session, who: Principal, ttl: timedelta) -> tuple[Principal, str]:
    return who, users.open_session(session, who.user_id, ttl=ttl, until=who.expires_at)
