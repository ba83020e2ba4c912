"""A real Chromium before a real environment: API, workers and the simulator as processes."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from genonaut.domain import users
from genonaut.domain.users import Role
from tests.reliability.conftest import servers
from tests.reliability.rig import Rig

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-quic",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000
STATS = "content.refresh_stats"
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}

__all__ = ["servers"]

expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module")
def site(servers, tmp_path_factory) -> Iterator[Rig]:
    """One environment for the module: its API, and workers for jobs and for tasks."""
    with ExitStack() as stack:
        rig = Rig(servers, tmp_path_factory.mktemp("site"), stack)
        rig.worker("generation", wait=False)
        rig.worker("tasks", queues="default,maintenance,notifications", wait=False)
        rig.api()
        rig.add_user("grace", Role.ADMIN)
        rig.add_user("eve", Role.AUDITOR)
        for program in rig.programs[:2]:
            program.wait_for_log(r"\w ready\.")
        yield rig


def log_in(site: Rig, username: str) -> None:
    """Ask the API as somebody from now on."""
    with site.database.transaction() as session:
        user_id = users.find_user(session, username).id
    site.web.http.headers["Authorization"] = f"Bearer {site.token(user_id)}"


@pytest.fixture(scope="module")
def lived_in(site: Rig) -> dict[str, str]:
    """Have something on every page; give the pages that are not in the navigation, by name."""
    log_in(site, "grace")
    job = site.web.submit(prompt="a lighthouse in a storm", width=256, height=256)
    site.wait_for(job, "completed")
    run = site.trigger("toys.count", upto=3, bad=[2])
    site.wait_for_run(run, "completed")
    site.trigger("toys.wait", upto=10**6)
    made = site.web.http.post(
        "/api/v1/admin/schedules", json={"name": "stats.lived", "task": STATS, "cron": "0 * * * *"}
    )
    assert made.status_code == 201
    content = site.web.http.get("/api/v1/content").json()["items"][0]["id"]
    people = site.web.http.get("/api/v1/admin/users?q=ada").json()["items"]
    log_in(site, "ada")
    return {
        "user": f"/console/users/{people[0]['id']}",
        "job": f"/jobs/{job}",
        "picture": f"/pictures/{content}",
        "task": "/console/tasks/thumbnails.backfill",
        "run": f"/console/runs/{run}",
        "batch": "/console/batch?act=cancel",
        "schedule": "/console/schedules/stats.lived",
        "schedule-edit": "/console/schedules/stats.lived/edit",
        "schedule-new": f"/console/new-schedule?task={STATS}",
    }


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser; of the module only, since its event loop must not be there for other tests."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed (on Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(site: Rig, chromium: Browser) -> Iterator[Callable[..., Page]]:
    """Open a page as somebody who logged in by a link; nothing may go wrong in its console."""
    contexts: dict[str, BrowserContext] = {}
    said: list[str] = []

    def watch(page: Page) -> Page:
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: said.append(f"{page.url}: {error}"))
        page.on(
            "console",
            lambda line: said.append(f"{page.url}: {line.text}") if line.type == "error" else None,
        )
        return page

    def open_page(path: str = "/", *, who: str = "ada", **options) -> Page:
        if who not in contexts:
            contexts[who] = chromium.new_context(
                base_url=f"http://127.0.0.1:{site.web.port}",
                **{"viewport": DESKTOP, "reduced_motion": "reduce", **options},
            )
            with site.database.transaction() as session:
                account = users.find_user(session, who)
                link = users.issue_login_link(session, account.id)
            page = watch(contexts[who].new_page())
            page.goto(f"/login?token={link}&next={path}")
            return page
        page = watch(contexts[who].new_page())
        page.goto(path)
        return page

    open_page.said = said
    yield open_page
    for context in contexts.values():
        context.close()
    assert not said
