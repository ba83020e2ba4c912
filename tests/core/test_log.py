"""Every line, ours and the libraries', has one form."""

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from genonaut.core.log import configure_logging
configure_logging({level!r}, as_json={as_json})
structlog.get_logger("ours").info("claimed", job_id=7)
logging.getLogger("theirs").warning("hello %s", "there")
logging.getLogger("httpx").info("chatter")
try:
    1 / 0
except ZeroDivisionError:
    structlog.get_logger("ours").exception("broken")
"""


def lines(level: str, *, as_json: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(level=level, as_json=as_json)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_json_lines_carry_level_time_and_the_error():
    ours, theirs, broken = (json.loads(line) for line in lines("INFO", as_json=True))
    assert (ours["event"], ours["job_id"], ours["level"]) == ("claimed", 7, "info")
    assert (theirs["event"], theirs["level"]) == ("hello there", "warning")
    assert ours["timestamp"].endswith("Z")
    assert "ZeroDivisionError" in broken["exception"]


def test_the_level_hides_what_is_below():
    text = "\n".join(lines("WARNING", as_json=False))
    assert "claimed" not in text
    assert "hello there" in text
    assert "ZeroDivisionError" in text
