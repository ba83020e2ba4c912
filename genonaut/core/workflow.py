"""Build, check and read ComfyUI graphs in API format; nothing here does I/O."""

import copy
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from genonaut.core.errors import InvalidInputError

MAX_NODES = 500
MAX_DEPTH = 32
"""Levels of lists and objects inside a graph; a real one has four or five."""

MAX_STEPS = 10_000
"""ComfyUI's own upper bound of ``steps``."""

SAVING_CLASSES = frozenset({"SaveImage", "SaveAnimatedWEBP", "SaveAnimatedPNG"})
IMAGE_CLASSES = SAVING_CLASSES | {"PreviewImage"}

_PICTURE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jfif", ".webp", ".avif"),
    *(".gif", ".tif", ".tiff", ".bmp"),
)
_DEFAULT_STEPS = 20
_CUSTOM_SAMPLERS = frozenset({"SamplerCustom", "SamplerCustomAdvanced"})


@dataclass(frozen=True, slots=True)
class Lora:
    """Name a LoRA file and how strongly it bends the model and the text encoder."""

    name: str
    strength_model: float
    strength_clip: float


@dataclass(frozen=True, slots=True)
class TextToImage:
    """Hold what a text-to-image graph is made from; values are checked by the caller."""

    prompt: str
    negative_prompt: str
    checkpoint: str
    loras: tuple[Lora, ...]
    width: int
    height: int
    batch_size: int
    seed: int
    steps: int
    cfg: float
    sampler_name: str
    scheduler: str
    denoise: float


@dataclass(frozen=True, slots=True)
class OutputImage:
    """Name a file the way ``/view`` wants it; ``type`` is ``output`` or ``temp``."""

    filename: str
    subfolder: str
    type: str


def build_text_to_image(spec: TextToImage, filename_prefix: str) -> dict[str, Any]:
    """Make the graph of one text-to-image job, LoRAs chained in the given order.

    Node ids are those of ComfyUI's default graph: 3 sampler, 4 checkpoint, 5 latent, 6 and 7
    prompts, 8 decode, 9 save; LoRAs take 10 and up.
    """
    model: list[Any] = ["4", 0]
    clip: list[Any] = ["4", 1]
    graph: dict[str, Any] = {}
    for node_id, lora in enumerate(spec.loras, start=10):
        inputs = {
            "lora_name": lora.name,
            "strength_model": lora.strength_model,
            "strength_clip": lora.strength_clip,
            "model": model,
            "clip": clip,
        }
        graph[str(node_id)] = {"class_type": "LoraLoader", "inputs": inputs}
        model, clip = [str(node_id), 0], [str(node_id), 1]
    sampler = {
        "seed": spec.seed,
        "steps": spec.steps,
        "cfg": spec.cfg,
        "sampler_name": spec.sampler_name,
        "scheduler": spec.scheduler,
        "denoise": spec.denoise,
        "model": model,
        "positive": ["6", 0],
        "negative": ["7", 0],
        "latent_image": ["5", 0],
    }
    latent = {"width": spec.width, "height": spec.height, "batch_size": spec.batch_size}
    save = {"images": ["8", 0], "filename_prefix": filename_prefix}
    return {
        "3": {"class_type": "KSampler", "inputs": sampler},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": spec.checkpoint}},
        "5": {"class_type": "EmptyLatentImage", "inputs": latent},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": spec.prompt, "clip": clip}},
        "7": {
            "class_type": "CLIPTextEncode",
            "inputs": {"text": spec.negative_prompt, "clip": clip},
        },
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": save},
        **graph,
    }


def check_shape(graph: object) -> None:
    """Refuse what is not a runnable graph, before ComfyUI or the database sees it.

    Which nodes exist and what they accept is ComfyUI's to say; this checks only the form.

    Raises: InvalidInputError: ``field`` is ``workflow``, the message says what and where.
    """
    if not isinstance(graph, dict):
        raise refused("must be an object of nodes, in ComfyUI's API format")
    if not graph:
        raise refused("has no nodes")
    if len(graph) > MAX_NODES:
        raise refused(f"has {len(graph)} nodes; {MAX_NODES} are allowed")
    _check_values(graph)
    for node_id, node in graph.items():
        name = f"node {node_id[:40]!r}"
        if not isinstance(node, dict):
            raise refused(f"{name} must be an object")
        class_type = node.get("class_type")
        if not isinstance(class_type, str) or not class_type:
            raise refused(f"{name} has no class_type (export it in API format)")
        if not isinstance(node.get("inputs"), dict):
            raise refused(f"{name} has no inputs object")
        for source in sources_of(node):
            if source not in graph:
                raise refused(f"{name} links to node {source[:40]!r}, which does not exist")
    in_order(graph)
    if not any(gives_images(node) for node in graph.values()):
        raise refused("has no node that saves an image, such as SaveImage")


