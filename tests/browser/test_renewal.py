"""What the socket has rendered anew ends as it is, whatever else is under way, in Chromium."""

import re
from types import SimpleNamespace

import pytest
from playwright.sync_api import Page, Route, expect

LONG = {"width": 256, "height": 256, "sampler_params": {"steps": 150}}


@pytest.fixture(scope="module", autouse=True)
def slowly(site):
    """Have ComfyUI draw for longer than any test here takes."""
    site.comfy.faults(step_delay_s=0.5)
    yield
    site.comfy.faults()


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
    page.wait_for_timeout(500)
    visit.said.clear()  # the browser tells of what it could not ask
    page.context.set_offline(False)
    for card in cards:
        expect(card).to_have_attribute("data-status", "cancelled")


@pytest.fixture
def held():
    """Hold the first answer to a request of a page, as it was when it was asked for."""
    answers = []

    def hold(route: Route) -> None:
        if answers:
            route.continue_()
        else:
            answers.append((route, route.fetch()))

    def wait(page: Page) -> str:
        for _ in range(100):
            if answers:
                return answers[0][1].text()
            page.wait_for_timeout(100)
        raise AssertionError

    def let_go() -> None:
        route, answer = answers[0]
        route.fulfill(response=answer)

    return SimpleNamespace(hold=hold, wait=wait, let_go=let_go)


def test_an_answer_that_comes_late_does_not_hide_what_came_after_it(visit, site, cancel, held):
    page = visit("/")
    *ahead, job = (site.web.submit(prompt=f"late {n}", **LONG) for n in range(3))
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "pending")
    page.route(re.compile(rf"/jobs/{job}\b"), held.hold)
    cancel(ahead.pop())
    assert 'data-status="running"' in held.wait(page)
    cancel(job)
    page.wait_for_timeout(500)  # for what should wait
    held.let_go()
    expect(card).to_have_attribute("data-status", "cancelled")
    cancel(ahead.pop())


def test_what_htmx_puts_in_and_is_older_than_what_was_heard_is_rendered_anew(visit, site, cancel):
    job = site.web.submit(prompt="there before", **LONG)
    page = visit("/")
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "running")
    older = page.request.get(f"/jobs/{job}?listed=1").text()
    assert 'data-status="running"' in older
    cancel(job)
    expect(card).to_have_attribute("data-status", "cancelled")
    page.evaluate(
        """([id, html]) => window.htmx.swap(
            id, html, { swapStyle: "outerHTML" }, { select: id })""",
        [f"#job-{job}", older],
    )
    expect(card).to_have_attribute("data-status", "cancelled")
    expect(card.get_by_role("button", name="Retry")).to_be_visible()


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
    page.reload()  # so that only what is filled in follows
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
    admin.get_by_label("What it is for").fill("a script")
    before = admin.locator("#tokens tbody tr").count()
    admin.locator("form[action$='/tokens'] button").dblclick()
    expect(admin.get_by_text(re.compile("gn_"))).to_be_visible()
    expect(admin.locator("#tokens tbody tr")).to_have_count(before + 1)


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
