"""Logging in by token, cookie, link and ticket, and what keeps other sites out."""

import re
from datetime import timedelta

import httpx
import pytest

from genonaut.api.auth import CSRF_HEADER
from genonaut.core.tokens import csrf_token
from genonaut.domain import users

JOBS = "/api/v1/generation-jobs"


@pytest.fixture
def browser(api, ada) -> httpx.Client:
    """A browser that ada has logged in with; its CSRF token is not sent by itself."""
    with httpx.Client(base_url=api.url) as client:
        answer = client.post("/api/v1/session", json={"token": ada.token})
        assert answer.status_code == 200
        client.csrf = answer.json()["csrf_token"]
        yield client


def test_a_token_is_exchanged_for_a_guarded_cookie(anyone, ada):
    answer = anyone.post("/api/v1/session", json={"token": ada.token})
    cookie = answer.headers["set-cookie"]
    assert "genonaut_test_session=" in cookie
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert answer.json()["username"] == "ada"
    assert ada.token not in cookie
    wrong = anyone.post("/api/v1/session", json={"token": "gn_wrong"})
    assert wrong.status_code == 401


def test_a_cookie_reads_alone_and_changes_only_with_the_csrf_token(browser):
    assert browser.get("/api/v1/me").json()["csrf_token"] == browser.csrf
    for headers in ({}, {CSRF_HEADER: "wrong"}, {CSRF_HEADER: "\u00e9".encode()}):
        refused = browser.post(JOBS, json={"prompt": "x"}, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
    headers = {CSRF_HEADER: browser.csrf}
    assert browser.post(JOBS, json={"prompt": "x"}, headers=headers).status_code == 202


def test_another_sites_page_cannot_use_the_cookie(browser, api):
    headers = {CSRF_HEADER: browser.csrf, "Origin": "https://evil.example"}
    refused = browser.post(JOBS, json={"prompt": "x"}, headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "wrong_origin")
    paths = ("/api/v1/session", "/api/v1/session/ticket")
    pages = ("/login", "/logout", "/theme")
    for origin in ("null", "file://", api.url + ".evil.example", "http://[", api.url + "/"):
        for path in paths:
            strange = {**headers, "Origin": origin}
            refused = browser.post(path, headers=strange, json={"token": "x"})
            assert (refused.status_code, refused.json()["code"]) == (403, "wrong_origin"), path
        for path in pages:
            refused = browser.post(path, headers={**headers, "Origin": origin})
            assert refused.status_code == 403, path
            assert "another site" in refused.text
    ours = {**headers, "Origin": api.url}
    assert browser.post(JOBS, json={"prompt": "x"}, headers=ours).status_code == 202


def test_logging_out_ends_the_session_and_not_the_token(browser, ada, api):
    kept = dict(browser.cookies)
    answer = browser.delete("/api/v1/session", headers={CSRF_HEADER: browser.csrf})
    assert answer.status_code == 204
    assert not browser.cookies
    assert httpx.get(f"{api.url}/api/v1/me", cookies=kept).status_code == 401
    assert ada.client.delete("/api/v1/session").status_code == 204
    assert ada.client.get("/api/v1/me").json()["csrf_token"] is None


def test_a_login_link_works_once_and_then_leads_to_the_form(anyone, ada, database, api):
    with database.transaction() as session:
        link = users.issue_login_link(session, ada.id)
        late = users.issue_login_link(session, ada.id, ttl=timedelta(seconds=-1))
    answer = anyone.get("/login", params={"token": link})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    home = anyone.get("/")
    assert "ada" in home.text
    for used in (link, late, "", "x"):
        again = httpx.get(f"{api.url}/login", params={"token": used})
        assert again.status_code == 401
        assert "set-cookie" not in again.headers
        assert 'name="token"' in again.text


def test_the_form_logs_in_and_out_without_scripts(anyone, ada):
    led = anyone.get("/?batch=4")
    assert (led.status_code, led.headers["location"]) == (303, "/login?next=%2F%3Fbatch%3D4")
    assert 'value="/?batch=4"' in anyone.get(led.headers["location"]).text
    wrong = anyone.post("/login", data={"token": "gn_wrong"})
    assert wrong.status_code == 401
    assert "not valid" in wrong.text
    evil = anyone.post("/login", data={"token": ada.token}, headers={"Origin": "https://e.example"})
    assert evil.status_code == 403
    assert anyone.post("/login", data={"token": ada.token}).status_code == 303
    home = anyone.get("/").text
    csrf = re.search(r'name="csrf" value="(\w+)"', home).group(1)
    too_old = anyone.post("/notifications/read-all", data={"csrf": "wrong"})
    assert too_old.status_code == 403
    assert "You logged in anew since this page was loaded." in too_old.text
    anyone.post("/logout", data={"csrf": "wrong"})
    assert anyone.get("/api/v1/me").status_code == 200
    anyone.post("/logout", data={"csrf": csrf})
    assert anyone.get("/api/v1/me").status_code == 401


def test_an_ended_session_leads_to_the_form_and_the_cookie_is_taken_back(anyone):
    anyone.cookies.set("genonaut_test_session", "gn_old")
    page = anyone.get("/")
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in page.headers["set-cookie"]
    anyone.cookies.set("genonaut_test_session", "gn_old")
    part = anyone.get("/", headers={"HX-Request": "true"})
    assert (part.status_code, part.headers["hx-redirect"]) == (401, "/login")
    form = {"prompt": "a long one", "csrf": csrf_token("gn_old")}
    typed = anyone.post("/make", headers={"HX-Request": "true"}, data=form)
    assert (typed.status_code, typed.headers.get("hx-redirect")) == (401, None)
    assert "You are logged out. Copy what you typed" in typed.headers["hx-trigger"]


@pytest.mark.parametrize("to", ["//evil.example", "https://evil.example", "/\\evil.example", ""])
def test_a_login_leads_to_our_own_pages_only(anyone, ada, to):
    answer = anyone.post("/login", data={"token": ada.token, "next": to})
    assert answer.headers["location"] == "/"


def test_every_operation_but_the_public_ones_wants_a_login(anyone):
    document = anyone.get("/openapi.json").json()
    from_elsewhere = {"X-Forwarded-For": "192.0.2.7"}  # this machine may read metrics
    closed = 0
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if "security" not in operation:
                continue
            closed += 1
            address = re.sub(r"\{\w+\}", "1", path)
            answer = anyone.request(method, address, json={}, headers=from_elsewhere)
            assert answer.status_code == 401, (method, path, answer.text)
    assert closed >= 20


def test_a_form_of_many_fields_is_refused(browser):
    for path in ("/login", "/logout"):
        answer = browser.post(path, data={f"field{n}": "x" for n in range(300)})
        assert answer.status_code == 422
        assert "too many fields" in answer.text
