"""Implement the synthetic nodes of the transcripts: they sleep, raise and flood on purpose.

Only a server started with ``--synthetic-nodes`` has them.
"""

import time
from typing import Any, NoReturn

from genonaut.local.comfy.node import NodeClass, NodeContext, NodeResult
from genonaut.local.comfy.nodes_sampling import choice, float_input, given, int_input, link
from genonaut.local.comfy.values import Pictures


class OutOfMemoryError(Exception):
    """Stand in for PyTorch's exception of this name."""

    reported_as = "torch.OutOfMemoryError"


_KINDS = ["value_error", "memory_error", "torch_oom", "big_message", "system_exit"]


def _sleep(
    context: NodeContext, image: Pictures, seconds: float, ticks: int, nonce: int
) -> NodeResult:
    if not ticks:
        time.sleep(seconds)
    for tick in range(1, ticks + 1):
        time.sleep(seconds / ticks)
        context.step(tick, ticks)
    return NodeResult((image,))


def _raise(context: NodeContext, image: Any, kind: str) -> NoReturn:
    if kind == "system_exit":
        raise SystemExit
    raise {
        "value_error": ValueError("synthetic failure inside a node"),
        "memory_error": MemoryError("Unable to allocate 64.0 GiB"),
        "torch_oom": OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        "big_message": ValueError("x" * 200_000),
    }[kind]


def _flood(context: NodeContext, image: Pictures, frames: int, megabytes: int) -> NodeResult:
    for _ in range(frames):
        context.flood(bytes(megabytes << 20))
    return NodeResult((image,))


NODES = (
    NodeClass(
        "TranscriptSleep",
        "TranscriptSleep",
        "synthetic",
        given(
            image=link("IMAGE"),
            seconds=float_input(1.0, 0.0, 600.0, 0.1),
            ticks=int_input(0, 0, 10000),
            nonce=int_input(0, 0, 2**31),
        ),
        ("IMAGE",),
        _sleep,
    ),
    NodeClass(
        "TranscriptRaise",
        "TranscriptRaise",
        "synthetic",
        given(image=link("IMAGE"), kind=choice(_KINDS)),
        ("IMAGE",),
        _raise,
    ),
    NodeClass(
        "TranscriptFlood",
        "TranscriptFlood",
        "synthetic",
        given(image=link("IMAGE"), frames=int_input(1, 1, 100), megabytes=int_input(1, 1, 16)),
        ("IMAGE",),
        _flood,
    ),
)
