"""Run the prompts, one at a time, in a thread of its own."""

import contextlib
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any

import structlog

from genonaut.local.comfy.faults import FaultBox
from genonaut.local.comfy.folders import Folders
from genonaut.local.comfy.graph import Schedule, signatures
from genonaut.local.comfy.ledger import Ledger
from genonaut.local.comfy.node import NodeResult
from genonaut.local.comfy.nodes import Registry
from genonaut.local.comfy.progress import Interrupted, Progress
from genonaut.local.comfy.sockets import Sockets
from genonaut.local.comfy.state import Item, PromptQueue

log = structlog.get_logger(__name__)

LATE_EVERY = 6
LATE_S = 0.015
"""Every sixth history entry comes this late: 7 of 40 were missing for up to 22 ms (recorded)."""

_OOM_TIP = (
    "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before "
    "you might have accidentally set the batch_size to a large number."
)


class InjectedError(Exception):
    """Fail as a test asked, under the name that it chose."""

    def __init__(self, reported_as: str, message: str) -> None:
        super().__init__(message)
        self.reported_as = reported_as


class ForgottenError(Exception):
    """Stop a prompt that the server no longer knows of."""


class Executor(threading.Thread):
    """Be ComfyUI's single executor thread.

    Whatever kills a thread kills it for good: later prompts pend for ever while HTTP answers.
    """

    def __init__(
        self,
        queue: PromptQueue,
        sockets: Sockets,
        nodes: Registry,
        folders: Folders,
        faults: FaultBox,
        ledger: Ledger,
        *,
        step_delay_s: float,
        load_delay_s: float,
    ) -> None:
        super().__init__(name="comfy-executor", daemon=True)
        self.queue = queue
        self.sockets = sockets
        self.nodes = nodes
        self.folders = folders
        self.faults = faults
        self.ledger = ledger
        self.step_delay_s = step_delay_s
        self.load_delay_s = load_delay_s
        self.interrupt = threading.Event()
        self.temp_prefix = f"ComfyUI_temp_{uuid.uuid4().hex[:5]}"
        self.cache: dict[str, NodeResult] = {}
        self.count = 0

    def run(self) -> None:
        """Take prompts for ever."""
        while True:
            taken = self.queue.get()
            if taken is not None:
                ticket, item = taken
                Execution(self, ticket, item).run()
            if self.queue.wants_memory_back():
                self.cache.clear()


