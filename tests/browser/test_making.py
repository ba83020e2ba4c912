"""A picture is made and a task is run in front of one's eyes, in Chromium."""

import re

from playwright.sync_api import expect


def test_a_picture_is_asked_for_and_appears_without_reload(visit):
    page = visit("/")
    page.evaluate("window.notReloaded = true")
    page.get_by_label("Prompt", exact=True).fill("a lighthouse in a storm")
    page.get_by_role("button", name=re.compile("^Make")).click()
    card = page.locator("[data-row^='job:']").first
    expect(card).to_have_attribute("data-status", "completed", timeout=30_000)
    expect(card.locator("img").first).to_be_visible()
    assert page.evaluate("window.notReloaded")
    expect(page.get_by_label("Prompt", exact=True)).to_have_value("a lighthouse in a storm")
    card.locator("a[href^='/pictures/']").first.click()
    expect(page.locator("#prompt")).to_have_text("a lighthouse in a storm")
    page.get_by_role("button", name="Like").click()
    expect(page.get_by_role("button", name="Liked")).to_be_visible()


def test_two_tabs_see_the_same_and_a_reload_in_the_middle_loses_nothing(visit, site):
    one, other = visit("/"), visit("/")
    job = site.web.submit(prompt="seen twice", width=512, height=512)
    for tab in (one, other):
        expect(tab.locator(f"#job-{job}")).to_be_visible()
    other.reload()
    for tab in (one, other):
        expect(tab.locator(f"#job-{job}")).to_have_attribute(
            "data-status", "completed", timeout=30_000
        )


def test_what_happens_elsewhere_takes_no_focus_from_a_form_that_is_mended(visit, site):
    page = visit("/")
    page.get_by_text("Advanced", exact=True).click()
    page.get_by_label("Prompt", exact=True).fill(" ")
    width = page.get_by_label("Width", exact=True)
    width.fill("65")
    page.get_by_role("button", name=re.compile("^Make")).click()
    expect(page.get_by_label("Prompt", exact=True)).to_be_focused()
    width.focus()
    job = site.web.submit(prompt="made meanwhile", width=256, height=256)
    card = page.locator(f"#job-{job}")
    expect(card).to_have_attribute("data-status", "completed", timeout=30_000)
    expect(width).to_be_focused()


def test_a_task_is_run_and_watched_to_its_end(visit):
    page = visit("/console/tasks/content.refresh_stats", who="grace")
    page.get_by_label("Reason").fill("to see it work")
    page.get_by_role("button", name="Run").last.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("content.refresh_stats")
    expect(page.locator("#run")).to_have_attribute("data-status", "completed", timeout=30_000)
    page.goto("/console/audit")
    expect(page.get_by_text("run.trigger").first).to_be_visible()