def node_classes(graph: dict[str, Any]) -> set[str]:
    """Give the class of every node of a checked graph."""
    return {node["class_type"] for node in graph.values()}


def prepare(graph: dict[str, Any], filename_prefix: str) -> dict[str, Any]:
    """Copy a checked graph, with every file it saves named by us.

    Every ``filename_prefix`` is replaced, also one that is a link or belongs to a node we do not
    know: where files go is never the user's choice. A prefix unique to the attempt also makes
    ComfyUI write new files instead of answering from its cache.
    """
    prepared = copy.deepcopy(graph)
    for node in prepared.values():
        if "filename_prefix" in node["inputs"] or node["class_type"] in SAVING_CLASSES:
            node["inputs"]["filename_prefix"] = filename_prefix
    return prepared


def output_images(outputs: object, graph: dict[str, Any]) -> list[OutputImage]:
    """Choose a run's pictures from the ``outputs`` of its history entry.

    Saved pictures if there are any, else previews. Ordered by node id (as numbers), then as the
    node lists them. Anything of another shape, of a node not in ``graph``, or with the suffix of no
    picture that we know, as a video listed among them, is passed over.
    """
    if not isinstance(outputs, dict):
        return []
    ids = sorted((i for i in outputs if isinstance(i, str) and i in graph), key=_numeric)
    found = [image for node_id in ids for image in _listed_images(outputs[node_id])]
    saved = [image for image in found if image.type == "output"]
    return saved or found


def sampling_steps(graph: dict[str, Any]) -> dict[str, int]:
    """Give the steps each sampler of a checked graph will run; other nodes are left out.

    ``denoise`` below 1 does not shorten a run: ComfyUI stretches the schedule and takes its last
    ``steps`` steps. A number that comes through a link is taken as 20.
    """
    steps: dict[str, int] = {}
    for node_id, node in graph.items():
        inputs = node["inputs"]
        if node["class_type"] == "KSampler":
            steps[node_id] = _number(inputs.get("steps"), _DEFAULT_STEPS)
        elif node["class_type"] == "KSamplerAdvanced":
            whole = _number(inputs.get("steps"), _DEFAULT_STEPS)
            end = min(whole, _number(inputs.get("end_at_step"), whole))
            steps[node_id] = max(0, end - _number(inputs.get("start_at_step"), 0))
        elif node["class_type"] in _CUSTOM_SAMPLERS:
            schedule = _linked(graph, inputs.get("sigmas"))
            steps[node_id] = _number(schedule.get("steps"), _DEFAULT_STEPS)
    return steps


class ProgressMeter:
    """Turn ComfyUI's messages about single nodes into progress over a whole checked graph.

    Each call answers ``(done, total)`` in sampling steps. ``done`` never falls, and reaches
    ``total`` only with :meth:`finished`: decoding and saving follow the last step. Messages may be
    lost: a node that runs shows that everything it is linked from is done.
    """

    def __init__(self, graph: dict[str, Any]) -> None:
        self._graph = graph
        self._expected = sampling_steps(graph)
        self._done = dict.fromkeys(self._expected, 0)
        self._total = max(1, sum(self._expected.values()))
        self._ended = False

    def cached(self, nodes: Iterable[str]) -> tuple[int, int]:
        """Count nodes whose result ComfyUI takes from its cache as done."""
        for node in nodes:
            self._complete(node)
        return self._reading()

    def executing(self, node: str | None) -> tuple[int, int]:
        """Note the node that runs now; None means the run ended, not that it succeeded."""
        for source in _ancestors(self._graph, node):
            self._complete(source)
        return self._reading()

    def step(self, node: str, value: float, maximum: float) -> tuple[int, int]:
        """Note a node's own progress; scaled when its maximum is not what we expected."""
        if node in self._done and 0 < maximum < math.inf and 0 <= value < math.inf:
            scaled = int(self._expected[node] * min(1.0, value / maximum))
            self._done[node] = max(self._done[node], scaled)
        return self.executing(node)

    def finished(self) -> tuple[int, int]:
        """Note that the pictures are there."""
        self._ended = True
        return self._reading()

    def _complete(self, node: str) -> None:
        if node in self._done:
            self._done[node] = self._expected[node]

    def _reading(self) -> tuple[int, int]:
        if self._ended:
            return self._total, self._total
        return min(sum(self._done.values()), self._total - 1), self._total


