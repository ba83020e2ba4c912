"""Choose among ComfyUI servers."""

import random
from dataclasses import dataclass

from genonaut.api.config import Settings
from genonaut.clients.comfyui import ComfyClient
from genonaut.core.errors import BackendUnavailableError, GenonautError

PROBE_TIMEOUT_S = 3.0


def client_for(settings: Settings, url: str, *, read_timeout_s: float | None = None) -> ComfyClient:
    """Make a client for one server with the configured time limits."""
    return ComfyClient(
        url,
        connect_timeout_s=settings.comfyui_connect_timeout_s,
        read_timeout_s=read_timeout_s or settings.comfyui_read_timeout_s,
    )


def answers(settings: Settings, url: str) -> bool:
    """Whether one server answers now."""
    try:
        with client_for(settings, url, read_timeout_s=PROBE_TIMEOUT_S) as client:
            client.ping()
    except BackendUnavailableError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class _Load:
    url: str
    remaining: int


def least_busy(settings: Settings) -> str:
    """Give the URL of the healthy server with the fewest prompts; ties fall by chance.

    Raises: BackendUnavailableError: none answers; the message says why for each.
    """
    if not settings.comfyui_urls:
        raise BackendUnavailableError("COMFYUI_URL is not set")
    loads, reasons = [], []
    for url in settings.comfyui_urls:
        try:
            with client_for(settings, url, read_timeout_s=PROBE_TIMEOUT_S) as client:
                loads.append(_Load(url, client.queue_remaining()))
        except GenonautError as error:
            reasons.append(str(error))
    if not loads:
        raise BackendUnavailableError("; ".join(dict.fromkeys(reasons)))
    fewest = min(load.remaining for load in loads)
    return random.choice([x.url for x in loads if x.remaining == fewest])  # noqa: S311
