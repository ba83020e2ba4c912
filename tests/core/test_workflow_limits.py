"""What a user's own graph may take of a server is bounded, and graphs that are usual are taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genonaut.core.errors import InvalidInputError
from genonaut.core.workflow import check_shape
from genonaut.core.workflow_limits import (
    INPUT_LIMITS,
    MAX_IMAGES,
    MAX_PIXELS,
    MAX_PROMPTS,
    MAX_SAMPLERS,
    check,
)
from tests.support.simulator import text_to_image


def node(class_type="EmptyImage", **inputs):
    return {"class_type": class_type, "inputs": inputs}


# Just below, at and above each limit, what ComfyUI would convert, and links.
judged = (
    st.integers(-1, 3000)
    | st.floats(0, 3000)
    | st.sampled_from(["512", "9999", True, None, ["0", 0], [], {}])
    | st.sampled_from([limit + more for limit in INPUT_LIMITS.values() for more in (0, 1)])
)
odd = st.dictionaries(st.sampled_from([*INPUT_LIMITS, "seed"]), judged, max_size=3)
fitting = st.fixed_dictionaries(
    {},
    optional={
        "width": st.integers(1, 2048) | st.just(2048),
        "height": st.integers(1, 2048) | st.just(2048),
        "batch_size": st.integers(1, 8) | st.just(8),
        "scale_by": st.sampled_from([0.5, 1, 1, 1.1]),
    },
)
classes = st.sampled_from(
    ["EmptyImage", "KSampler", "ConditioningCombine", "SaveImage", "ImageScaleBy", "Odd"]
)


@st.composite
def graphs(draw):
    """Make nodes that are each linked from up to two of the three before it."""
    inputs = draw(st.sampled_from([odd, fitting, fitting]))
    few = st.sampled_from(draw(st.lists(classes, min_size=1, max_size=3)))
    graph = {}
    for n in range(draw(st.integers(1, 12) | st.just(12))):
        before = draw(st.lists(st.sampled_from(list(graph)[-3:]), max_size=2)) if graph else []
        links = {f"from_{slot}": [source, 0] for slot, source in enumerate(before)}
        graph[str(n)] = node(draw(few), **draw(inputs), **links)
    return graph


def held(graph, node_id):
    """Say how many prompts, images and pixels of each a node may hold."""
    inputs = graph[node_id]["inputs"]
    before = [held(graph, inputs[name][0]) for name in inputs if name.startswith("from_")]
    prompts, images, pixels = zip((1, 1, 0), *before, strict=True)
    is_joining = graph[node_id]["class_type"] == "ConditioningCombine" and before
    own = inputs.get("width", 0) * inputs.get("height", 0)
    return (
        sum(prompts[1:]) if is_joining else max(prompts),
        max(inputs.get("batch_size", 1), *images),
        max(own, *pixels) * max(1, inputs.get("scale_by", 1)) ** 2,
    )


@given(graphs())
def test_a_graph_within_the_limits_costs_no_more_than_they_say(graph):
    try:
        check(graph)
    except InvalidInputError:
        return
    enlarged = 1.0
    for found in graph.values():
        for name in INPUT_LIMITS.keys() & found["inputs"].keys():
            value = found["inputs"][name]
            assert type(value) in (int, float)
            assert (0.01 if name == "scale_by" else 1) <= value <= INPUT_LIMITS[name]
        enlarged *= max(1, found["inputs"].get("scale_by", 1))
    assert enlarged <= INPUT_LIMITS["scale_by"]
    assert sum(n["class_type"].startswith("KSampler") for n in graph.values()) <= MAX_SAMPLERS
    loads = {node_id: held(graph, node_id) for node_id in graph}
    assert max(prompts for prompts, _, _ in loads.values()) <= MAX_PROMPTS
    assert sum(images * pixels for _, images, pixels in loads.values()) <= MAX_PIXELS
    saving = [node_id for node_id in graph if graph[node_id]["class_type"] == "SaveImage"]
    assert sum(loads[node_id][1] for node_id in saving) <= MAX_IMAGES


def chain(class_type, length, *names, first, **inputs):
    """Link each node from the one before it, by all of these names."""
    return {"0": first} | {
        str(n): node(class_type, **inputs, **{name: [str(n - 1), 0] for name in names})
        for n in range(1, length + 1)
    }


def joined(times, class_type, *names):
    return chain(class_type, times, *names, first=node("CLIPTextEncode"))


COMBINED = ("ConditioningCombine", "conditioning_1", "conditioning_2")
CONCATENATED = ("ConditioningConcat", "conditioning_to", "conditioning_from")
SMALL, LARGE = ({"width": edge, "height": edge, "batch_size": 8} for edge in (64, 2048))


def saved(times, **image):
    first = {"0": node(**image)}
    return first | {str(n): node("SaveImage", images=["0", 0]) for n in range(1, times + 1)}


def pairs(count):
    images = {str(n): node(width=64, height=64) for n in range(count)}
    return images | {f"p{n}": node("PreviewImage", images=[str(n), 0]) for n in range(count)}


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        ({"1": node(width=2049)}, "width of node '1' may be at most 2048"),
        ({"1": node(batch_size=9)}, "batch_size"),
        ({"1": node(height="512")}, "as a number"),
        ({"1": node(steps=["2", 0]), "2": node()}, "as a number"),
        ({"1": node("ImageScaleBy", scale_by=3), "2": node("X", scale_by=2)}, "4 times in all"),
        ({str(n): node("KSampler") for n in range(5)}, "5 samplers; 4"),
        ({str(n): node("Odd", steps=1) for n in range(5)}, "5 samplers; 4"),
        ({"1": node("ImageScale", width=2048, height=0)}, "height of node '1' must be at least 1"),
        ({"1": node("LatentUpscale", width=0.9, height=64)}, "width of node '1' must be at least"),
        ({"1": node(batch_size=-1)}, "batch_size of node '1' must be at least"),
        ({"1": node("ImageScaleBy", scale_by=-9)}, "must be at least 0.01"),
        (joined(4, *COMBINED), "joins more than 8 prompts"),
        (joined(490, *CONCATENATED), "joins more than 8 prompts"),
        (saved(9, **SMALL), "gives 72 images; 64"),
        (pairs(65), "gives 65 images; 64"),
        (
            chain("ImageScaleBy", 32, "image", first=node(**LARGE), scale_by=1),
            "1,107 million pixels .* 1,073 million",
        ),
        (
            chain("ImageScale", 40, "image", first=node(**LARGE), width=1, height=1, scale_by=0.1),
            "million pixels",
        ),
        (
            {"0": node(**LARGE), "1": node("ImageScaleBy", image=["0", 0], scale_by=4)}
            | {"2": node("SaveImage", images=["1", 0], batch_size=1)},
            "million pixels",
        ),
    ],
)
def test_a_graph_beyond_a_limit_is_refused_and_told_why(graph, told):
    with pytest.raises(InvalidInputError, match=told) as refused:
        check(graph)
    assert refused.value.field == "workflow"


@pytest.mark.parametrize(
    "graph",
    [
        {"1": node(**INPUT_LIMITS)},
        text_to_image(size=(2048, 2048), batch=8, steps=150),
        joined(3, *COMBINED),
        saved(8, **SMALL),
        pairs(64),
    ],
)
def test_a_graph_at_the_limits_is_taken(graph):
    check(graph)


def test_a_batch_that_is_enlarged_and_drawn_over_is_taken():
    graph = text_to_image(size=(1024, 1024), batch=8)
    graph["20"] = node("LatentUpscaleBy", samples=["3", 0], scale_by=2)
    second = graph["3"]["inputs"] | {"latent_image": ["20", 0], "positive": ["22", 0]}
    graph["21"] = node("KSampler", **second)
    graph["22"] = node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["7", 0])
    graph["8"]["inputs"]["samples"] = ["21", 0]
    check_shape(graph)
    check(graph)
