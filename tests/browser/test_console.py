"""The console in Chromium: schedules are paused and edited, and nobody overwrites another."""

import re

from playwright.sync_api import Page, expect

TASK = "content.refresh_stats"


def make_schedule(page: Page, name: str) -> None:
    page.goto("/console/schedules")
    page.get_by_role("link", name="New schedule").click()
    page.get_by_label("What is to be run").select_option(TASK)
    page.get_by_role("button", name="Go on").click()
    page.get_by_label("Name").fill(name)
    page.get_by_role("button", name="Schedule it").click()
    expect(page.get_by_text("It is scheduled.")).to_be_visible()


def test_a_schedule_is_made_its_firings_follow_what_is_typed_and_it_rests(visit):
    page = visit("/console/schedules", who="grace")
    make_schedule(page, "stats.mine")
    page.get_by_role("link", name="Edit").click()
    firings = page.locator("#firings li")
    expect(firings).to_have_count(10)
    page.get_by_label("Cron", exact=True).fill("17 4 * * *")
    expect(firings.first).to_contain_text(" 04:17:00")
    page.get_by_label("Time zone").fill("Mars/Base")
    expect(page.locator("#firings")).to_contain_text("Mars/Base")
    page.get_by_label("Time zone").fill("Asia/Tokyo")
    expect(firings.first).to_contain_text("04:17:00 +09:00")
    page.get_by_label("At intervals").check()
    page.get_by_label("Every, seconds").fill("7200")
    expect(firings.first).to_contain_text(re.compile(r"\d\d:00:00 \+09:00"))
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("It is changed.")).to_be_visible()
    expect(page.get_by_text("every 2 h 0 min")).to_be_visible()
    page.get_by_label("Reason").fill("we move the disk")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("we move the disk")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("It goes on.")).to_be_visible()


def test_a_stale_edit_is_shown_beside_what_there_is(visit):
    mine = visit("/console/schedules", who="grace")
    make_schedule(mine, "stats.ours")
    theirs = visit("/console/schedules/stats.ours/edit", who="grace")
    mine.goto("/console/schedules/stats.ours/edit")
    for page, cron in ((theirs, "0 9 * * *"), (mine, "0 5 * * *")):
        page.get_by_label("Cron", exact=True).fill(cron)
        page.get_by_role("button", name="Save").click()
    conflict = mine.locator("#conflict")
    expect(conflict.get_by_role("row", name="Cron")).to_contain_text("0 5 * * *")
    expect(conflict.get_by_role("row", name="Cron")).to_contain_text("0 9 * * *")
    conflict.get_by_role("button", name="Save mine over it").click()
    expect(mine.get_by_text("It is changed.")).to_be_visible()
    expect(mine.get_by_text("0 5 * * *")).to_be_visible()
