"""The demo: three pictures before your eyes, a link that signs in, nothing left behind."""

import re
import signal

import httpx
import pytest
import redis

from tests.cli.conftest import Commands


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
