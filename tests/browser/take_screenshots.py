"""``make screenshots``: every page, on a desktop and a phone, light and dark, to be looked at."""

from pathlib import Path

from genonaut.domain import users
from genonaut.worker import discovery
from tests.browser.conftest import DESKTOP, PHONE

FOLDER = Path(__file__).parents[2] / "docs" / "screenshots"
SHAPES = ((512, 384), (384, 512), (512, 512), (640, 384), (384, 640))
PROMPTS = (
    "a lighthouse in a storm, oil painting",
    "a fox between birches, morning mist",
    "an old harbour at night",
)
MORE = {"picture": "/pictures/1", "job": "/jobs/1", "run": "/console/runs/1"}
MORE["task"] = "/console/tasks/thumbnails.backfill"


def test_take_screenshots(visit, site):
    FOLDER.mkdir(exist_ok=True)
    discovery.load()
    for who in ("grace", "ada"):
        site.web.http.headers["Authorization"] = f"Bearer {site.token(_id_of(site, who))}"
        jobs = [
            site.web.submit(prompt=PROMPTS[n % 3], width=wide, height=high)
            for n, (wide, high) in enumerate(SHAPES)
        ]
        for job in jobs:
            site.wait_for(job, "completed", timeout_s=60)
    site.wait_for_run(site.trigger("content.refresh_stats"), "completed")
    page = visit("/", who="grace")
    paths = page.locator("#nav > a").evaluate_all("all => all.map(a => a.getAttribute('href'))")
    named = {path.strip("/").replace("/", "-") or "make": path for path in paths} | MORE
    for name, path in named.items():
        page.goto(path)
        for kind, viewport in (("desktop", DESKTOP), ("phone", PHONE)):
            page.set_viewport_size(viewport)
            for look in ("light", "dark"):
                page.emulate_media(color_scheme=look, reduced_motion="reduce")
                page.wait_for_timeout(150)
                page.screenshot(path=FOLDER / f"{name}-{kind}-{look}.png")


def _id_of(site, who: str):
    with site.database.transaction() as session:
        return users.find_user(session, who).id
