"""Run prompts on one ComfyUI server, safely: look before posting again, stop only one's own."""

import logging
import time
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import quote

from genonaut.clients.comfyui.history import HistoryEntry, parse_history
from genonaut.clients.comfyui.listener import Listener
from genonaut.clients.comfyui.transport import (
    Answer,
    AnswerTooLargeError,
    BrokenOffError,
    Transport,
    parse_base_url,
    tls,
    websocket_url,
)
from genonaut.clients.comfyui.wording import explain_rejection
from genonaut.core.errors import (
    ArtifactMissingError,
    ArtifactTooLargeError,
    BackendUnavailableError,
    SubmissionUnclearError,
    WorkflowRejectedError,
)
from genonaut.core.workflow import OutputImage

_log = logging.getLogger(__name__)

_POLL_S = 0.1
_INTERRUPT_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Located:
    """Say where a prompt is.

    ``unknown`` means never seen, deleted, cleared, lost by a restart or dropped from the history:
    ComfyUI cannot tell which. ``position`` is set for ``pending``: 1 would run next on an idle
    server, and running prompts count as ahead. ``entry`` is set for ``finished``.
    """

    state: Literal["running", "pending", "finished", "unknown"]
    position: int | None = None
    entry: HistoryEntry | None = None


class CancelOutcome(StrEnum):
    """Say what really came of a cancel."""

    CANCELLED = "cancelled"
    """It was removed or interrupted and is not running any more."""

    FINISHED = "finished"
    """It ended by itself, well or not, before it could be stopped: read its history."""

    UNKNOWN = "unknown"
    """ComfyUI did not know it in the first place."""

    STILL_RUNNING = "still_running"
    """It was told to stop but is still there; a node without steps stops only at its end."""


@dataclass(frozen=True, slots=True)
class BackendOptions:
    """List what a server offers; ``node_classes`` is None unless asked for."""

    checkpoints: tuple[str, ...]
    loras: tuple[str, ...]
    samplers: tuple[str, ...]
    schedulers: tuple[str, ...]
    node_classes: frozenset[str] | None = None


