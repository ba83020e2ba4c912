"""Users and tokens are looked after on pages; a token is seen once and left nowhere."""

import re
from html import unescape

import httpx
import pytest

from genonaut.domain import accounts, users
from genonaut.domain.users import Role

PATH = "/console/users"


@pytest.fixture
def root(visit):
    return visit("root", Role.ADMIN)


@pytest.fixture
def ada(database):
    with database.transaction() as session:
        return users.create_user(session, "ada", email="ada@example.org")


@pytest.fixture
def page_of(ada):
    return f"{PATH}/{ada.id}"


def token_in(page: httpx.Response) -> str:
    return re.search(r"<code>(gn_[\w-]+)</code>", page.text).group(1)


def test_the_pages_are_for_admins_and_so_is_the_way_there(visit, act, root, page_of):
    for role in (Role.USER, Role.AUDITOR, Role.OPERATOR):
        browser = visit(f"one-{role}", role)
        assert f'href="{PATH}"' not in browser.get("/").text
        for path in (PATH, page_of):
            assert browser.get(path).status_code == 403
            assert act(browser, path).status_code in (403, 422)
        assert act(browser, PATH, username="eve").status_code == 403
        assert act(browser, page_of, role="admin").status_code == 403
        assert act(browser, f"{page_of}/tokens", name="x").status_code == 403
        assert act(browser, f"{page_of}/tokens/1/revoke").status_code == 403
    assert f'href="{PATH}"' in root.get("/").text
    assert root.post(page_of, data={"role": "admin"}).status_code == 403  # no token of the form
    for odd in ("0", "x", "00000000-0000-0000-0000-000000000000"):
        assert root.get(f"{PATH}/{odd}").status_code == 404


def test_a_user_is_made_and_changed(root, act):
    made = act(root, PATH, username="ada", email="", role="auditor")
    assert "ada is made" in made.text
    assert "There is no token" in made.text
    path = made.url.path
    changed = act(root, path, role="operator", email="ada@example.org", active="yes")
    assert "It is changed." in changed.text
    shown = root.get(f"/api/v1/admin/users/{path.rsplit('/', 1)[1]}").json()
    assert (shown["role"], shown["email"]) == ("operator", "ada@example.org")
    assert shown["is_active"]
    assert "is inactive" in act(root, path, role="operator", email="").text
    said = root.get("/console/audit?target=user:ada").text
    assert said.count("user.change") == 2
    assert "user.create" in said


def test_what_was_not_touched_stays_as_another_admin_left_it(root, act, visit, page_of, ada):
    read = root.get(page_of).text
    form = read[read.index(f'action="{page_of}"') :].split("</form>")[0]
    hidden = re.findall(r'name="(was\.\w+)" value="([^"]*)"', form)
    assert dict(hidden) == {
        "was.role": "user",
        "was.email": "ada@example.org",
        "was.active": "yes",
    }
    other = visit("rita", Role.ADMIN)
    assert "is inactive" in act(other, page_of, role="user", email="ada@example.org").text
    typed = {"role": "user", "email": "new@example.org", "active": "yes"}
    wrong = act(root, page_of, **dict(hidden), **{**typed, "email": "no address"})
    assert wrong.status_code == 422
    assert 'name="was.email" value="ada@example.org"' in wrong.text
    act(root, page_of, **dict(hidden), **typed)
    now = root.get(f"/api/v1/admin/users/{ada.id}").json()
    assert (now["email"], now["is_active"]) == ("new@example.org", False)


def test_a_form_that_is_wrong_is_shown_again_with_what_was_typed(root, act, page_of):
    for typed, field in (
        ({"username": "Bad Name", "role": "user", "email": "x@example.org"}, "username"),
        ({"username": "ada", "role": "user", "email": "x@example.org"}, "username"),
        ({"username": "eve", "role": "user", "email": "ada@example.org"}, "email"),
        ({"username": "eve", "role": "user", "email": "nobody"}, "email"),
        ({"username": "eve", "role": "god", "email": ""}, "role"),
        ({"username": "eve\0", "role": "user", "email": ""}, "username"),
    ):
        page = act(root, PATH, **typed)
        assert page.status_code == 422
        assert f'id="error-{field}"' in page.text
        assert f'value="{typed["email"]}"' in page.text
    page = act(root, page_of, role="user", email="nobody", active="yes")
    assert page.status_code == 422
    assert 'value="nobody"' in page.text
    for days in ("0", "-1", "x", "99999999999"):
        page = act(root, f"{page_of}/tokens", name="laptop", days=days)
        assert page.status_code == 422
        assert 'id="error-days"' in page.text
        assert 'value="laptop"' in page.text
    assert act(root, f"{page_of}/tokens", name=" ").status_code == 422
    assert "There is no token" in root.get(page_of).text


