"""``make screenshots``: every page, on a desktop and a phone, light and dark, to be looked at."""

from pathlib import Path

from genonaut.worker import discovery
from tests.browser.conftest import DESKTOP, PHONE, log_in
from tests.reliability.program import until
from tests.reliability.rig import Rig

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
SHAPES = ((512, 384), (384, 512), (512, 512), (640, 384), (384, 640))
PROMPTS = (
    "a lighthouse in a storm, oil painting",
    "a fox between birches, morning mist",
    "an old harbour at night",
)


def test_take_screenshots(visit, site, lived_in):
    FOLDER.mkdir(exist_ok=True)
    discovery.load()
    site.beat()
    for who in ("grace", "ada"):
        log_in(site, who)
        jobs = [
            site.web.submit(prompt=PROMPTS[n % 3], width=wide, height=high)
            for n, (wide, high) in enumerate(SHAPES)
        ]
        for job in jobs:
            site.wait_for(job, "completed", timeout_s=60)
    site.wait_for_run(site.trigger("content.refresh_stats"), "completed")
    until(lambda: health(site) == "ok", "all is well, beat too", 60)
    page = visit("/", who="grace")
    paths = page.locator("#nav > a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    named = {path.strip("/").replace("/", "-") or "make": path for path in paths} | lived_in
    for name, path in named.items():
        page.goto(path)
        for kind, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            page.set_viewport_size(viewport)
            for look in ("light", "dark"):
                page.emulate_media(color_scheme=look, reduced_motion="reduce")
                page.wait_for_timeout(150)
                page.screenshot(path=FOLDER / f"{name}-{kind}-{look}.png")


def health(site: Rig) -> str:
    """Say how the whole is."""
    log_in(site, "grace")
    return site.web.http.get("/api/v1/admin/health").json()["status"]