def in_order(graph: dict[str, Any]) -> list[str]:
    """Give the nodes, each after those it is linked from.

    Raises: InvalidInputError: there is a cycle.
    """
    order = []
    waiting = {node_id: set(sources_of(node)) for node_id, node in graph.items()}
    users: dict[str, list[str]] = {node_id: [] for node_id in graph}
    for node_id, sources in waiting.items():
        for source in sources:
            users[source].append(node_id)
    ready = [node_id for node_id, sources in waiting.items() if not sources]
    while ready:
        done = ready.pop()
        order.append(done)
        del waiting[done]
        for user in users[done]:
            waiting[user].discard(done)
            if not waiting[user]:
                ready.append(user)
    if waiting:
        raise refused(f"has a cycle near node {min(waiting, key=_numeric)[:40]!r}")
    return order


def sources_of(node: dict[str, Any]) -> Iterator[str]:
    """Give the ids a node is linked from; a link is ``[node id, output slot]``."""
    for value in node["inputs"].values():
        if _is_link(value):
            yield value[0]


def gives_images(node: dict[str, Any]) -> bool:
    """Recognise ComfyUI's own image outputs, and other nodes built like SaveImage."""
    inputs = node["inputs"]
    return node["class_type"] in IMAGE_CLASSES or {"images", "filename_prefix"} <= inputs.keys()


def refused(why: str) -> InvalidInputError:
    """Make the error that says what is wrong with a workflow."""
    return InvalidInputError(f"the workflow {why}", field="workflow")


def _check_values(graph: dict[Any, Any]) -> None:
    """Refuse values that JSON, UTF-8 or PostgreSQL's JSONB cannot carry, and deep nesting."""
    stack: list[tuple[Any, int]] = [(graph, 1)]
    while stack:
        value, depth = stack.pop()
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise refused(f"is nested deeper than {MAX_DEPTH} levels")
            if isinstance(value, dict):
                if not all(isinstance(key, str) for key in value):
                    raise refused("has a key that is not a string")
                stack.extend((key, depth) for key in value)
                stack.extend((item, depth + 1) for item in value.values())
            else:
                stack.extend((item, depth + 1) for item in value)
        elif isinstance(value, str):
            if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
                raise refused("has a text with a character that cannot be stored")
        elif isinstance(value, float) and not math.isfinite(value):
            raise refused("has a number that is not finite")


def _is_link(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int | float)
    )


def _linked(graph: dict[str, Any], value: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = graph[value[0]]["inputs"] if _is_link(value) else {}
    return inputs


def _ancestors(graph: dict[str, Any], node: str | None) -> set[str]:
    seen: set[str] = set()
    stack = [node] if node in graph else []
    while stack:
        for source in sources_of(graph[stack.pop()]):
            if source not in seen:
                seen.add(source)
                stack.append(source)
    return seen


def _listed_images(output: object) -> Iterator[OutputImage]:
    entries = output.get("images") if isinstance(output, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        filename, subfolder = entry.get("filename"), entry.get("subfolder", "")
        kind = entry.get("type")
        if (
            isinstance(filename, str)
            and isinstance(subfolder, str)
            and filename.lower().endswith(_PICTURE_SUFFIXES)
            and kind in ("output", "temp")
        ):
            yield OutputImage(filename, subfolder, kind)


def _numeric(node_id: str) -> tuple[int, int, str]:
    if node_id.isascii() and node_id.isdigit() and len(node_id) < 20:
        return (0, int(node_id), node_id)
    return (1, 0, node_id)


def _number(value: object, default: int) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return int(min(max(value, 0), MAX_STEPS))
    return default