class Execution:
    """Be one run of one prompt; also what its nodes see of the server."""

    def __init__(self, executor: Executor, ticket: int, item: Item) -> None:
        self.executor = executor
        self.ticket = ticket
        self.item = item
        self.epoch = executor.queue.epoch
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.ui: dict[str, Any] = {}
        self.executed: list[str] = []
        self.results: dict[str, NodeResult] = {}

    def run(self) -> None:
        """Run the graph, report, and leave the history entry."""
        executor, item = self.executor, self.item
        # ComfyUI looks this up outside any guard: extra_data null ends the thread here.
        self.client_id = item.extra_data["client_id"] if "client_id" in item.extra_data else None  # noqa: SIM401
        executor.ledger.started(item.prompt_id)
        executor.count += 1
        executor.interrupt.clear()
        executor.sockets.owner = self.client_id
        self.progress = Progress(
            executor.sockets, executor.interrupt, item.prompt_id, self.client_id, self.guard
        )
        try:
            how = self._run_graph()
            if how == "success" and executor.count % LATE_EVERY == 0:
                time.sleep(LATE_S)
            if executor.faults.now.history_delay_s:
                time.sleep(executor.faults.now.history_delay_s)
            self.guard()
        except ForgottenError:
            return
        executor.ledger.ended(item.prompt_id, how)
        executor.sockets.running_node = None
        executor.queue.done(
            self.ticket,
            {
                "outputs": self.ui,
                "status": {
                    "status_str": "success" if how == "success" else "error",
                    "completed": how == "success",
                    "messages": self.messages,
                },
                "meta": {node_id: self._meta(node_id) for node_id in self.ui},
            },
        )
        if self.client_id is not None:
            self._send("executing", {"node": None, "prompt_id": item.prompt_id})

    def guard(self) -> None:
        """Stand still while frozen; stop when the server has forgotten this run."""
        self.executor.faults.wait_while_frozen()
        if self.executor.queue.epoch != self.epoch:
            raise ForgottenError

    def _run_graph(self) -> str:
        executor, item = self.executor, self.item
        self._message("execution_start")
        marks = signatures(item.graph, executor.nodes, executor.folders)
        executor.cache = {
            mark: executor.cache[mark] for mark in marks.values() if mark in executor.cache
        }
        cached = {key for key in item.graph if marks.get(key) in executor.cache}
        self.results = {key: executor.cache[marks[key]] for key in cached}
        self._message("execution_cached", nodes=[key for key in item.graph if key in cached])
        for node_id in Schedule(item.graph, item.outputs, executor.nodes, cached):
            class_type = item.graph[node_id]["class_type"]
            try:
                if node_id not in cached:
                    self.results[node_id] = self._run_node(node_id, class_type)
                    executor.cache[marks[node_id]] = self.results[node_id]
                    self.executed.append(node_id)
            except ForgottenError:
                raise
            except Interrupted:
                self._message(
                    "execution_interrupted",
                    node_id=node_id,
                    node_type=class_type,
                    executed=self.executed,
                )
                return "interrupted"
            except Exception as error:  # noqa: BLE001 - reported to the client, as ComfyUI does
                self._message("execution_error", **self._describe(error, node_id, class_type))
                return "error"
            self._show(node_id)
            self.progress.finish(node_id)
        self._message("execution_success")
        return "success"

    def _run_node(self, node_id: str, class_type: str) -> NodeResult:
        self.executor.sockets.running_node = node_id
        self.progress.start(node_id)
        if self.client_id is not None:
            self._send(
                "executing",
                {"node": node_id, "display_node": node_id, "prompt_id": self.item.prompt_id},
            )
        self.progress.stop_if_interrupted()
        injected = self.executor.faults.node_error(class_type)
        if injected:
            raise InjectedError(injected.type, injected.message)
        if class_type.startswith("KSampler"):
            self.executor.ledger.sampled(self.item.prompt_id)
        kind = self.executor.nodes[class_type]
        names = {*kind.required(self.folders), *kind.optional}
        inputs = {name: value for name, value in self._inputs(node_id).items() if name in names}
        return kind.run(self, **inputs)

    def _inputs(self, node_id: str) -> dict[str, Any]:
        return {
            name: self.results[value[0]].values[value[1]] if isinstance(value, list) else value
            for name, value in self.item.graph[node_id]["inputs"].items()
        }

    def _show(self, node_id: str) -> None:
        ui = self.results[node_id].ui
        if ui is not None:
            self.ui[node_id] = ui
            if self.client_id is not None:
                self._send(
                    "executed",
                    {
                        "node": node_id,
                        "display_node": node_id,
                        "output": ui,
                        "prompt_id": self.item.prompt_id,
                    },
                )

    def _describe(self, error: Exception, node_id: str, class_type: str) -> dict[str, Any]:
        name = getattr(error, "reported_as", None) or type(error).__qualname__
        if not hasattr(error, "reported_as") and type(error).__module__ != "builtins":
            name = f"{type(error).__module__}.{name}"
        inputs: dict[str, list[Any]] = {}
        with contextlib.suppress(KeyError, IndexError):
            inputs = {key: [str(value)] for key, value in self._inputs(node_id).items()}
        tip = _OOM_TIP if name == "torch.OutOfMemoryError" else ""
        return {
            "node_id": node_id,
            "node_type": class_type,
            "executed": self.executed,
            "exception_message": f"{error}\n{tip}",
            "exception_type": name,
            "traceback": traceback.format_tb(error.__traceback__),
            "current_inputs": inputs,
            "current_outputs": list(self.results),
        }

    def _message(self, event: str, **data: Any) -> None:
        data = {
            "prompt_id": self.item.prompt_id,
            **data,
            "timestamp": int(time.time() * 1000),
        }
        self.messages.append((event, data))
        if self.client_id is not None:
            self._send(event, data)

    def _send(self, event: str, data: dict[str, Any]) -> None:
        self.executor.sockets.send(event, data, self.client_id)

    @staticmethod
    def _meta(node_id: str) -> dict[str, Any]:
        return {
            "node_id": node_id,
            "display_node": node_id,
            "parent_node": None,
            "real_node_id": node_id,
        }

    # What nodes may ask for: see node.NodeContext.

    @property
    def folders(self) -> Folders:
        """Give the server's folders."""
        return self.executor.folders

    @property
    def graph(self) -> dict[str, Any]:
        """Give the whole graph, for the metadata of pictures."""
        graph: dict[str, Any] = self.item.graph
        return graph

    @property
    def extra_data(self) -> dict[str, Any]:
        """Give what came along with the prompt."""
        extra_data: dict[str, Any] = self.item.extra_data
        return extra_data

    @property
    def step_delay_s(self) -> float:
        """Give the time that a sampling step takes."""
        injected = self.executor.faults.now.step_delay_s
        return self.executor.step_delay_s if injected is None else injected

    @property
    def load_delay_s(self) -> float:
        """Give the time that loading a checkpoint takes."""
        return self.executor.load_delay_s

    @property
    def temp_prefix(self) -> str:
        """Give the prefix of temporary pictures, which changes with every start."""
        return self.executor.temp_prefix

    def step(self, value: int, of: int, preview: Callable[[], Any] | None = None) -> None:
        """Report a step; stop here when interrupted."""
        self.progress.step(value, of, preview)

    def flood(self, frame: bytes) -> None:
        """Send a raw binary frame to the owner."""
        self.executor.sockets.send_bytes(frame, self.client_id)
