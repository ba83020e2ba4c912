"""Keep the queue, what runs, and the history; all in memory, as ComfyUI does."""

import copy
import heapq
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

from genonaut.local.comfy.ledger import Ledger

HISTORY_MAX = 10_000

Entry = dict[str, Any]


class Item(NamedTuple):
    """Be a queued prompt, compared and shown as ComfyUI's tuple.

    Two items of one number and one id make the heap compare graphs, which fails: recorded as the
    500 that has queued the prompt all the same.
    """

    number: float
    prompt_id: str
    graph: Any
    extra_data: Any
    outputs: list[str]


class PromptQueue:
    """Give prompts to the one executor thread, and answer for them."""

    def __init__(self, changed: Callable[[], None], ledger: Ledger) -> None:
        self._changed = changed
        self._ledger = ledger
        self._lock = threading.RLock()
        self._ready = threading.Condition(self._lock)
        self._pending: list[Item] = []
        self._running: dict[int, Item] = {}
        self._tickets = 0
        self._next_number = 0
        self._history: dict[str, Entry] = {}
        self._free: dict[str, bool] = {}
        self.epoch = 0
        """Counts the times that everything was forgotten."""

    def take_number(self) -> int:
        """Give the next automatic number."""
        with self._lock:
            number = self._next_number
            self._next_number += 1
            return number

    def put(self, item: Item) -> None:
        """Queue a prompt; no check for duplicates."""
        with self._ready:
            self._ledger.received(item.prompt_id, item.extra_data, item.number)
            heapq.heappush(self._pending, item)
            self._changed()
            self._ready.notify()

    def get(self) -> tuple[int, Item] | None:
        """Wait for a prompt and mark it running; None when only ``free`` woke the executor."""
        with self._ready:
            while not self._pending and not self._free:
                self._ready.wait()
            if not self._pending:
                return None
            item = heapq.heappop(self._pending)
            ticket = self._tickets
            self._tickets += 1
            self._running[ticket] = item
            self._changed()
            return ticket, item

    def done(self, ticket: int, entry: Entry) -> None:
        """Move a prompt from running to history in one step."""
        with self._lock:
            item = self._running.pop(ticket, None)
            if item is None:
                return  # forgotten meanwhile
            if len(self._history) >= HISTORY_MAX:
                self._history.pop(next(iter(self._history)))
            self._history[item.prompt_id] = {"prompt": list(item), **entry}
            self._changed()

    def remaining(self) -> int:
        """Count running and pending prompts."""
        with self._lock:
            return len(self._pending) + len(self._running)

    def view(self) -> tuple[list[Item], list[Item]]:
        """Give what runs, and what pends in heap order."""
        with self._lock:
            return list(self._running.values()), list(self._pending)

    def is_running(self, prompt_id: str) -> bool:
        """Say whether the prompt runs at this moment."""
        with self._lock:
            return any(item.prompt_id == prompt_id for item in self._running.values())

    def delete(self, prompt_id: Any) -> None:
        """Drop the first pending prompt of this id, if there is one."""
        with self._lock:
            for index, item in enumerate(self._pending):
                if item.prompt_id == prompt_id:
                    del self._pending[index]
                    self._ledger.ended(item.prompt_id, "deleted")
                    heapq.heapify(self._pending)
                    self._changed()
                    return

    def clear(self) -> None:
        """Drop every pending prompt."""
        with self._lock:
            for item in self._pending:
                self._ledger.ended(item.prompt_id, "deleted")
            self._pending.clear()
            self._changed()

    def history(self, prompt_id: str) -> dict[str, Entry]:
        """Give the entry of one prompt, or nothing."""
        with self._lock:
            entry = self._history.get(prompt_id)
            return {prompt_id: copy.deepcopy(entry)} if entry else {}

    def history_page(self, max_items: int | None, offset: int) -> dict[str, Entry]:
        """Give entries in the order of finishing; an offset below 0 means the newest."""
        with self._lock:
            if offset < 0 and max_items is not None:
                offset = len(self._history) - max_items
            keys = list(self._history)[max(offset, 0) :]
            return {key: copy.deepcopy(self._history[key]) for key in keys[:max_items]}

    def forget_history(self, prompt_ids: Any | None = None) -> None:
        """Drop these entries, or all."""
        with self._lock:
            for prompt_id in list(self._history) if prompt_ids is None else prompt_ids:
                self._history.pop(prompt_id, None)

    def free(self, *, unload_models: bool, free_memory: bool) -> None:
        """Ask the executor to drop its caches after the current prompt."""
        with self._ready:
            if unload_models:
                self._free["unload_models"] = True
            if free_memory:
                self._free["free_memory"] = True
            self._ready.notify()

    def wants_memory_back(self) -> bool:
        """Say whether the result cache must go, and take note that it did."""
        with self._lock:
            asked = "free_memory" in self._free
            self._free.clear()
            return asked

    def forget_everything(self) -> None:
        """Lose queue, running prompt and history, as a restart does; numbers start at 0."""
        with self._lock:
            for item in [*self._running.values(), *self._pending]:
                self._ledger.ended(item.prompt_id, "forgotten")
            self._pending.clear()
            self._running.clear()
            self._history.clear()
            self._next_number = 0
            self.epoch += 1
