"""Know who is asking: accounts, roles, API tokens, browser sessions, one-time links and tickets."""

import re
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    Row,
    Select,
    Text,
    bindparam,
    case,
    cast,
    delete,
    func,
    literal,
    null,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from genonaut.core.errors import (
    ConflictError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    UnauthorizedError,
)
from genonaut.core.tokens import digest, new_token
from genonaut.db.models import ApiToken, AuditEntry, LoginSession, User

TOUCH_EVERY = timedelta(minutes=1)
LOGIN_LINK_TTL = timedelta(minutes=10)

_USERNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,49}")

_TICKET = re.compile(r".+\.(token|session)([0-9]{1,18})")

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
class LoginId:
    """What somebody logged in with; a socket's ticket stands for the login that asked for it."""

    kind: Literal["token", "session"]
    id: int


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking. ``expires_at`` is when this login ends, None for never."""

    user_id: UUID
    username: str
    role: Role
    expires_at: datetime | None = None
    login: LoginId | None = None

    def require(self, role: Role) -> None:
        """Let only those pass who may do what ``role`` may.

        Raises: ForbiddenError: this user may not.
        """
        if not self.role.includes(role):
            raise ForbiddenError(f"this is for the role {role} and above")


def create_user(
    session: Session, username: str, *, role: Role = Role.USER, email: str | None = None
) -> User:
    """Open an account.

    Raises:
        InvalidInputError: the name is not 1 to 50 lower-case letters, digits, ``.``, ``_``, ``-``.
        ConflictError: the name is taken (``name_taken``), or the address (``email_taken``).
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
    if user is not None:
        return user
    # A statement of its own, which sees whom the other one ran into.
    if session.scalar(select(User.id).where(User.username == username)):
        raise ConflictError(
            f"a user {username!r} exists already", field="username", code="name_taken"
        )
    raise email_taken()


def email_taken() -> ConflictError:
    """Say that somebody else has an address."""
    return ConflictError("another user has this address", field="email", code="email_taken")


def find_user(session: Session, username: str) -> User:
    """Give the account of that name.

    Raises: NotFoundError: there is none.
    """
    user = session.scalars(select(User).where(User.username == username)).one_or_none()
    if user is None:
        raise NotFoundError(f"there is no user {username!r}")
    return user


def name_of(session: Session, user_id: UUID) -> str | None:
    """Give the name of an account, None when it is gone."""
    return session.scalar(select(User.username).where(User.id == user_id))


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


@dataclass(frozen=True, slots=True)
class Login:
    """A login as it is shown, not yet checked: an API token or a browser session's."""

    kind: Literal["token", "session"]
    secret_hash: str

    @classmethod
    def by_token(cls, token: str) -> "Login":
        """Name the login an API token stands for."""
        return cls("token", digest(token))

    @classmethod
    def by_session(cls, token: str) -> "Login":
        """Name the login a browser session stands for."""
        return cls("session", digest(token))


_USERS = User.__table__
_TOKENS = ApiToken.__table__
_SESSIONS = LoginSession.__table__

# Made once: on the hottest way of all, making a statement takes longer than running it. A login
# that is not valid gives no row.
LOGINS: dict[str, Select[Any]] = {
    "token": select(
        _USERS.c.id.label("login_user_id"),
        _USERS.c.username.label("login_username"),
        _USERS.c.role.label("login_role"),
        _TOKENS.c.expires_at.label("login_expires_at"),
        case(
            (
                or_(
                    _TOKENS.c.last_used_at.is_(None),
                    _TOKENS.c.last_used_at < func.now() - TOUCH_EVERY,
                ),
                _TOKENS.c.id,
            )
        ).label("login_stale_token"),
        literal("token").label("login_kind"),
        _TOKENS.c.id.label("login_id"),
    )
    .join_from(_TOKENS, _USERS, _USERS.c.id == _TOKENS.c.user_id)
    .where(
        _TOKENS.c.token_hash == bindparam("secret_hash"),
        _USERS.c.is_active,
        _TOKENS.c.revoked_at.is_(None),
        or_(_TOKENS.c.expires_at.is_(None), _TOKENS.c.expires_at > func.now()),
    ),
    "session": select(
        _USERS.c.id.label("login_user_id"),
        _USERS.c.username.label("login_username"),
        _USERS.c.role.label("login_role"),
        _SESSIONS.c.expires_at.label("login_expires_at"),
        null().label("login_stale_token"),
        literal("session").label("login_kind"),
        _SESSIONS.c.id.label("login_id"),
    )
    .join_from(_SESSIONS, _USERS, _USERS.c.id == _SESSIONS.c.user_id)
    .where(
        _SESSIONS.c.token_hash == bindparam("secret_hash"),
        _SESSIONS.c.kind == "session",
        _SESSIONS.c.expires_at > func.now(),
        _USERS.c.is_active,
    ),
}
"""How each kind of login is looked up, for statements that look up more beside it."""


