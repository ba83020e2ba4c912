"""Pictures and their jobs in Chromium, by mouse, by keys, and without scripts."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from genonaut.domain import generation, interactions, users
from tests.browser.conftest import PHONE

AXE = Axe()


@pytest.fixture
def put(site):
    """Make pictures of ada's; give the ids of the items, newest first."""

    def make(*prompts: str) -> list[int]:
        jobs = [site.web.submit(prompt=one, width=256, height=192) for one in prompts]
        for job in jobs:
            site.wait_for(job, "completed")
        with site.database.transaction() as session:
            found = [generation.owned(session, site.user_id, job).content_id for job in jobs]
        return sorted(found, reverse=True)

    return make


@pytest.fixture
def stands(site):
    def look(who: str, content_id: int) -> interactions.Standing:
        with site.database.transaction() as session:
            user_id = users.find_user(session, who).id
            return interactions.standing(session, user_id, content_id)

    return look


def soon(page: Page, true) -> None:
    for _ in range(100):
        if true():
            return
        page.wait_for_timeout(100)
    raise AssertionError


def test_a_heart_in_the_grid_is_pressed_by_key_and_nothing_moves(visit, put, stands):
    [content_id] = put("liked in the grid")
    page = visit("/gallery?q=liked+in+the+grid", who="grace")
    page.evaluate("window.notReloaded = true")
    heart = page.locator(f"#like-{content_id}")
    card = page.locator(f"#p{content_id}")
    place = card.bounding_box()
    for pressed in ("true", "false", "true"):
        heart.focus()
        page.keyboard.press("Enter")
        expect(heart).to_have_attribute("aria-pressed", pressed)
        expect(heart).to_be_focused()
    assert card.bounding_box() == place
    assert page.evaluate("window.notReloaded")
    assert stands("grace", content_id).liked
    page.goto("/gallery?liked=1")
    page.locator(f"#like-{content_id}").click()
    expect(page.locator(f"#like-{content_id}")).to_have_attribute("aria-pressed", "false")


def test_a_heart_that_is_pressed_again_at_once_is_taken_back_in_its_place(visit, put):
    """What htmx has just put in its place is its own already, not a form that leads away."""
    [content_id] = put("liked for a moment")
    page = visit("/gallery?q=liked+for+a+moment", who="grace")
    page.evaluate("window.notReloaded = true")
    page.evaluate(
        """(id) => document.addEventListener("htmx:afterSwap", () => {
            setTimeout(() => document.getElementById(id).click());
        }, { once: true })""",
        f"like-{content_id}",
    )
    heart = page.locator(f"#like-{content_id}")
    posts = []
    page.on("response", lambda answer: answer.request.method == "POST" and posts.append(answer))
    heart.click()
    soon(page, lambda: len(posts) == 2)
    expect(heart).to_have_attribute("aria-pressed", "false")
    assert page.evaluate("window.notReloaded")


def test_stars_in_the_grid_are_given_by_key_and_by_mouse(visit, put, stands):
    first, other = put("rated in the grid", "rated in the grid, too")
    page = visit("/gallery?q=rated+in+the+grid", who="grace")
    page.evaluate("window.notReloaded = true")
    summary, menu = page.locator(f"#rate-{first}"), page.locator(f"#rating-{first} form")
    place = page.locator(f"#p{first}").bounding_box()
    summary.focus()
    page.keyboard.press("Enter")
    expect(menu).to_be_visible()
    assert AXE.run(page).response["violations"] == []
    page.keyboard.press("Tab")  # five stars are the first
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(summary).to_contain_text("Rated 4 stars")
    expect(summary).to_be_focused()
    expect(menu).to_be_hidden()
    assert stands("grace", first).rating == 4
    summary.click()
    expect(menu).to_be_visible()
    page.locator(f"#rate-{other}").click()
    expect(menu).to_be_hidden()
    page.locator(f"#rating-{other}").get_by_role("button", name="1 star").click()
    expect(page.locator(f"#rate-{other}")).to_contain_text("Rated 1 star")
    summary.click()
    page.keyboard.press("Escape")
    expect(menu).to_be_hidden()
    assert page.evaluate("window.notReloaded")
    assert page.locator(f"#p{first}").bounding_box() == place


def test_arrow_keys_go_from_picture_to_picture(visit, put):
    newest, middle, oldest = put("one", "two", "three")
    page = visit(f"/pictures/{middle}")
    for key, arrived in (
        ("ArrowRight", oldest),
        ("ArrowLeft", middle),
        ("ArrowLeft", newest),
        ("ArrowRight", middle),
    ):
        page.keyboard.press(key)
        page.wait_for_url(f"**/pictures/{arrived}")
        expect(page.locator(".live")).to_have_attribute("data-state", "on")


def test_a_look_and_a_download_are_noted_of_others_pictures_only(visit, put, stands):
    [content_id] = put("looked at")
    page = visit(f"/pictures/{content_id}", who="grace")
    soon(page, lambda: stands("grace", content_id).views == 1)
    with page.expect_download():
        page.get_by_role("link", name="download").click()
    soon(page, lambda: stands("grace", content_id).downloads == 1)
    own = visit(f"/pictures/{content_id}")
    expect(own.locator("#noted")).to_have_count(0)


