"""Servers for the session, an environment for each test, and the logs of one that failed."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.rig import MEASURED, TEMPLATE, Rig, Servers
from tests.reliability.simulator import Comfy
from tests.support.database import migrate, sqlalchemy_url
from tests.support.servers import running_postgres, running_valkey

_PASSED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("reliability")
    with running_postgres() as postgres, running_valkey() as valkey:
        migrate(sqlalchemy_url(postgres.url(TEMPLATE)))
        comfy = Comfy(folder)
        try:
            comfy.start()
            yield Servers(postgres, valkey, comfy)
        finally:
            comfy.close()


@pytest.fixture
def rig(servers: Servers, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """An environment of the test's own; at the end its books are checked, and nothing stays."""
    servers.comfy.reset()
    with ExitStack() as stack:
        made = Rig(servers, tmp_path, stack)
        yield made
        made.restore()
        if request.node.stash.get(_PASSED, False):
            made.stop()
            made.check_books()
            made.check_keys()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    rig = getattr(item, "funcargs", {}).get("rig")
    if report.failed and isinstance(rig, Rig):
        for program in rig.programs:
            report.sections.append((f"log of {program.name} ({program.pid})", program.tail()))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    told = getattr(session.config, "workeroutput", None)  # of one of several processes
    if told is not None:
        told["measured"] = MEASURED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    MEASURED.extend(getattr(node, "workeroutput", {}).get("measured", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED:
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.write_line(line)
