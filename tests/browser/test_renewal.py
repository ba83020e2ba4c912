"""What the socket has rendered anew ends as it is, whatever else is under way, in Chromium."""

import re

import pytest
from playwright.sync_api import Route, expect

LONG = {"width": 256, "height": 256, "sampler_params": {"steps": 150}}


@pytest.fixture
def cancel(site):
    def end(job_id: int) -> None:
        assert site.web.cancel(job_id) < 300
        site.wait_for(job_id, "cancelled")

    return end


def test_whatever_ended_while_nobody_looked_is_shown_as_it_is(visit, site, cancel):
    page = visit("/")
    jobs = [site.web.submit(prompt=f"number {n}", **LONG) for n in range(5)]
    cards = [page.locator(f"#job-{job}") for job in jobs]
    for card in cards:
        expect(card).to_have_attribute("data-status", re.compile("pending|running"))
    page.context.set_offline(True)
    expect(page.locator(".live")).to_have_attribute("data-state", "wait")
    for job in reversed(jobs):  # the one at work last, so that no other begins
        cancel(job)
    page.context.set_offline(False)
    for card in cards:
        expect(card).to_have_attribute("data-status", "cancelled")


def test_an_answer_that_comes_late_does_not_hide_what_came_after_it(visit, site, cancel):
    page = visit("/")
    held = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append((route, route.fetch()))

    *ahead, job = (site.web.submit(prompt=f"late {n}", **LONG) for n in range(3))
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "pending")
    page.route(re.compile(rf"/jobs/{job}\b"), hold)
    cancel(ahead.pop())
    for _ in range(100):
        page.wait_for_timeout(100)
        if held:
            break
    [(route, older)] = held
    assert 'data-status="running"' in older.text()
    cancel(job)
    page.wait_for_timeout(500)  # for what should wait
    route.fulfill(response=older)
    expect(card).to_have_attribute("data-status", "cancelled")
    cancel(ahead.pop())


def test_a_card_keeps_the_focus_and_its_story_goes_on(visit, site, cancel):
    job = site.web.submit(prompt="a story", **LONG)
    page = visit(f"/jobs/{job}")
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "running")
    like = card.get_by_role("link", name="Make another like this")
    like.focus()
    cancel(job)
    expect(card).to_have_attribute("data-status", "cancelled")
    expect(like).to_be_focused()
    expect(page.locator("#story")).to_contain_text(re.compile("cancelled", re.IGNORECASE))


def test_a_row_within_a_row_shows_its_own_progress(visit, site, cancel):
    job = site.web.submit(prompt="around another", **LONG)
    page = visit("/")
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "running")
    version = card.get_attribute("data-version")
    card.evaluate(
        """(card) => card.insertAdjacentHTML("beforeend",
            '<p data-row="job:0"><i data-bind="status">mine</i></p>')"""
    )
    expect(card).not_to_have_attribute("data-version", version)
    expect(card.locator("i")).to_have_text("mine")
    cancel(job)


def test_what_is_pressed_twice_is_done_once(visit, site):
    page = visit("/")
    prompt = "pressed twice in a row"
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_role("button", name=re.compile("^Make$")).last.dblclick()
    expect(page.locator("#works").get_by_text(prompt)).to_be_visible()
    page.wait_for_timeout(500)  # for the one that should not be
    jobs = site.web.http.get("/api/v1/generation-jobs").json()["items"]
    assert [job["prompt"] for job in jobs].count(prompt) == 1
    admin = visit("/console/users", who="grace")
    admin.get_by_role("link", name="ada").first.click()
    before = admin.locator("#tokens tbody tr").count()
    admin.get_by_label("What it is for").fill("a script")
    admin.locator("form[action$='/tokens'] button").dblclick()
    expect(admin.get_by_text(re.compile("gn_"))).to_be_visible()
    assert admin.locator("#tokens tbody tr").count() == before + 1


def test_an_answer_that_is_not_ours_is_told(visit, site, cancel):
    job = site.web.submit(prompt="behind a proxy", **LONG)
    page = visit("/")
    page.route(
        re.compile("/cancel$"), lambda route: route.fulfill(status=502, body="<h1>Bad Gateway</h1>")
    )
    page.locator(f"#job-{job}").get_by_role("button", name="Cancel").click()
    expect(page.locator("#toasts .error")).to_have_text("The server does not answer.")
    visit.said.clear()  # the browser tells of it, too
    cancel(job)
