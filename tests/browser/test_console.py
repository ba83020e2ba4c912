"""The console in Chromium: runs are watched and stopped, schedules edited, roles kept apart."""

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


def test_a_list_is_rendered_once_for_each_state_of_a_run_it_does_not_show(visit, site):
    page = visit("/console/runs?status=failed", who="grace")
    expect(page.locator(".live")).to_have_attribute("data-state", "on")
    page.evaluate(
        "window.heard = [];"
        "document.addEventListener('live:run', ({ detail }) => heard.push(detail.status))"
    )
    rendered = []
    page.on("request", lambda asked: "hx-request" in asked.headers and rendered.append(asked.url))
    run = site.trigger("toys.beside", upto=60)
    site.wait_for_run(run, "completed")
    page.wait_for_function("heard.includes('completed')")
    page.wait_for_function("document.querySelector('#runs-shown').dataset.renewed")
    page.wait_for_timeout(1000)  # for those that should not be
    states = page.evaluate("heard")
    assert len(states) > len(set(states)) + 2
    assert 1 <= len(rendered) <= len(set(states))


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


def test_a_run_is_tried_dry_watched_cancelled_and_repeated(visit):
    page = visit("/console/tasks/thumbnails.backfill", who="grace")
    page.get_by_role("button", name="Dry run").click()
    expect(page.locator("#run")).to_have_attribute("data-status", "completed")
    expect(page.get_by_label("Result")).to_contain_text('"images": 0')
    page.goto("/console/tasks/toys.count")
    page.get_by_label("upto").fill("2000")
    page.get_by_role("button", name="Run").click()
    run = page.locator("#run")
    expect(run).to_have_attribute("data-status", "running")
    bar = run.get_by_role("progressbar")
    expect(bar).to_have_attribute("value", re.compile(r"[1-9]"))
    page.get_by_role("button", name="Cancel").click()
    expect(run).to_have_attribute("data-status", "cancelled")
    page.get_by_role("button", name="Retry").click()
    expect(page.get_by_text("It runs once more.")).to_be_visible()
    expect(run).to_have_attribute("data-status", "running")
    page.goto("/console/runs?task=toys.count&status=running")
    page.get_by_role("link", name="Cancel all of these").click()
    page.get_by_role("button", name="Cancel 1 run").click()
    expect(page.get_by_text("1 told to stop.")).to_be_visible()
    page.goto("/console/runs?task=toys.count")
    rows = page.locator("tr[data-row]")
    expect(rows.filter(has_text="cancelled")).to_have_count(2)


def test_each_role_is_shown_what_it_may_do(visit):
    eve = visit("/console/runs", who="eve")
    expect(eve.get_by_role("link", name="Audit")).to_be_visible()
    for path in (
        "/console/tasks/content.refresh_stats",
        "/console/schedules",
        "/console/thumbnails",
    ):
        eve.goto(path)
        expect(eve.get_by_role("heading", level=1)).to_be_visible()
        for name in ("Run", "Dry run", "Pause schedules", "Make"):
            expect(eve.get_by_role("button", name=name, exact=True)).to_have_count(0)
    ada = visit("/", who="ada")
    expect(ada.get_by_role("link", name="Gallery")).to_be_visible()
    expect(ada.get_by_role("link", name="Audit")).to_have_count(0)


def test_what_is_done_to_many_is_asked_about(visit):
    page = visit("/console/schedules", who="grace")
    page.once("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Pause schedules").click()
    expect(page.get_by_role("button", name="Pause schedules")).to_be_visible()
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Pause schedules").click()
    page.get_by_role("button", name="Resume schedules").click()
    expect(page.get_by_role("button", name="Pause schedules")).to_be_visible()