def _turn(user_id: Any) -> Any:
    return func.pg_advisory_xact_lock(func.hashtextextended(cast(user_id, Text), 0))


_LOGINS_IN_TURN = {kind: login.add_columns(_turn(_USERS.c.id)) for kind, login in LOGINS.items()}


def take_turn(session: Session, user_id: UUID) -> None:
    """Wait until no other transaction that took this user's turn is open.

    What is counted per user is counted in a statement after this one, whose snapshot is younger.
    """
    session.execute(select(_turn(str(user_id))))


def authenticate(session: Session, login: Login, *, in_turn: bool = False) -> Principal:
    """Give the user of a valid login: one statement, and once a minute a second one.

    With ``in_turn`` the same statement takes the user's turn, as :func:`take_turn` does.

    Raises: UnauthorizedError: unknown, expired or revoked, or its user is not active.
    """
    statements = _LOGINS_IN_TURN if in_turn else LOGINS
    row = session.execute(statements[login.kind], {"secret_hash": login.secret_hash}).one_or_none()
    return admit(session, row)


def admit(session: Session, row: Row[Any] | None) -> Principal:
    """Give the user of a row that a statement of :data:`LOGINS` found.

    Raises: UnauthorizedError: it found none.
    """
    if row is None:
        raise _unknown()
    if row.login_stale_token is not None:
        _touch(session, row.login_stale_token)
    return Principal(
        row.login_user_id,
        row.login_username,
        Role(row.login_role),
        row.login_expires_at,
        LoginId(row.login_kind, row.login_id),
    )


def authenticate_token(session: Session, token: str) -> Principal:
    """Give the user of a valid API token.

    Raises: UnauthorizedError: unknown, expired or revoked, or its user is not active.
    """
    return authenticate(session, Login.by_token(token))


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
    return authenticate(session, Login.by_session(token))


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
    session: Session,
    user_id: UUID,
    *,
    ttl: timedelta,
    until: datetime | None = None,
    login: LoginId | None = None,
) -> str:
    """Give a token that opens one WebSocket, for programs that cannot send a header with it.

    It names the login it was issued to and ends with it. It is stored as the hash of the whole, so
    nobody can write another login into it.
    """
    issued_to = "" if login is None else f".{login.kind}{login.id}"
    return _open(session, user_id, "ticket", ttl, until, suffix=issued_to)


def redeem(session: Session, token: str, kind: OneTime) -> Principal:
    """Use up a login link or a ticket; of two who try at once, one succeeds.

    Raises: UnauthorizedError: used, expired or unknown, its user is not active, or the login it
        was issued to has ended.
    """
    row = session.execute(
        delete(LoginSession)
        .where(
            LoginSession.token_hash == digest(token),
            LoginSession.kind == kind,
            LoginSession.expires_at > func.now(),
            User.id == LoginSession.user_id,
            User.is_active,
        )
        .returning(User.id, User.username, User.role)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        raise _unknown()
    principal = Principal(row.id, row.username, Role(row.role))
    named = _TICKET.fullmatch(token)
    if named is None:
        return principal
    login = LoginId("token" if named[1] == "token" else "session", int(named[2]))
    if login not in roles(session, {login}):
        raise UnauthorizedError("the login this ticket was issued to has ended")
    return replace(principal, login=login)


def roles(session: Session, logins: Collection[LoginId]) -> dict[LoginId, Role]:
    """Give the roles of those that have neither ended nor been revoked, nor their user."""
    tokens = select(literal("token").label("kind"), ApiToken.id, User.role).where(
        ApiToken.id.in_([login.id for login in logins if login.kind == "token"]),
        User.id == ApiToken.user_id,
        User.is_active,
        ApiToken.revoked_at.is_(None),
        or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > func.now()),
    )
    sessions = select(literal("session").label("kind"), LoginSession.id, User.role).where(
        LoginSession.id.in_([login.id for login in logins if login.kind == "session"]),
        User.id == LoginSession.user_id,
        LoginSession.kind == "session",
        LoginSession.expires_at > func.now(),
        User.is_active,
    )
    valid = session.execute(union_all(tokens, sessions))
    return {LoginId(row.kind, row.id): Role(row.role) for row in valid}


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
    session: Session,
    user_id: UUID,
    kind: str,
    ttl: timedelta,
    until: datetime | None,
    *,
    suffix: str = "",
) -> str:
    token = new_token() + suffix
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


def _unknown() -> UnauthorizedError:
    return UnauthorizedError("the login is missing, wrong or expired")
