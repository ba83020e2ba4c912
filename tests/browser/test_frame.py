"""What holds on every page: no violation of axe or of the policy, no error, and a live socket."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import PHONE

AXE = Axe()


def live(page) -> None:
    expect(page.locator(".live")).to_have_attribute("data-state", "on")


@pytest.mark.parametrize("look", ["light", "dark"])
def test_every_page_is_sound(visit, lived_in, look):
    first = visit("/", who="grace", color_scheme=look)
    paths = first.locator("#nav > a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    assert "/console/runs" in paths
    for path in [*paths, *lived_in.values()]:
        answer = first.goto(path)
        assert answer.status == 200, path
        live(first)
        found = AXE.run(first, options={"resultTypes": ["violations"]})
        assert found.violations_count == 0, f"{path}: {found.generate_report()}"
    first.context.clear_cookies()
    first.goto("/login")
    first.get_by_label("token").fill("wrong")
    first.get_by_role("button").click()
    expect(first.get_by_role("alert")).to_be_visible()
    found = AXE.run(first, options={"resultTypes": ["violations"]})
    assert found.violations_count == 0, f"/login: {found.generate_report()}"


def test_no_page_is_wider_than_a_phone_and_the_menu_opens(visit, lived_in):
    page = visit("/", who="grace", viewport=PHONE)
    paths = page.locator("#nav > a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    for path in [*paths, *lived_in.values()]:
        page.goto(path)
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{path} is {wide} px too wide"
        expect(page.locator("#nav")).to_be_hidden()
        page.get_by_role("button", name="Menu").click()
        expect(page.locator("#nav"), path).to_be_visible()


def test_a_network_that_goes_and_returns_is_told_truly(visit, site):
    page = visit("/")
    live(page)
    count = page.locator("#nav [data-unread]")
    before = int(count.text_content())
    page.context.set_offline(True)
    expect(page.locator(".live")).to_have_attribute("data-state", "wait")
    job = site.web.submit(prompt="made while nobody looked", width=256, height=256)
    site.wait_for(job, "completed")
    page.context.set_offline(False)
    live(page)
    expect(count).to_have_text(str(before + 1))


def test_a_look_is_chosen_at_once_and_kept(visit):
    page = visit("/")
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.wait_for_load_state("networkidle")
    page.reload()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")


def test_nine_tabs_are_all_live(visit):
    tabs = [visit("/") for _ in range(9)]
    for tab in tabs:
        live(tab)


def test_logging_out_in_one_tab_is_told_in_another(visit):
    kept, left = visit("/"), visit("/")
    live(kept)
    left.get_by_role("button", name="Log out").click()
    expect(left.get_by_label("API token")).to_be_visible()
    expect(kept.locator(".live")).to_have_attribute("data-state", "off")