def test_a_job_is_cancelled_in_its_card_without_reload(visit, site):
    page = visit("/")
    page.evaluate("window.notReloaded = true")
    job = site.web.submit(prompt="takes long", width=256, height=256, sampler_params={"steps": 150})
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "running")
    card.get_by_role("button", name="Cancel").click()
    expect(card).to_have_attribute("data-status", "cancelled")
    card.get_by_role("button", name="Retry").click()
    again = page.locator(f"#job-{job + 1}")
    expect(again).to_be_visible()
    again.get_by_role("button", name="Cancel").click()
    expect(again).to_have_attribute("data-status", "cancelled")
    assert page.evaluate("window.notReloaded")


def test_another_lora_keeps_what_was_typed_and_a_refused_form_says_why(visit):
    page = visit("/")
    page.get_by_label("Prompt", exact=True).fill("kept")
    page.get_by_text("LoRAs").click()
    rows = page.locator(".lora")
    before = rows.count()
    page.get_by_role("button", name="Another LoRA").click()
    expect(rows).to_have_count(before + 1)
    expect(rows.last.get_by_label("LoRA", exact=True)).to_be_focused()
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("kept")
    page.get_by_label("Prompt", exact=True).fill(" ")
    page.get_by_label("Seed", exact=True).press("Enter")
    expect(page.locator("#prompt-error")).to_be_visible()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()


def test_opening_a_notice_reads_it(visit, put):
    [content_id] = put("told of")
    page = visit("/notifications")
    notice = page.locator(".notices li").first
    expect(notice).to_have_class(re.compile("new"))
    notice.get_by_role("button").first.click()
    page.wait_for_url(f"**/pictures/{content_id}")
    page.goto("/notifications")
    expect(page.locator(".notices li").first).not_to_have_class(re.compile("new"))


def test_a_suggestion_is_refused_in_place(visit, put):
    put("suggested one", "suggested other")
    page = visit("/gallery", who="grace")
    row = page.locator("#suggested li")
    gone = row.first.locator("a").get_attribute("href")
    first = row.first.get_by_role("button", name="Not for me")
    first.focus()
    page.keyboard.press("Enter")
    expect(page.locator(f"#suggested a[href='{gone}']")).to_have_count(0)
    expect(row.first.get_by_role("button", name="Not for me")).to_be_focused()
    expect(page.locator(".toast")).to_contain_text("not be suggested again")


def test_three_toasts_at_most_are_shown_and_a_phone_keeps_its_lower_half(visit):
    page = visit("/", viewport=PHONE)
    page.evaluate(
        "for (let n = 1; n <= 7; n++) document.dispatchEvent(new CustomEvent('toast',"
        " {detail: {text: `number ${n} ` + 'and so on '.repeat(30)}}))"
    )
    toasts = page.locator(".toast")
    expect(toasts).to_have_count(3)
    expect(toasts.first).to_contain_text("number 5")
    box = page.locator("#toasts").bounding_box()
    assert box["y"] + box["height"] < PHONE["height"] / 2
    toasts.first.click()
    expect(toasts).to_have_count(2)


@pytest.mark.parametrize("look", ["light", "dark"])
def test_pages_behind_the_navigation_are_sound(visit, site, put, look):
    [content_id] = put("seen by axe")
    page = visit("/", who="grace", color_scheme=look)
    job = site.web.submit(prompt="at work", width=256, height=256, sampler_params={"steps": 60})
    own = visit(f"/jobs/{job}", color_scheme=look)
    for tab, path in (
        (own, f"/jobs/{job}"),
        (own, f"/pictures/{content_id}"),
        (page, f"/pictures/{content_id}"),
        (page, "/gallery?since=2026-03-02&until=2026-03-01"),
    ):
        assert tab.goto(path).status == 200, path
        expect(tab.locator(".live")).to_have_attribute("data-state", "on")
        found = AXE.run(tab, options={"resultTypes": ["violations"]})
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
    for width in (PHONE, {"width": 1280, "height": 900}):
        page.set_viewport_size(width)
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    site.try_cancel(job)


def test_without_scripts_a_picture_is_made_seen_and_liked(visit, site):
    page = visit("/", java_script_enabled=False)
    page.get_by_text("LoRAs").click()
    rows = page.locator(".lora").count()
    page.get_by_role("button", name="Another LoRA").click()
    expect(page.locator(".lora")).to_have_count(rows + 1)
    prompt = page.get_by_label("Prompt", exact=True)
    prompt.fill("by hand alone")
    page.get_by_label("Seed", exact=True).press("Enter")
    expect(page.get_by_text("Asked for.")).to_be_visible()
    job = page.locator("[data-row^='job:']").first.get_attribute("data-row").split(":")[1]
    site.wait_for(int(job), "completed")
    page.reload()
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "completed")
    address = card.locator("a[href^='/pictures/']").first.get_attribute("href")
    content_id = address.rsplit("/", 1)[1]
    page.goto("/gallery?mine=1")
    page.locator(f"#like-{content_id}").click()
    page.wait_for_url(f"**/gallery?mine=1#p{content_id}")
    expect(page.locator(f"#like-{content_id}")).to_have_attribute("aria-pressed", "true")
    page.goto("/notifications")
    page.locator(".notices li").first.get_by_role("button").first.click()
    page.wait_for_url(f"**{address}")
