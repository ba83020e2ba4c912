"""Wait for the end of one prompt at ComfyUI, showing its progress.

The socket is a hint: it may be deaf, and says nothing twice. So queue and history are polled
beside it, and what they say counts.
"""

import time
from collections.abc import Callable
from typing import Any

from genonaut.clients.comfyui import (
    Cached,
    ComfyClient,
    Executing,
    Failed,
    HistoryEntry,
    Interrupted,
    Listener,
    Located,
    Started,
    Step,
)
from genonaut.core.errors import BackendUnavailableError
from genonaut.core.workflow import ProgressMeter
from genonaut.worker.outcomes import PromptLostError
from genonaut.worker.progress import Reporter
from genonaut.worker.vigil import Vigil

HEAR_S = 0.25
BACKEND_PATIENCE_S = 10.0
"""A ComfyUI that is silent for this long while we watch counts as down."""
DEAF_AFTER_S = 3.0
"""The queue moved, which all are told, and the socket has not said a word for this long."""
SILENT_S = 60.0
"""Nothing at all while it draws; no less, since one step may take half a minute on a CPU."""
LOST_CONFIRM_S = 0.5


def locate_surely(client: ComfyClient, prompt_id: str) -> Located:
    """Locate a prompt; look twice before calling it unknown.

    Raises: BackendUnavailableError: the server does not answer.
    """
    located = client.locate(prompt_id)
    if located.state == "unknown":
        time.sleep(LOST_CONFIRM_S)
        located = client.locate(prompt_id)
    return located


class PromptWatch:
    """Follow one prompt to its end."""

    def __init__(
        self,
        client: ComfyClient,
        prompt_id: str,
        graph: dict[str, Any],
        *,
        vigil: Vigil,
        show: Reporter,
        on_start: Callable[[], None],
        poll_s: float,
    ) -> None:
        self._client = client
        self._prompt_id = prompt_id
        self._meter = ProgressMeter(graph)
        self._vigil = vigil
        self._show = show
        self._on_start = on_start
        self._poll_s = poll_s
        self._silent_since: float | None = None
        self._reading: tuple[int, int] | None = None
        self._heard_at = 0.0
        self._asked_at = time.monotonic()
        self._place: tuple[str, int | None] | None = None
        self._moved: tuple[float, float] | None = None

    def wait(self, listener: Listener | None) -> HistoryEntry:
        """Wait until the history has the prompt.

        Raises:
            PromptLostError: ComfyUI does not know it any more.
            BackendUnavailableError: the server has not answered for a while.
            TimedOutError, or what else the vigil raises.
        """
        look_at = 0.0
        while True:
            self._vigil.check()
            ended = self._hear(listener)
            if not ended and not self._vigil.take_webhook() and time.monotonic() < look_at:
                continue
            asked_at = time.monotonic()
            located = self._look()
            look_at = time.monotonic() + self._poll_s
            if located is not None and listener is not None:
                self._mind_socket(listener, located, asked_at)
            if located is None:
                self._vigil.check_execution_time()
            elif located.entry is not None:
                return located.entry
            elif located.state == "unknown":
                raise PromptLostError("ComfyUI lost the prompt, probably in a restart")
            elif located.state == "pending":
                self._show.phase("queued_at_backend", position=located.position)
            else:
                self._vigil.check_execution_time()
                self._on_start()
                self._show_drawing()

    def _look(self) -> Located | None:
        """Ask queue and history; None while the server is silent, for some seconds."""
        try:
            located = locate_surely(self._client, self._prompt_id)
        except BackendUnavailableError as error:
            self._silent_since = self._silent_since or time.monotonic()
            if time.monotonic() - self._silent_since > BACKEND_PATIENCE_S:
                raise
            self._show.phase("waiting_for_backend", reason=str(error)[:300])
            return None
        self._silent_since = None
        return located

    def _hear(self, listener: Listener | None) -> bool:
        """Take the socket's news for a moment; whether it says that the prompt ended."""
        if listener is None:
            time.sleep(HEAR_S)
            return False
        ended = False
        for event in listener.poll(HEAR_S):
            if getattr(event, "prompt_id", None) != self._prompt_id:
                continue
            self._heard_at = time.monotonic()
            match event:
                case Started():
                    self._on_start()
                    self._reading = self._meter.executing(None)
                case Cached(nodes=nodes):
                    self._reading = self._meter.cached(nodes)
                case Executing(node=None) | Failed() | Interrupted():
                    ended = True
                case Executing(node=node):
                    self._reading = self._meter.executing(node)
                case Step(node=node, value=value, max=maximum):
                    self._reading = self._meter.step(node, value, maximum)
                case _:
                    continue
            self._show_drawing()
        self._show.frame(listener, self._prompt_id)
        return ended

    def _show_drawing(self) -> None:
        """Say how far it is by what was heard last, or at least that it draws."""
        if self._reading is None:
            self._show.phase("drawing")
        else:
            self._show.steps(self._reading)

    def _mind_socket(self, listener: Listener, located: Located, asked_at: float) -> None:
        """Open a deaf socket anew: what said nothing of a move of the queue, or nothing for long.

        A quiet one may be sound, and what is said between two sockets is lost.
        """
        now = time.monotonic()
        place = (located.state, located.position)
        has_moved = place != self._place and (self._place is not None or located.state == "running")
        heard_at = max(listener.heard_at, self._heard_at)
        if self._moved is not None and heard_at >= self._moved[0]:
            self._moved = None
        if has_moved and self._moved is None and heard_at < self._asked_at:
            self._moved = (self._asked_at, now)  # the first of which nothing was heard
        self._place, self._asked_at = place, asked_at
        is_deaf = self._moved is not None and now - self._moved[1] > DEAF_AFTER_S
        is_silent = located.state == "running" and now - heard_at > SILENT_S
        if listener.connected and (is_deaf or is_silent):
            self._moved = None
            listener.reconnect()