class ComfyClient:
    """Talk to one server; make one per job attempt and close it, it is cheap.

    Every method raises BackendUnavailableError when the server is down or answers nonsense.
    A server that answers is not therefore healthy: its executor may be dead while HTTP goes on,
    so watch a prompt's progress, not :meth:`ping`.
    """

    def __init__(
        self, base_url: str, *, connect_timeout_s: float = 3, read_timeout_s: float = 20
    ) -> None:
        self._base = parse_base_url(base_url)
        self._connect_timeout_s = connect_timeout_s
        self._http = Transport(
            self._base, connect_timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; sockets of :meth:`listen` close by themselves."""
        self._http.close()

    def submit(self, graph: dict[str, Any], *, prompt_id: str, client_id: str) -> None:
        """Queue a graph under an id the caller has stored before; ComfyUI never deduplicates.

        Raises:
            WorkflowRejectedError: permanent; the message is fit for users. Nothing stays queued.
            SubmissionUnclearError: it may be queued: :meth:`locate` it before posting again.
            BackendUnavailableError: surely not queued.
        """
        body = {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id}
        try:
            answer = self._http.post("/prompt", body)
        except BrokenOffError as error:
            raise SubmissionUnclearError(str(error)) from error
        if answer.status >= 500:
            raise SubmissionUnclearError(
                f"ComfyUI answered {answer.status} to the prompt", was_answered=True
            )
        if answer.status == 413:
            raise WorkflowRejectedError("The workflow is too large for ComfyUI")
        if answer.status == 400:
            raise WorkflowRejectedError(explain_rejection(answer.json()))
        if answer.status != 200:
            raise BackendUnavailableError(f"ComfyUI answered {answer.status} to the prompt")
        self._check_accepted(answer, prompt_id)

    def locate(self, prompt_id: str) -> Located:
        """Find a prompt: in the queue first, then in the history.

        In the other order a prompt that just ends is in neither, which would look like lost.
        """
        running, pending = self._queue()
        if any(entry_id == prompt_id for _, entry_id in running):
            return Located("running")
        ahead = len(running)
        for place, (_, entry_id) in enumerate(sorted(pending), start=1):
            if entry_id == prompt_id:
                return Located("pending", position=ahead + place)
        entry = self.history(prompt_id)
        return Located("unknown") if entry is None else Located("finished", entry=entry)

    def history(self, prompt_id: str) -> HistoryEntry | None:
        """Read how a prompt ended; None while it waits or runs, and when it is not known."""
        body = self._http.get_json(f"/history/{quote(prompt_id, safe='')}")
        return parse_history(prompt_id, body)

    def cancel(self, prompt_id: str, *, wait_s: float = 5.0) -> CancelOutcome:
        """Remove or interrupt a prompt, and every duplicate of it, and see what came of it.

        Only ever names this prompt: an interrupt without an id would stop other people's. The
        interrupt is repeated every second, since ComfyUI forgets one that comes while a prompt
        starts. Safe to call twice.
        """
        deadline = time.monotonic() + wait_s
        interrupt_at = 0.0
        acted = False
        while True:
            located = self.locate(prompt_id)
            if located.entry is not None:
                stopped = located.entry.outcome == "interrupted"
                return CancelOutcome.CANCELLED if stopped else CancelOutcome.FINISHED
            if located.state == "unknown":
                return CancelOutcome.CANCELLED if acted else CancelOutcome.UNKNOWN
            if acted and time.monotonic() > deadline:
                return CancelOutcome.STILL_RUNNING
            if located.state == "pending":
                self._tell("/queue", {"delete": [prompt_id]})
            elif time.monotonic() >= interrupt_at:
                self._tell("/interrupt", {"prompt_id": prompt_id})
                interrupt_at = time.monotonic() + _INTERRUPT_AGAIN_S
            if acted:
                time.sleep(_POLL_S)
            acted = True

    def download(self, image: OutputImage, *, max_bytes: int) -> bytes:
        """Fetch a picture's file; do it at once, ComfyUI uses names again.

        Raises:
            ArtifactMissingError: listed but not there, as after a run answered from the cache.
            ArtifactTooLargeError: longer than ``max_bytes``.
        """
        params = {"filename": image.filename, "subfolder": image.subfolder, "type": image.type}
        try:
            answer = self._http.get("/view", params=params, max_bytes=max_bytes)
        except AnswerTooLargeError as error:
            raise ArtifactTooLargeError(f"the picture is larger than {max_bytes} bytes") from error
        if answer.status in {400, 404}:
            raise ArtifactMissingError(f"ComfyUI no longer has {image.filename[:200]!r}")
        if answer.status != 200:
            raise BackendUnavailableError(f"ComfyUI answered {answer.status} to GET /view")
        return answer.body

    def options(self, *, with_node_classes: bool = False) -> BackendOptions:
        """Ask what may be chosen; a list is empty when the server has no such node."""
        sampler = self._inputs("KSampler")
        return BackendOptions(
            checkpoints=_choices(self._inputs("CheckpointLoaderSimple").get("ckpt_name")),
            loras=_choices(self._inputs("LoraLoader").get("lora_name")),
            samplers=_choices(sampler.get("sampler_name")),
            schedulers=_choices(sampler.get("scheduler")),
            node_classes=self._all_node_classes() if with_node_classes else None,
        )

    def queue_remaining(self) -> int:
        """Count prompts running and waiting, of all clients."""
        remaining = _inside(self._http.get_json("/prompt"), "exec_info", "queue_remaining")
        if not isinstance(remaining, int):
            raise BackendUnavailableError("ComfyUI does not say how long its queue is")
        return remaining

    def ping(self) -> None:
        """Check that a ComfyUI answers.

        Raises: BackendUnavailableError: none does.
        """
        self.queue_remaining()

    def listen(self, client_id: str) -> Listener:
        """Prepare to hear the messages for ``client_id``; enter it before :meth:`submit`."""
        return Listener(
            websocket_url(self._base, client_id),
            tls=tls() if self._base.scheme == "https" else None,
            connect_timeout_s=self._connect_timeout_s,
        )

    def _check_accepted(self, answer: Answer, prompt_id: str) -> None:
        try:
            body = answer.json()
        except BackendUnavailableError as error:
            raise SubmissionUnclearError(str(error)) from error
        if not isinstance(body, dict) or not isinstance(body.get("prompt_id"), str):
            raise SubmissionUnclearError("ComfyUI took the prompt but answered strangely")
        if body["prompt_id"] != prompt_id:
            self._drop(body["prompt_id"])
            raise BackendUnavailableError("ComfyUI is too old: it does not use our prompt ids")
        if body.get("node_errors"):
            self._drop(prompt_id)  # the valid rest of the graph is queued already
            raise WorkflowRejectedError(explain_rejection(body))

    def _drop(self, prompt_id: str) -> None:
        try:
            self.cancel(prompt_id)
        except BackendUnavailableError:
            _log.warning("could not remove prompt %s from ComfyUI", prompt_id, exc_info=True)

    def _tell(self, path: str, body: dict[str, Any]) -> None:
        answer = self._http.post(path, body)
        if answer.status != 200:
            raise BackendUnavailableError(f"ComfyUI answered {answer.status} to POST {path}")

    def _queue(self) -> tuple[list[tuple[float, str]], list[tuple[float, str]]]:
        body = self._http.get_json("/queue")
        return _queued(body, "queue_running"), _queued(body, "queue_pending")

    def _inputs(self, node_class: str) -> dict[str, Any]:
        body = self._http.get_json(f"/object_info/{node_class}")
        required = _inside(body, node_class, "input", "required")
        return required if isinstance(required, dict) else {}

    def _all_node_classes(self) -> frozenset[str]:
        body = self._http.get_json("/object_info")
        if not isinstance(body, dict):
            raise BackendUnavailableError("ComfyUI does not list its nodes")
        return frozenset(body)


def _queued(body: object, key: str) -> list[tuple[float, str]]:
    """Read one list of ``/queue`` as (number, prompt id); the rest of an entry is its graph."""
    entries = _inside(body, key)
    if not isinstance(entries, list):
        raise BackendUnavailableError("ComfyUI answered with something that is not a queue")
    return [
        (entry[0], entry[1])
        for entry in entries
        if isinstance(entry, list)
        and len(entry) >= 2
        and isinstance(entry[0], int | float)
        and isinstance(entry[1], str)
    ]


def _choices(declared: object) -> tuple[str, ...]:
    """Read an input's choices: ``[[...], {}]``, or ``["COMBO", {"options": [...]}]`` later."""
    if not isinstance(declared, list) or not declared:
        return ()
    listed = declared[0]
    if not isinstance(listed, list) and len(declared) > 1:
        listed = _inside(declared[1], "options")
    return tuple(x for x in listed if isinstance(x, str)) if isinstance(listed, list) else ()


def _inside(value: Any, *keys: str) -> Any:
    """Follow keys through objects; None where one is missing."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
