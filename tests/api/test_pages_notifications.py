"""The page of notifications."""

import re

import pytest

from genonaut.domain import notifications
from genonaut.domain.kinds import Kind
from genonaut.domain.users import find_user
from tests.api.conftest import csrf_of


@pytest.fixture
def tell(database):
    def make(username: str, title: str, **data) -> None:
        with database.transaction() as session:
            notifications.notify(
                session,
                find_user(session, username).id,
                kind=Kind.SYSTEM,
                dedupe_key=title,
                title=title,
                body="as it says",
                data=data,
            )

    return make


def test_one_reads_marks_and_deletes_ones_own_only(visit, tell, act):
    ada, bob = visit("ada"), visit("bob")
    assert "When a picture is done" in ada.get("/notifications").text
    tell("ada", "A picture <b>is</b> done", content_id=7)
    tell("ada", "Another thing", job_id=8, content_id=None)
    tell("bob", "For bob")
    page = ada.get("/notifications")
    assert "A picture &lt;b&gt;is&lt;/b&gt; done" in page.text
    assert "For bob" not in page.text
    assert page.text.count(">new<") == 2
    [newest, oldest] = re.findall(r'action="(/notifications/\d+)/mark"', page.text)
    assert act(ada, f"{newest}/mark", read=1).text.count(">new<") == 1
    assert "Another thing" not in ada.get("/notifications?unread=1").text
    assert act(bob, f"{oldest}/delete").status_code == 404
    assert "is deleted" in act(ada, f"{oldest}/delete").text
    act(ada, f"{newest}/mark", read=0)
    assert ">new<" not in act(ada, "/notifications/read-all").text
    assert "For bob" in bob.get("/notifications").text


def test_a_notice_that_is_opened_is_read_and_leads_to_what_it_is_about(visit, tell):
    ada, bob = visit("ada"), visit("bob")
    places = {"/pictures/7": {"content_id": 7}, "/jobs/8": {"job_id": 8, "content_id": None}}
    places |= {"/console/runs/9": {"run_id": 9}, "/gallery": {"content_ids": [7]}}
    for place, data in places.items():
        tell("ada", place, **data)
    tell("ada", "about nothing")
    page = ada.get("/notifications")
    opened = re.findall(r'action="(/notifications/\d+/open)"', page.text)
    assert len(opened) == 4
    fields = {"csrf": csrf_of(page)}
    found = [ada.post(path, data=fields).headers["location"] for path in opened]
    assert found == list(places)[::-1]
    assert ada.get("/notifications").text.count(">new<") == 1
    assert ada.post(opened[0]).status_code == 403
    assert bob.post(opened[0], data={"csrf": csrf_of(bob.get("/"))}).status_code == 404


def test_long_lists_are_read_by_pages(visit, tell):
    ada = visit("ada")
    for n in range(35):
        tell("ada", f"number {n}.")
    first = ada.get("/notifications")
    assert ("number 34." in first.text, "number 4." in first.text) == (True, False)
    following = re.search(r'href="([^"]+)" rel="next"', first.text).group(1)
    second = ada.get(following)
    assert ("number 4." in second.text, "number 34." in second.text) == (True, False)
    assert 'rel="next"' not in second.text
