"""Describe a node class, as ``/object_info`` shows it and as the executor runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from genonaut.local.comfy.folders import Folders

InputSpec = list[Any]
"""``[type, options]``, where ``type`` is a name or the list of allowed values."""

Inputs = Mapping[str, InputSpec]


class Preview(Protocol):
    """Make the picture of a step when somebody wants to see it."""

    def __call__(self) -> Any:
        """Give a PIL picture."""
        ...


class NodeContext(Protocol):
    """Be what a running node may ask of the server."""

    folders: Folders
    graph: Mapping[str, Any]
    extra_data: Mapping[str, Any]
    step_delay_s: float
    load_delay_s: float
    temp_prefix: str

    def step(self, value: int, of: int, preview: Preview | None = None) -> None:
        """Report a step done; the place where an interrupt takes effect."""

    def flood(self, frame: bytes) -> None:
        """Send a binary frame to the owner of the prompt."""


@dataclass(frozen=True)
class NodeResult:
    """Hold what a node gives: values for its output slots, and what its user sees."""

    values: tuple[Any, ...] = ()
    ui: dict[str, list[Any]] | None = None


Run = Callable[..., NodeResult]


def same_every_time(folders: Folders, inputs: Mapping[str, Any]) -> str:
    """Say that only the inputs decide the result."""
    return ""


def nothing_more(folders: Folders, inputs: Mapping[str, Any]) -> str | None:
    """Add no check to the standard ones."""
    return None


@dataclass(frozen=True)
class NodeClass:
    """Be one node class; ``run`` gets the context and the inputs by name."""

    name: str
    display_name: str
    category: str
    required: Callable[[Folders], Inputs]
    outputs: tuple[str, ...]
    run: Run
    optional: Inputs = field(default_factory=dict)
    output_node: bool = False
    hidden: Mapping[str, str] = field(default_factory=dict)
    changed: Callable[[Folders, Mapping[str, Any]], str] = same_every_time
    check: Callable[[Folders, Mapping[str, Any]], str | None] = nothing_more
    checks: frozenset[str] = frozenset()
    """Inputs that ``check`` looks at, which the standard range and list checks then skip."""
    description: str = ""
    python_module: str = "nodes"

    def object_info(self, folders: Folders) -> dict[str, Any]:
        """Give the entry of ``/object_info``."""
        groups: dict[str, Any] = {"required": dict(self.required(folders))}
        if self.optional:
            groups["optional"] = dict(self.optional)
        if self.hidden:
            groups["hidden"] = dict(self.hidden)
        return {
            "input": groups,
            "input_order": {group: list(names) for group, names in groups.items()},
            "output": list(self.outputs),
            "output_is_list": [False for _ in self.outputs],
            "output_name": list(self.outputs),
            "name": self.name,
            "display_name": self.display_name,
            "description": self.description,
            "python_module": self.python_module,
            "category": self.category,
            "output_node": self.output_node,
        }
