"""What the ComfyUI servers offer is asked for, and who does not answer is told."""

import pytest
import structlog
from structlog.testing import capture_logs

from genonaut.api import options
from genonaut.api.options import OptionsCache
from genonaut.clients.comfyui import ComfyClient
from tests.support.simulator import free_port


@pytest.mark.parametrize("is_bug", [False, True])
def test_the_login_of_a_server_that_gives_no_options_is_not_logged(
    make_settings, monkeypatch, is_bug
):
    def broken(_):
        raise ZeroDivisionError

    if is_bug:
        monkeypatch.setattr(ComfyClient, "options", broken)
    monkeypatch.setattr(options, "log", structlog.get_logger())  # one that nobody has bound yet
    port = free_port()
    settings = make_settings(comfyui_url=f"http://secret:word@127.0.0.1:{port}")
    with capture_logs() as lines:
        assert OptionsCache(settings).get(wait_s=10) is None
    [line] = lines
    assert line["event"] == ("options_failed" if is_bug else "options_unknown")
    assert line["backend"] == f"http://127.0.0.1:{port}"
    assert "secret" not in str(line)