def test_the_last_admin_is_told_why_they_stay_and_one_of_two_may_go(root, act, visit):
    me = f"{PATH}/{root.get('/api/v1/me').json()['id']}"
    page = act(root, me, role="user", email="", active="yes")
    assert page.status_code == 422
    assert "Nobody would be left" in page.text
    assert 'role="alert"' in page.text
    visit("other", Role.ADMIN)
    assert "This is you" in root.get(me).text
    assert act(root, me, role="user", email="", active="yes").url.path == "/"
    assert root.get(PATH).status_code == 403


def test_a_token_is_in_the_very_answer_and_nowhere_else(api, root, act, page_of):
    answer = act(root, f"{page_of}/tokens", name="laptop", days="30")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    token = token_in(answer)
    assert "set-cookie" not in answer.headers
    assert token not in str(answer.url)
    assert token not in root.get(page_of).text
    assert "gn_" not in root.get("/console/audit").text
    bearer = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{api.url}/api/v1/me", headers=bearer).json()["username"] == "ada"
    revoke = re.search(r'action="(\S+/revoke)"', root.get(page_of).text).group(1)
    told = act(root, revoke)
    assert "good for nothing" in told.text
    assert "/revoke" not in told.text
    assert httpx.get(f"{api.url}/api/v1/me", headers=bearer).status_code == 401
    assert act(root, f"{page_of}/tokens/999999/revoke").status_code == 404
    assert root.get(f"{page_of}/tokens").headers["location"] == page_of


def test_older_tokens_follow_from_the_page_that_shows_a_new_one(root, act, page_of, database, ada):
    with database.transaction() as session:
        for n in range(101):
            accounts.issue_token(session, ada.id, name=f"token {n}")
    made = act(root, f"{page_of}/tokens", name="newest")
    following = unescape(re.search(r'href="([^"]+cursor=[^"]+)"', made.text).group(1))
    older = root.get(following, follow_redirects=True)
    assert "token 0<" in older.text


def test_names_are_shown_as_text(root, act, page_of):
    page = act(root, f"{page_of}/tokens", name="<script>x</script>")
    assert "<script>x" not in page.text
    assert "&lt;script&gt;x" in page.text


def test_users_are_found_and_listed_page_by_page_with_few_queries(
    root, visit, database, queries, page_of, ada
):
    def fill(first: int, last: int) -> None:
        with database.transaction() as session:
            for n in range(first, last):
                users.create_user(session, f"user-{n:03}")
                accounts.issue_token(session, ada.id, name=f"token {n}")

    fill(0, 5)
    few = [queries(lambda path=path: root.get(path)) for path in (PATH, page_of)]
    fill(5, 120)
    many = [queries(lambda path=path: root.get(path)) for path in (PATH, page_of)]
    assert many == few
    assert max(few) <= 5
    url, seen = PATH, []
    while url:
        page = root.get(url).text
        seen += re.findall(r'href="/console/users/[\w-]{36}">([\w-]+)<', page)
        found = re.search(r'href="(\S+)" rel="next"', page)
        url = found.group(1).replace("&amp;", "&") if found else None
    assert seen == ["ada", "root", *(f"user-{n:03}" for n in range(120))]
    assert "user-007" in root.get(f"{PATH}?q=R-007").text
    assert "user-007" not in root.get(f"{PATH}?role=admin").text
    assert "Nobody is like that" in root.get(f"{PATH}?q=%00nobody").text
    older = re.search(r'href="(\S+)" rel="next"', root.get(page_of).text).group(1)
    assert "token 0<" in root.get(older).text
