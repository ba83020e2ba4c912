"""Order the nodes of a graph as ComfyUI runs them, and tell equal nodes by a signature."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from typing import Any

from genonaut.local.comfy.folders import Folders
from genonaut.local.comfy.nodes import Registry


def links(node: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Give (source id, slot) of every linked input, in the order of the inputs."""
    for value in node["inputs"].values():
        if isinstance(value, list):
            yield value[0], value[1]


def signatures(graph: Mapping[str, Any], nodes: Registry, folders: Folders) -> dict[str, str]:
    """Give one signature per node, from its class, its values and all that leads to it.

    Nodes that are broken, or hang on broken ones, have none.
    """
    found: dict[str, str | None] = {}

    def signature(node_id: str) -> str | None:
        if node_id not in found:
            found[node_id] = None  # stays so in a cycle
            found[node_id] = compute(node_id)
        return found[node_id]

    def compute(node_id: str) -> str | None:
        node = graph.get(node_id)
        if not isinstance(node, dict) or not isinstance(node.get("inputs"), dict):
            return None
        parts: list[Any] = [node["class_type"]]
        for name, value in sorted(node["inputs"].items()):
            if isinstance(value, list):
                source = signature(value[0]) if value else None
                if source is None:
                    return None
                parts.append((name, source, value[1]))
            else:
                parts.append((name, repr(value)))
        parts.append(nodes[node["class_type"]].changed(folders, node["inputs"]))
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    return {node_id: made for node_id in graph if (made := signature(node_id)) is not None}


class Schedule:
    """Give the nodes to run one by one: what is ready, outputs and what leads to them first."""

    def __init__(
        self, graph: Mapping[str, Any], outputs: list[str], nodes: Registry, cached: Set[str]
    ) -> None:
        self._graph = graph
        self._waiting: dict[str, set[str]] = {}
        self._is_output = {
            node_id for node_id, node in graph.items() if nodes[node["class_type"]].output_node
        }
        for output in outputs:
            self._add(output, cached)

    def _add(self, output: str, cached: Set[str]) -> None:
        stack = [output]
        while stack:
            node_id = stack.pop()
            if node_id in self._waiting:
                continue
            needed = set()
            if node_id not in cached:
                for source, _ in links(self._graph[node_id]):
                    if source not in cached:
                        needed.add(source)
                        stack.append(source)
            self._waiting[node_id] = needed

    def __iter__(self) -> Iterator[str]:
        while self._waiting:
            node_id = self._pick([key for key, needed in self._waiting.items() if not needed])
            yield node_id
            del self._waiting[node_id]
            for needed in self._waiting.values():
                needed.discard(node_id)

    def _pick(self, ready: list[str]) -> str:
        for distance in range(3):
            for node_id in ready:
                if self._leads_to_output(node_id, distance):
                    return node_id
        return ready[0]

    def _leads_to_output(self, node_id: str, distance: int) -> bool:
        if distance == 0:
            return node_id in self._is_output
        return any(
            self._leads_to_output(other, distance - 1)
            for other, needed in self._waiting.items()
            if node_id in needed
        )
