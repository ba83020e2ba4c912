"""Hold the faults that a test injects, at the start or while the server runs."""

import threading
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

Http = Literal["500", "503", "hang", "garbage", "reset"]
"""Answer with that status; never answer; 200 with a broken body; reset the connection."""

AfterAccept = Literal["reset_after_accept", "hang_after_accept", "500_after_accept"]
"""The same, once the prompt is in the queue."""


class NodeError(BaseModel):
    """Describe an exception to raise inside a node."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str = Field(default="RuntimeError", description="As reported in exception_type.")
    message: str = Field(default="injected failure", description="The exception's text.")
    class_type: str = Field(default="KSampler", description="The node class that raises.")


class Faults(BaseModel):
    """Say what goes wrong; whatever is not named works.

    ``POST /simulator/faults`` replaces the whole set, so ``{}`` ends all faults.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int | None = Field(
        default=None,
        ge=1,
        description="prompt_post, queue, history, view, node_error, oom and huge_error happen so "
        "many times together, then no more; without it until the faults are replaced.",
    )
    prompt_post: Http | AfterAccept | None = Field(
        default=None, description="What happens to POST /prompt."
    )
    queue: Http | None = Field(default=None, description="What happens to GET /queue.")
    history: Http | None = Field(default=None, description="What happens to GET /history….")
    all_http: Http | None = Field(
        default=None, description="What happens to every request, except /simulator/…."
    )
    view: Literal["404", "500", "hang", "truncated", "corrupt", "empty"] | None = Field(
        default=None, description="What happens to GET /view."
    )
    ws: Literal["deaf", "refuse", "garbage"] | None = Field(
        default=None,
        description="Sockets open but get nothing; are refused; get nonsense for messages.",
    )
    drop_sockets: bool = Field(
        default=False, description="Reset every open socket, once, when this is set."
    )
    node_error: NodeError | None = Field(default=None, description="A node raises this.")
    oom: bool = Field(default=False, description="Samplers run out of memory.")
    huge_error: bool = Field(default=False, description="Samplers fail with a 200 kB text.")
    history_delay_s: float = Field(
        default=0.0,
        ge=0,
        description="From execution_success to the history entry; running until then.",
    )
    step_delay_s: float | None = Field(
        default=None, ge=0, description="Seconds per sampling step, in place of --step-delay."
    )
    freeze: bool = Field(default=False, description="The executor stands still; HTTP goes on.")
    forget: bool = Field(
        default=False,
        description="Drop queue, running prompt, history, cache, temp files and sockets, once, "
        "as a restart would.",
    )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the JSON of the command line."""
        return cls.model_validate_json(text)


class FaultBox:
    """Share the present faults between HTTP, sockets and executor."""

    def __init__(self, faults: Faults) -> None:
        self._lock = threading.Lock()
        self._thawed = threading.Event()
        self.replace(faults)

    def replace(self, faults: Faults) -> None:
        """Put these in place of all former ones."""
        with self._lock:
            self.now = faults
            self._left = faults.count
        if faults.freeze:
            self._thawed.clear()
        else:
            self._thawed.set()

    def strikes(self, name: str) -> str | None:
        """Say whether and how the counted fault ``name`` happens now, and count it."""
        with self._lock:
            value = getattr(self.now, name)
            if not value or self._left == 0:
                return None
            if self._left is not None:
                self._left -= 1
            return str(value)

    def node_error(self, class_type: str) -> NodeError | None:
        """Give the exception that a node of this class must raise now, and count it."""
        now = self.now
        if now.node_error and now.node_error.class_type == class_type:
            return now.node_error if self.strikes("node_error") else None
        if not class_type.startswith("KSampler"):
            return None
        if now.oom and self.strikes("oom"):
            text = "CUDA out of memory. Tried to allocate 20.00 GiB (injected)"
            return NodeError(type="torch.OutOfMemoryError", message=text)
        if now.huge_error and self.strikes("huge_error"):
            return NodeError(type="ValueError", message="x" * 200_000)
        return None

    def wait_while_frozen(self) -> None:
        """Block the executor for as long as it is frozen."""
        self._thawed.wait()
