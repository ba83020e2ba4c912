"""Whatever a page is asked or sent, it is never a mistake of ours."""

import itertools
import re
from collections.abc import Iterator

import pytest

from genonaut.api.web.pages import _ROUTERS
from genonaut.domain.users import Role
from tests.api.conftest import csrf_of

PATHS = ("1", "0", "-1", "9" * 30, "a", "a%00b", "%F0%9F%98%80", "..%2F..%2Fetc", "x" * 400, "%FF")
VALUES = (
    "",
    "a\0b",
    "9" * 5_000,
    "-1",
    "1e400",
    "½",
    "x" * 5_000,
    "[" * 5_000,
    "\U0001f600",
    "%FF",
)
ASKED = ("cursor", "after", "status", "task", "schedule", "q", "model", "since", "until", "mine")
ASKED += ("liked", "role", "target", "act", "like", "unread", "all", "next", "token", "listed")
SENT = ("reason", "until", "version", "name", "task", "timing", "cron", "every_s", "anchor_at")
SENT += ("timezone", "overlap", "missed", "late_limit_s", "jitter_s", "how", "act", "ids", "query")
SENT += (
    "prompt",
    "negative_prompt",
    "width",
    "height",
    "seed",
    "steps",
    "cfg",
    "size",
    "batch_size",
)
SENT += ("checkpoint_model", "lora", "lora_name", "strength", "rating", "back", "theme", "kind")
SENT += ("username", "email", "role", "days", "active", "address", "digest_hour", "quiet_from")
SENT += ("group_window_s", "wants", "digest", "params.only", "params.sizes", "params.limit")
ROUTES = [
    (method, route.path)
    for router in _ROUTERS
    for route in router.routes
    for method in sorted(route.methods - {"HEAD"})
    if route.path not in {"/logout", "/login"}
]


def filled(path: str) -> list[str]:
    """Give the address with each odd value in the place of its first parameter, 1 in others."""
    if "{" not in path:
        return [path]
    first = re.sub(r"\{\w+\}", "@", path, count=1)
    rest = re.sub(r"\{\w+\}", "1", first)
    return [rest.replace("@", odd) for odd in PATHS]


@pytest.fixture
def grace(visit):
    return visit("grace", Role.ADMIN)


def requests(method: str) -> Iterator[tuple[str, str]]:
    """Give addresses, each with an odd value; one whose place is likely to exist with every one."""
    for path in (path for kind, path in ROUTES if kind == method):
        likely, *others = filled(path)
        yield from ((likely, odd) for odd in VALUES)
        yield from ((address, VALUES[1]) for address in others)


def test_no_page_answers_with_a_mistake_of_ours_whatever_it_is_asked(grace):
    wrong = []
    for address, odd in requests("GET"):
        answer = grace.get(address, params=dict.fromkeys(ASKED, odd[:900]))
        if answer.status_code >= 500:
            wrong.append((address, odd[:9], answer.status_code))
    assert not wrong
    assert grace.get("/console/users").status_code == 200, "it was she who asked"


def test_no_page_answers_with_a_mistake_of_ours_whatever_it_is_sent(grace):
    token = csrf_of(grace.get("/preferences"))
    wrong = []
    turn = itertools.cycle(VALUES)
    for address, odd in requests("POST"):
        fields = dict.fromkeys(SENT, odd) if odd != VALUES[0] else {one: next(turn) for one in SENT}
        answer = grace.post(address, data={"csrf": token, **fields})
        if answer.status_code >= 500:
            wrong.append((address, odd[:9], answer.status_code))
    assert not wrong
    assert grace.get("/console/users").status_code == 200, "it was she who sent it"
