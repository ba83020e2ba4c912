"""Make secrets, and the only form of them that is stored."""

import hashlib
import secrets

PREFIX = "gn_"


def new_token() -> str:
    """Give a random token of 256 bits, recognisable by its prefix."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(token: str) -> str:
    """Give the SHA-256 of a token, hex; random tokens need no salt."""
    return hashlib.sha256(token.encode()).hexdigest()


def csrf_token(session_token: str) -> str:
    """Derive the token a page sends beside its session cookie.

    A page of another site can make the browser send the cookie, but cannot read it and so cannot
    derive this.
    """
    return hashlib.sha256(b"csrf:" + session_token.encode()).hexdigest()
