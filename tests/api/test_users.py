"""Admins make, change and lock out users, and hand out tokens; nobody else does."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import select

from genonaut.db.models import ApiToken, AuditEntry, IdempotencyKey
from genonaut.domain.users import Role
from tests.api.conftest import closed_with, hear

PATH = "/api/v1/admin/users"


@pytest.fixture
def root(make_account):
    return make_account("root", Role.ADMIN)


@pytest.fixture
def audited(database):
    def read() -> list[tuple]:
        with database.transaction() as session:
            rows = session.scalars(select(AuditEntry).order_by(AuditEntry.id))
            return [(row.actor, row.action, row.target, row.details) for row in rows]

    return read


def test_everything_is_for_admins_only(make_account, root, anyone):
    calls = [
        ("GET", PATH),
        ("POST", PATH),
        ("GET", f"{PATH}/{root.id}"),
        ("PATCH", f"{PATH}/{root.id}"),
        ("GET", f"{PATH}/{root.id}/tokens"),
        ("POST", f"{PATH}/{root.id}/tokens"),
        ("DELETE", f"{PATH}/{root.id}/tokens/1"),
    ]
    bodies = {PATH: {"username": "x"}, f"{PATH}/{root.id}/tokens": {"name": "x"}}

    def status(client: httpx.Client, method: str, path: str) -> int:
        body = bodies.get(path, {}) if method in ("POST", "PATCH") else None
        return client.request(method, path, json=body).status_code

    for role in (Role.USER, Role.AUDITOR, Role.OPERATOR):
        account = make_account(f"one-{role}", role)
        assert {status(account.client, *call) for call in calls} == {403}
    assert {status(anyone, *call) for call in calls} == {401}


def test_a_user_is_made_read_and_changed_and_it_is_written_down(root, audited):
    asked = {"username": "ada", "role": "auditor", "email": "Ada@EXAMPLE.org"}
    made = root.client.post(PATH, json=asked)
    assert made.status_code == 201
    where = made.headers["location"]
    assert root.client.get(where).json() == made.json()
    assert made.json()["email"] == "Ada@example.org"
    changed = root.client.patch(where, json={"role": "operator", "email": None})
    assert (changed.json()["role"], changed.json()["email"]) == ("operator", None)
    assert root.client.patch(where, json={"role": "operator"}).json() == changed.json()
    assert root.client.patch(where, json={}).json() == changed.json()
    assert root.client.patch(where, json={"is_active": False}).json()["is_active"] is False
    before, after = {"before": "auditor", "after": "operator"}, {"before": True, "after": False}
    gone = {"before": "Ada@example.org", "after": None}
    assert audited() == [
        ("root", "user.create", "user:ada", {"role": "auditor", "email": "Ada@example.org"}),
        ("root", "user.change", "user:ada", {"changes": {"role": before, "email": gone}}),
        ("root", "user.change", "user:ada", {"changes": {"is_active": after}}),
    ]


def test_a_taken_name_or_address_is_a_conflict_that_names_the_field(root):
    ada = root.client.post(PATH, json={"username": "ada", "email": "ada@example.org"}).json()
    bob = root.client.post(PATH, json={"username": "bob"}).json()
    for answer, code, field in (
        (root.client.post(PATH, json={"username": "ada"}), "name_taken", "username"),
        (
            root.client.post(PATH, json={"username": "eve", "email": ada["email"]}),
            "email_taken",
            "email",
        ),
        (
            root.client.patch(f"{PATH}/{bob['id']}", json={"email": ada["email"]}),
            "email_taken",
            "email",
        ),
    ):
        assert (answer.status_code, answer.json()["code"]) == (409, code)
        assert answer.json()["errors"][0]["pointer"] == f"#/{field}"


def test_making_a_user_again_under_its_key_gives_the_same_answer(root, audited):
    key = {"Idempotency-Key": "one"}
    first, again = (root.client.post(PATH, json={"username": "ada"}, headers=key) for _ in "12")
    assert (first.status_code, again.status_code) == (201, 201)
    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    assert len(audited()) == 1


def test_users_are_listed_page_by_page_and_narrowed(root, make_account):
    for name in ("ada", "bob", "eve"):
        make_account(name, Role.AUDITOR)
    url, seen = f"{PATH}?limit=2&role=auditor&role=user", []
    while url:
        answer = root.client.get(url)
        seen += [user["username"] for user in answer.json()["items"]]
        url = answer.links.get("next", {}).get("url")
    assert seen == ["ada", "bob", "eve"]
    assert "hash" not in answer.text
    found = root.client.get(PATH, params={"q": " EV", "is_active": True}).json()
    assert [user["username"] for user in found["items"]] == ["eve"]
    assert root.client.get(PATH, params={"is_active": False}).json()["items"] == []


@pytest.mark.parametrize("change", [{"role": "operator"}, {"is_active": False}])
def test_the_last_active_admin_stays_one(root, make_account, change):
    other = make_account("other", Role.ADMIN)
    assert root.client.patch(f"{PATH}/{other.id}", json={"is_active": False}).status_code == 200
    refused = root.client.patch(f"{PATH}/{root.id}", json=change)
    assert (refused.status_code, refused.json()["code"]) == (409, "last_admin")
    assert root.client.get(f"{PATH}/{root.id}").json()["role"] == "admin"


def test_two_admins_who_demote_each_other_at_once_leave_one(root, make_account):
    for n in range(8):
        other = make_account(f"other{n}", Role.ADMIN)
        together = Barrier(2)

        def demote(who, whom, together=together) -> int:
            together.wait()
            return who.client.patch(f"{PATH}/{whom.id}", json={"role": "user"}).status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = list(pool.map(demote, (root, other), (other, root)))
        assert statuses.count(200) == 1, statuses
        assert set(statuses) <= {200, 403, 409}
        if statuses[0] != 200:  # root was demoted: the other one makes it an admin again
            answer = other.client.patch(f"{PATH}/{root.id}", json={"role": "admin"})
            assert answer.status_code == 200
            assert root.client.patch(f"{PATH}/{other.id}", json={"role": "user"}).status_code == 200


def test_who_is_made_inactive_is_out_at_once(api, root, ada, anyone, sockets):
    csrf = anyone.post("/api/v1/session", json={"token": ada.token}).json()["csrf_token"]
    assert csrf
    socket = sockets(f"{api.ws}/ws/me", ada)
    hear(socket)
    assert root.client.patch(f"{PATH}/{ada.id}", json={"is_active": False}).status_code == 200
    assert ada.client.get("/api/v1/me").status_code == 401
    assert anyone.get("/api/v1/me").status_code == 401
    assert closed_with(socket) == 4401
    assert root.client.patch(f"{PATH}/{ada.id}", json={"is_active": True}).status_code == 200
    assert ada.client.get("/api/v1/me").status_code == 200
    assert anyone.get("/api/v1/me").status_code == 401


def test_a_role_taken_away_counts_at_once(api, root, make_account, sockets):
    eve = make_account("eve", Role.AUDITOR)
    socket = sockets(f"{api.ws}/ws/admin", eve)
    hear(socket)
    assert root.client.patch(f"{PATH}/{eve.id}", json={"role": "user"}).status_code == 200
    assert eve.client.get("/api/v1/admin/runs").status_code == 403
    assert closed_with(socket) == 4403


def test_a_token_is_shown_once_used_listed_and_revoked(root, ada, database, audited):
    path = f"{PATH}/{ada.id}/tokens"
    made = root.client.post(path, json={"name": " laptop ", "days": 90})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    token, token_id = made.json()["token"], made.json()["id"]
    ends = datetime.fromisoformat(made.json()["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < ends <= timedelta(days=90)
    with httpx.Client(base_url=root.client.base_url) as client:
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get("/api/v1/me").json()["username"] == "ada"
        listed = root.client.get(path)
        first, other = listed.json()["items"]
        assert (first["id"], first["name"], first["state"]) == (token_id, "laptop", "valid")
        assert first["last_used_at"]
        assert token not in listed.text
        for _ in range(2):
            assert root.client.delete(f"{path}/{token_id}").status_code == 204
        assert client.get("/api/v1/me").status_code == 401
    assert ada.client.get("/api/v1/me").status_code == 200
    assert root.client.get(path).json()["items"][0]["state"] == "revoked"
    page = root.client.get(f"{path}?limit=1")
    (following,) = root.client.get(page.links["next"]["url"]).json()["items"]
    assert following["id"] == other["id"]
    kept = {"token_id": token_id, "name": "laptop"}
    assert audited() == [
        ("root", "token.create", "user:ada", {**kept, "days": 90}),
        ("root", "token.revoke", "user:ada", kept),
    ]
    with database.transaction() as session:
        hashes = session.scalars(select(ApiToken.token_hash)).all()
    assert not any(one in listed.text + made.text for one in hashes)


def test_a_token_is_kept_nowhere_even_under_an_idempotency_key(root, ada, database):
    key = {"Idempotency-Key": "one"}
    path = f"{PATH}/{ada.id}/tokens"
    first, again = (root.client.post(path, json={"name": "x"}, headers=key) for _ in "12")
    assert first.json()["token"] != again.json()["token"]
    with database.transaction() as session:
        assert session.scalars(select(IdempotencyKey)).all() == []


def test_what_is_not_there_or_somebody_elses_is_not_found(root, ada, bob):
    theirs = root.client.post(f"{PATH}/{bob.id}/tokens", json={"name": "x"}).json()
    for method, path in (
        ("GET", f"{PATH}/{uuid4()}"),
        ("PATCH", f"{PATH}/{uuid4()}"),
        ("GET", f"{PATH}/{uuid4()}/tokens"),
        ("POST", f"{PATH}/{uuid4()}/tokens"),
        ("DELETE", f"{PATH}/{uuid4()}/tokens/{theirs['id']}"),
        ("DELETE", f"{PATH}/{ada.id}/tokens/{theirs['id']}"),
        ("DELETE", f"{PATH}/{ada.id}/tokens/{2**63 - 1}"),
    ):
        body = {"name": "x"} if method == "POST" else {} if method == "PATCH" else None
        answer = root.client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
    assert bob.client.get("/api/v1/me").status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("", {"username": "a\0"}, "username"),
        ("", {"username": "Ada"}, "username"),
        ("", {"username": "a" * 51}, "username"),
        ("", {"username": "a", "role": "god"}, "role"),
        ("", {"username": "a", "email": "a\0@example.org"}, "email"),
        ("", {"username": "a", "email": "nobody"}, "email"),
        ("", {"username": "a", "email": f"a@{'x' * 300}.org"}, "email"),
        ("", {"username": "a", "is_active": False}, "is_active"),
        ("/{id}", {"username": "b"}, "username"),
        ("/{id}", {"role": None}, "role"),
        ("/{id}", {"is_active": None}, "is_active"),
        ("/{id}", {"is_active": "yes"}, "is_active"),
        ("/{id}", {"email": ""}, "email"),
        ("/{id}/tokens", {"name": "\0"}, "name"),
        ("/{id}/tokens", {"name": " "}, "name"),
        ("/{id}/tokens", {"name": "a\nb"}, "name"),
        ("/{id}/tokens", {"name": "\ud800"}, "name"),
        ("/{id}/tokens", {"name": "x" * 101}, "name"),
        ("/{id}/tokens", {"name": "x", "days": 0}, "days"),
        ("/{id}/tokens", {"name": "x", "days": 10**9}, "days"),
    ],
)
def test_what_cannot_be_is_refused_and_the_field_named(root, ada, path, body, field):
    method = "PATCH" if path == "/{id}" else "POST"
    answer = root.client.request(
        method,
        PATH + path.format(id=ada.id),
        content=json.dumps(body),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["pointer"] == f"#/{field}"


def test_odd_addresses_and_filters_are_refused(root):
    for path in (
        f"{PATH}/0",
        f"{PATH}/a%00b",
        f"{PATH}?q=%00",
        f"{PATH}?cursor=%00",
        f"{PATH}?role=god",
        f"{PATH}/{root.id}/tokens?cursor=x",
    ):
        assert root.client.get(path).status_code == 422, path
    assert root.client.delete(f"{PATH}/{root.id}/tokens/{2**63}").status_code == 422
