"""Secrets are random, recognisable, and stored as a hash only."""

import re

from genonaut.core import tokens


def test_tokens_are_random_and_recognisable():
    made = {tokens.new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"gn_[A-Za-z0-9_-]{43}", token) for token in made)


def test_the_digest_is_sha256_and_tells_nothing():
    token = tokens.new_token()
    assert tokens.digest(token) == tokens.digest(token)
    assert re.fullmatch(r"[0-9a-f]{64}", tokens.digest(token))
    assert token not in tokens.digest(token)
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert tokens.digest("abc") == known


def test_the_csrf_token_depends_on_the_session_and_is_not_its_hash():
    assert tokens.csrf_token("a") != tokens.csrf_token("b")
    assert tokens.csrf_token("a") != tokens.digest("a")
