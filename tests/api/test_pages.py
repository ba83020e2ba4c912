"""The frame of every page: what it holds, what it may load, its looks and its errors."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genonaut.api.web import words
from genonaut.api.web.rendering import HTMX, htmx_folder
from genonaut.domain.users import Role
from tests.api.conftest import csrf_of

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
INLINE = re.compile(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|https?://")


def test_a_page_loads_only_what_is_ours_and_has_nothing_inline(visit):
    browser = visit("ada")
    browser.post("/api/v1/generation-jobs", json={"prompt": "x"})
    page = browser.get("/")
    assert page.headers["content-security-policy"] == POLICY
    assert not INLINE.search(page.text)
    assets = re.findall(r'"(/assets/[^"]+)"', page.text)
    assert len(assets) >= 4
    for asset in assets:
        found = browser.get(asset)
        assert found.status_code == 200
        again = browser.get(asset, headers={"If-None-Match": found.headers["etag"]})
        assert again.status_code == 304
        if "?v=" in asset:
            assert "immutable" in found.headers["cache-control"]
    assert "immutable" not in browser.get("/assets/none.js?v=1").headers["cache-control"]
    assert browser.get("/assets/../main.py").status_code == 404


def test_htmx_is_where_the_wheel_has_it_and_is_version_two():
    text = (htmx_folder() / HTMX).read_text()
    assert 'version:"2.' in text


def test_the_navigation_shows_what_the_role_may_see(visit):
    seen = {
        role: set(re.findall(r'<a href="(/console[^"]*)"', visit(role, role).get("/").text))
        for role in Role
    }
    assert not seen[Role.USER]
    assert "/console/runs" in seen[Role.AUDITOR]
    assert seen[Role.OPERATOR] == seen[Role.AUDITOR]
    assert seen[Role.ADMIN] == {*seen[Role.AUDITOR], "/console/users"}


def test_looks_are_chosen_without_scripts_and_kept(visit):
    browser = visit("ada")
    assert 'data-theme="auto"' in browser.get("/").text
    token = csrf_of(browser.get("/"))
    refused = browser.post("/theme", data={"theme": "dark", "back": "/"})
    assert refused.status_code == 403
    chosen = browser.post("/theme", data={"csrf": token, "theme": "dark", "back": "/"})
    assert (chosen.status_code, chosen.headers["location"]) == (303, "/")
    assert 'data-theme="dark"' in browser.get("/").text
    browser.post("/theme", data={"csrf": token, "theme": '"><b>', "back": "//evil.example"})
    assert 'data-theme="auto"' in browser.get("/").text


def test_an_address_without_a_page_is_told_as_a_page_to_browsers_only(visit):
    browser = visit("ada")
    page = browser.get("/nowhere", headers={"Accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    api = browser.get("/api/v1/nowhere", headers={"Accept": "text/html"})
    assert api.headers["content-type"] == "application/problem+json"


def test_a_form_shown_again_is_an_answer_to_a_browser_and_a_refusal_to_others(anyone, visit):
    browser = {"Sec-Fetch-Mode": "navigate"}
    for headers, status in (({}, 401), (browser, 200)):
        page = anyone.post("/login", data={"token": "gnt_wrong"}, headers=headers)
        assert page.status_code == status
        assert 'role="alert"' in page.text
    oscar = visit("oscar", Role.OPERATOR)
    token = oscar.get("/api/v1/me").json()["csrf_token"]
    typed = {"csrf": token, "params.days": "many", "how": "run"}
    for headers, status in (({}, 422), (browser, 200), ({"HX-Request": "true"}, 200)):
        path = "/console/tasks/content.refresh_stats"
        page = oscar.post(path, data=typed, headers=headers)
        assert page.status_code == status
        assert 'aria-invalid="true"' in page.text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (12, "12 s"), (185, "3 min 5 s"), (7440, "2 h 4 min")],
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert words.duration(seconds) == said
    assert words.duration(None) == words.NOTHING


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 B"), (999, "999 B"), (1400, "1.4 kB"), (999_600, "1 MB")]
)
def test_sizes_are_said_in_three_digits(count, said):
    assert words.size(count) == said


@given(st.integers(0, 10**18))
def test_a_size_is_short_and_near_what_it_says(count):
    value, unit = words.size(count).split()
    factor = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(float(value) * factor - count) <= max(count * 0.006, 0.5)


def test_what_people_wrote_is_shown_as_they_wrote_it(visit):
    browser = visit("ada")
    token = browser.get("/api/v1/me").json()["csrf_token"]
    nasty = "<script>alert(1)</script> 'x'"
    made = browser.post(
        "/api/v1/generation-jobs", json={"prompt": nasty}, headers={"X-CSRF-Token": token}
    )
    assert made.status_code == 202
    page = browser.get("/")
    assert "&lt;script&gt;alert(1)" in page.text
    assert "waiting, place 1" in page.text
    assert not INLINE.search(page.text)


def test_icons_are_drawn_and_not_written(visit):
    page = visit("ada").get("/").text
    assert '<svg class="icon"' in page
    assert "&lt;svg" not in page
