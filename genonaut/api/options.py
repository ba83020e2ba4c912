"""Know what the ComfyUI servers offer, without making a request wait for them."""

import threading
import time
from collections.abc import Sequence

import structlog

from genonaut.api.config import Settings
from genonaut.clients.comfyui import BackendOptions, ComfyClient, without_login
from genonaut.core.errors import GenonautError

log = structlog.get_logger(__name__)

_AFTER_FAILURE_S = 5.0


class OptionsCache:
    """Keep the choices that every reachable server offers, since any of them may get a job.

    They are asked for in a thread, when someone wants to know and what is known is older than
    ``comfyui_options_ttl_s``.
    """

    def __init__(self, settings: Settings) -> None:
        self._urls = settings.comfyui_urls
        self._ttl_s = settings.comfyui_options_ttl_s
        self._connect_timeout_s = settings.comfyui_connect_timeout_s
        self._changed = threading.Condition()
        self._options: BackendOptions | None = None
        self._next_at = 0.0
        self._asking = False

    def get(self, *, wait_s: float = 1.0) -> BackendOptions | None:
        """Give the options; None when no server has answered in time, and nothing is known.

        While a known answer is being renewed it is given at once.
        """
        with self._changed:
            if time.monotonic() >= self._next_at and not self._asking and self._urls:
                self._asking = True
                threading.Thread(target=self._ask, name="options", daemon=True).start()
            if self._asking and self._options is None:
                self._changed.wait_for(lambda: not self._asking, timeout=wait_s)
            return self._options

    def _ask(self) -> None:
        offers = []
        for url in self._urls:
            try:
                with ComfyClient(
                    url, connect_timeout_s=self._connect_timeout_s, read_timeout_s=5
                ) as client:
                    offers.append(client.options())
            except GenonautError as error:
                log.info("options_unknown", backend=without_login(url), error=str(error))
            except Exception:
                log.exception("options_failed", backend=without_login(url))
        with self._changed:
            self._options = _common(offers) if offers else None
            self._next_at = time.monotonic() + (self._ttl_s if offers else _AFTER_FAILURE_S)
            self._asking = False
            self._changed.notify_all()


def _common(offers: Sequence[BackendOptions]) -> BackendOptions:
    """Keep what all offer, in the order of the first."""

    def shared(name: str) -> tuple[str, ...]:
        first, *others = (getattr(offer, name) for offer in offers)
        return tuple(choice for choice in first if all(choice in other for other in others))

    return BackendOptions(
        checkpoints=shared("checkpoints"),
        loras=shared("loras"),
        samplers=shared("samplers"),
        schedulers=shared("schedulers"),
    )
