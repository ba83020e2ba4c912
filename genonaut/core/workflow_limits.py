"""Bound what a user's own ComfyUI graph may take of a server."""

from dataclasses import dataclass
from typing import Any

from genonaut.core.workflow import gives_images, in_order, refused, sources_of

INPUT_LIMITS = {"width": 2048, "height": 2048, "batch_size": 8, "steps": 150, "scale_by": 4}
"""The largest values a user's own graph may have, whatever the node."""

MAX_SAMPLERS = 4
MAX_PROMPTS = 8
"""So many may be joined to one; each is drawn for in every step."""

MAX_IMAGES = 64
"""A workflow may make so many pictures; a request's own batch is at most 8."""

MAX_PIXELS = 2**30
"""What the nodes of a user's graph may give in all: ComfyUI keeps it, in 12 bytes each."""

_SAMPLER_PREFIXES = ("KSampler", "SamplerCustom")
_JOINING_CLASSES = frozenset({"ConditioningCombine", "ConditioningConcat"})
_LEAST_SCALE = 0.01


def check(graph: dict[str, Any]) -> None:
    """Refuse a checked graph that would take more of a server than a job without one may.

    What is bounded must be a plain number: what comes through a link, or as text that ComfyUI
    would convert, cannot be judged here. Nor may an edge be 0, which has ComfyUI derive it from the
    other. Enlargements and joined prompts multiply, so what comes of them is bounded too.

    Raises: InvalidInputError: ``field`` is ``workflow``, the message says what and where.
    """
    enlarged = 1.0
    samplers = 0
    for node_id, node in graph.items():
        inputs = node["inputs"]
        for name in INPUT_LIMITS.keys() & inputs.keys():
            _check_limit(name, f"{name} of node {node_id[:40]!r}", inputs[name])
        enlarged *= max(1, inputs.get("scale_by", 1))
        samplers += "steps" in inputs or node["class_type"].startswith(_SAMPLER_PREFIXES)
    if enlarged > INPUT_LIMITS["scale_by"]:
        raise refused(f"enlarges more than {INPUT_LIMITS['scale_by']} times in all (scale_by)")
    if samplers > MAX_SAMPLERS:
        raise refused(f"has {samplers} samplers; {MAX_SAMPLERS} are allowed")
    loads = _loads(graph)
    prompts = max(load.prompts for load in loads.values())
    if prompts > MAX_PROMPTS:
        raise refused(f"joins more than {MAX_PROMPTS} prompts to one")
    images = sum(loads[node_id].batch for node_id, node in graph.items() if gives_images(node))
    if images > MAX_IMAGES:
        raise refused(f"gives {images:g} images; {MAX_IMAGES} are allowed")
    pixels = sum(load.batch * load.area for load in loads.values())
    if pixels > MAX_PIXELS:
        raise refused(
            f"passes {pixels / 1e6:,.0f} million pixels from node to node in all; "
            f"{MAX_PIXELS // 10**6:,} million are allowed"
        )


def _check_limit(name: str, what: str, value: object) -> None:
    least, limit = _LEAST_SCALE if name == "scale_by" else 1, INPUT_LIMITS[name]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refused(f"must give {what} as a number")
    if value < least:
        raise refused(f"has too small a value: {what} must be at least {least}")
    if value > limit:
        raise refused(f"has too large a value: {what} may be at most {limit}")


@dataclass(frozen=True, slots=True)
class _Load:
    """What a node gives: ``prompts`` joined to one, or a ``batch`` of pictures of this ``area``."""

    prompts: int
    batch: float
    area: float


def _loads(graph: dict[str, Any]) -> dict[str, _Load]:
    """Judge what each node gives at most, by its own numbers and what it is given.

    A number never makes it less: ComfyUI passes over inputs that a class does not have.
    """
    loads: dict[str, _Load] = {}
    for node_id in in_order(graph):
        inputs = graph[node_id]["inputs"]
        given = [loads[source] for source in sources_of(graph[node_id])]
        join = sum if graph[node_id]["class_type"] in _JOINING_CLASSES else max
        area = max(
            inputs.get("width", 0) * inputs.get("height", 0), *(load.area for load in given), 0
        )
        loads[node_id] = _Load(
            prompts=join([load.prompts for load in given] or [1]),
            batch=max(inputs.get("batch_size", 1), *(load.batch for load in given), 1),
            area=area * max(1, inputs.get("scale_by", 1)) ** 2,
        )
    return loads
