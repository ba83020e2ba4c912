"""Read how a picture was made from the graph that ComfyUI and its nodes leave in their files.

The file may come from anywhere: what is found is a claim, bounded in size and type, and never run.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from genonaut.core import image_texts
from genonaut.core.text import storable

MAX_GRAPH_BYTES = 4 * 2**20
MAX_PROMPT = 20_000
MAX_VALUE = 255
MAX_NODES = 5_000

_DEEPEST = 50
_NUMBERS = ("seed", "steps", "cfg")
_WORDS = ("sampler_name", "scheduler")


@dataclass(frozen=True, slots=True)
class Made:
    """How a picture was made, as far as its file says."""

    prompt: str | None = None
    negative_prompt: str | None = None
    settings: dict[str, str | int | float] = field(default_factory=dict)


def read(data: bytes) -> Made:
    """Read what a file says of its making; nothing of one that says nothing we understand."""
    try:
        graph = json.loads(image_texts.text(data, "prompt", max_bytes=MAX_GRAPH_BYTES) or "")
    except (ValueError, RecursionError):
        return Made()
    if not isinstance(graph, dict) or len(graph) > MAX_NODES:
        return Made()
    for node in _samplers(graph):
        return _made(graph, node)
    return Made()


def _samplers(graph: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the inputs of the nodes that sample: they alone take both a positive and a seed."""
    for node in graph.values():
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if isinstance(inputs, dict) and "positive" in inputs and _SEEDS & inputs.keys():
            yield inputs


_SEEDS = frozenset(("seed", "noise_seed"))


def _made(graph: dict[str, Any], inputs: dict[str, Any]) -> Made:
    settings: dict[str, str | int | float] = {}
    values = {"seed": inputs.get("noise_seed"), **inputs}
    for name in _NUMBERS:
        value = _followed(graph, values.get(name), name)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**64:
            settings[name] = value
    for name in _WORDS:
        value = _followed(graph, values.get(name), name)
        if isinstance(value, str):
            settings[name] = storable(value)[:MAX_VALUE]
    model = _followed(graph, inputs.get("model"), "ckpt_name", "unet_name", "model")
    if isinstance(model, str):
        settings["model"] = storable(model)[:MAX_VALUE]
    return Made(
        _text(graph, inputs.get("positive")), _text(graph, inputs.get("negative")), settings
    )


def _text(graph: dict[str, Any], value: object) -> str | None:
    found = _followed(graph, value, "text", "text_g", "conditioning", "positive")
    return storable(found)[:MAX_PROMPT] if isinstance(found, str) and found.strip() else None


def _followed(graph: dict[str, Any], value: object, *names: str) -> object:
    """Follow links from node to node, by the first input of these names, to a value."""
    for _ in range(_DEEPEST):
        if not (isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)):
            return value
        node = graph.get(value[0])
        inputs = node.get("inputs") if isinstance(node, dict) else None
        if not isinstance(inputs, dict):
            return None
        value = next((inputs[name] for name in names if name in inputs), None)
    return None
