"""The demo: three pictures before your eyes, a link that signs in, nothing left behind."""

import re
import signal

import httpx
import pytest
import redis

from genonaut.api.config import get_settings
from genonaut.cli.demo import local_settings
from tests.cli.conftest import Commands


@pytest.fixture
def site(monkeypatch):
    """The settings of a site on the network, for the whole process until the test ends."""
    values = {
        "APP_ENV": "prod",
        "API_HOST": "0.0.0.0",
        "API_PORT": "8123",
        "PUBLIC_URL": "https://pictures.example",
        "COOKIE_SECURE": "true",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield
    monkeypatch.undo()
    get_settings.cache_clear()


@pytest.mark.usefixtures("site")
def test_it_is_on_this_machine_alone_whatever_site_the_settings_are_for():
    settings = local_settings()
    assert (settings.app_env, settings.api_host) == ("demo", "127.0.0.1")
    assert settings.base_url == "http://127.0.0.1:8123"
    assert not settings.cookie_secure
    assert get_settings() is settings


@pytest.mark.slow
def test_once_draws_three_jobs_and_leaves_nothing(commands: Commands) -> None:
    told = commands("demo", "--once").stdout
    assert told.count("completed") == 3
    assert len(re.findall(r"/api/v1/content/\d+/images/\d+", told)) == 4
    assert re.search(r"^4 pictures in [\d.]+ s, the first after [\d.]+ s$", told, re.MULTILINE)
    assert commands.left_running() == []
    with redis.Redis.from_url(
        commands.variables["REDIS_URL_DEMO"], decode_responses=True
    ) as client:
        names = list(client.scan_iter())
    assert names
    assert all(name.startswith(f"{commands.variables['REDIS_NS_DEMO']}:") for name in names)


@pytest.mark.slow
def test_its_link_signs_in_until_ctrl_c(commands: Commands) -> None:
    demo = commands.start("demo", PYTHONUNBUFFERED="1")
    demo.until("Ctrl-C stops everything.", timeout_s=120)
    link = re.search(r"^Open +(\S+)$", demo.text, re.MULTILINE)
    assert link
    with httpx.Client(follow_redirects=True, trust_env=False, timeout=30) as browser:
        page = browser.get(link[1])
        assert page.status_code == 200
        assert "a lighthouse" in page.text
        assert "token=" not in str(page.url)
    assert demo.end(signal.SIGINT) == 0
    assert "Traceback" not in demo.text
    assert commands.left_running() == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting", "queued"])
def test_ctrl_c_on_the_way_leaves_nothing(commands: Commands, moment: str) -> None:
    variables = {"PYTHONUNBUFFERED": "1", "SIMULATOR_STEP_S": "1"}
    demo = commands.start("demo", **variables)
    if moment == "starting":
        demo.until("starting PostgreSQL")
    else:
        commands.until_ready(demo)
    assert demo.end(signal.SIGINT) in {0, 130}
    assert "Traceback" not in demo.text
    assert commands.left_running() == []
