import copy
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genonaut.core.errors import InvalidInputError
from genonaut.core.workflow import (
    Lora,
    OutputImage,
    ProgressMeter,
    TextToImage,
    build_text_to_image,
    check_shape,
    node_classes,
    output_images,
    prepare,
    sampling_steps,
)

SPEC = TextToImage(
    prompt="a lighthouse at dusk",
    negative_prompt="blurry",
    checkpoint="random-sd15-tiny.safetensors",
    loras=(),
    width=64,
    height=64,
    batch_size=1,
    seed=42,
    steps=4,
    cfg=7.0,
    sampler_name="euler",
    scheduler="normal",
    denoise=1.0,
)


def node(class_type="EmptyImage", **inputs):
    return {"class_type": class_type, "inputs": inputs}


def saved(**nodes):
    return {**nodes, "9": node("SaveImage", images=["1", 0], filename_prefix="x")}


@pytest.fixture
def graph():
    return build_text_to_image(SPEC, "job-1/a1")


def test_builds_the_graph_the_protocol_notes_show(graph):
    check_shape(graph)
    assert list(graph) == ["3", "4", "5", "6", "7", "8", "9"]
    assert graph["3"]["inputs"]["model"] == ["4", 0]
    assert graph["9"]["inputs"] == {"images": ["8", 0], "filename_prefix": "job-1/a1"}
    assert graph["7"]["inputs"] == {"text": "blurry", "clip": ["4", 1]}


def test_chains_loras_on_model_and_clip_in_order():
    loras = (Lora("a.safetensors", 0.5, 0.25), Lora("b.safetensors", 1, 1))
    values = {f: getattr(SPEC, f) for f in SPEC.__slots__} | {"loras": loras}
    graph = build_text_to_image(TextToImage(**values), "p")
    check_shape(graph)
    first, second = graph["10"]["inputs"], graph["11"]["inputs"]
    assert (first["lora_name"], first["strength_model"], first["strength_clip"]) == (
        "a.safetensors",
        0.5,
        0.25,
    )
    assert (first["model"], first["clip"]) == (["4", 0], ["4", 1])
    assert (second["model"], second["clip"]) == (["10", 0], ["10", 1])
    assert graph["3"]["inputs"]["model"] == ["11", 0]
    assert graph["6"]["inputs"]["clip"] == graph["7"]["inputs"]["clip"] == ["11", 1]


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("graph", "told"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ({}, "has no nodes"),
        ({str(i): node() for i in range(501)}, "501 nodes"),
        ({1: node()}, "not a string"),
        ({"1": {"class_type": "A", "inputs": {1: 2}}}, "not a string"),
        ({"1": "text"}, "'1' must be an object"),
        ({"1": {"inputs": {}}}, "no class_type"),
        ({"1": {"class_type": 3, "inputs": {}}}, "no class_type"),
        ({"1": {"class_type": "A"}}, "no inputs"),
        ({"1": node(image=["404", 0])}, "'404', which does not exist"),
        (saved(**{"1": node(a=["2", 0]), "2": node(a=["1", 0])}), "cycle"),
        (saved(**{"1": node(a=["1", 0])}), "cycle"),
        ({"1": node(), "2": node("PreviewAny", source=["1", 0])}, "saves an image"),
        (saved(**{"1": node(a=nested(40))}), "nested deeper"),
        (saved(**{"1": node(a=nested(100_000))}), "nested deeper"),
        (saved(**{"1": node(a=float("nan"))}), "not finite"),
        (saved(**{"1": node(a="a\0b")}), "cannot be stored"),
        (saved(**{"1": node(a="\ud800")}), "cannot be stored"),
        (saved(**{"1": node(**{"a\0": 1})}), "cannot be stored"),
    ],
)
def test_refuses_what_is_not_a_graph_and_says_why(graph, told):
    with pytest.raises(InvalidInputError, match=told) as refused:
        check_shape(graph)
    assert refused.value.field == "workflow"


@pytest.mark.parametrize("output", ["SaveImage", "PreviewImage", "SaveAnimatedWEBP"])
def test_accepts_each_output_that_gives_images(output):
    check_shape({"1": node(), "2": node(output, images=["1", 0])})


def test_accepts_an_unknown_node_that_saves_like_save_image():
    check_shape({"1": node(), "2": node("SaveBetter", images=["1", 0], filename_prefix="x")})


def test_a_long_chain_does_not_exhaust_the_stack():
    chain = {str(i): node(a=[str(i - 1), 0]) for i in range(2, 500)} | {"1": node()}
    check_shape(saved(**chain))
    ProgressMeter(chain).executing("499")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)
ids = st.sampled_from(["1", "2", "3"])
classes = st.sampled_from(["KSampler", "KSamplerAdvanced", "SamplerCustom", "SaveImage"])
links = st.tuples(ids, st.just(0)).map(list)
names = st.sampled_from(["a", "steps", "end_at_step", "start_at_step", "sigmas", "images"])
nodes = st.fixed_dictionaries(
    {"class_type": classes, "inputs": st.dictionaries(names, links | json_values, max_size=3)}
)
graphs = st.dictionaries(ids, nodes, max_size=3)


@given(json_values | graphs | st.dictionaries(ids, json_values))
def test_any_json_is_either_a_graph_or_a_clear_refusal(value):
    before = copy.deepcopy(value)
    try:
        check_shape(value)
    except InvalidInputError:
        return
    assert json.dumps(value, allow_nan=False).encode()
    assert node_classes(value)
    assert all(0 <= steps <= 10_000 for steps in sampling_steps(value).values())
    prefixes = [
        n["inputs"]["filename_prefix"]
        for n in prepare(value, "ours/1").values()
        if n["class_type"] == "SaveImage" or "filename_prefix" in n["inputs"]
    ]
    assert set(prefixes) <= {"ours/1"}
    assert repr(value) == repr(before)


image_entries = st.fixed_dictionaries(
    {
        "filename": json_values | st.just("a.png"),
        "subfolder": json_values,
        "type": st.sampled_from(["output", "x"]),
    }
)
listings = st.fixed_dictionaries({"images": st.lists(image_entries | json_values) | json_values})


@given(json_values | st.dictionaries(ids, listings | json_values))
def test_outputs_of_any_shape_are_tolerated(outputs):
    graph = {"1": node(), "2": node("SaveImage")}
    for image in output_images(outputs, graph):
        assert image.filename
        assert image.type in {"output", "temp"}


def test_prepare_replaces_every_prefix_and_leaves_the_original(graph):
    graph["10"] = node("PreviewImage", images=["8", 0])
    graph["11"] = node("CustomSaver", images=["8", 0], filename_prefix=["6", 0])
    graph["12"] = node("SaveImage", images=["8", 0])
    before = copy.deepcopy(graph)
    prepared = prepare(graph, "j/2")
    assert graph == before
    assert [prepared[i]["inputs"].get("filename_prefix") for i in ("9", "10", "11", "12")] == [
        "j/2",
        None,
        "j/2",
        "j/2",
    ]


def entry(name, kind="output", subfolder="job-1"):
    return {"filename": name, "subfolder": subfolder, "type": kind}


def test_outputs_come_by_node_number_then_list_order_and_only_saved_ones():
    graph = {i: node() for i in ("2", "9", "10", "x")}
    outputs = {
        "x": {"images": [entry("d.png")]},
        "10": {"images": [entry("c.png")]},
        "9": {"images": [entry("b2.png"), entry("b1.png"), entry("t.png", "temp")]},
        "2": {"text": ["long" * 100_000]},
        "404": {"images": [entry("foreign.png")]},
    }
    names = [image.filename for image in output_images(outputs, graph)]
    assert names == ["b2.png", "b1.png", "c.png", "d.png"]


def test_previews_count_when_nothing_was_saved():
    outputs = {"2": {"images": [entry("t.png", "temp", ""), entry("i.png", "input")]}}
    assert output_images(outputs, {"2": node()}) == [OutputImage("t.png", "", "temp")]


def test_only_files_that_are_pictures_by_their_names_count():
    kept = [
        f"a.{suffix}" for suffix in ("png", "JPG", "jpeg", "webp", "avif", "gif", "tiff", "bmp")
    ]
    passed_over = ["a.mp4", "a.png.webm", "a.svg", "a.", "png", "a.png "]
    outputs = {"2": {"images": [entry(name) for name in [*passed_over, *kept]]}}
    assert [image.filename for image in output_images(outputs, {"2": node()})] == kept
    video_and_preview = [entry("v.mp4"), entry("t.png", "temp")]
    assert output_images({"2": {"images": video_and_preview}}, {"2": node()}) == [
        OutputImage("t.png", "job-1", "temp")
    ]


@pytest.mark.parametrize(
    ("class_type", "inputs", "expected"),
    [
        ("KSampler", {"steps": 20, "denoise": 0.3}, 20),
        ("KSampler", {"steps": ["7", 0]}, 20),
        ("KSampler", {"steps": 10**30}, 10_000),
        ("KSamplerAdvanced", {"steps": 20, "start_at_step": 5, "end_at_step": 12}, 7),
        ("KSamplerAdvanced", {"steps": 20, "start_at_step": 5, "end_at_step": 10_000}, 15),
        ("KSamplerAdvanced", {"steps": 20, "start_at_step": 30, "end_at_step": 10_000}, 0),
        ("SamplerCustomAdvanced", {"sigmas": ["7", 0]}, 9),
    ],
)
def test_expects_the_steps_a_sampler_will_run(class_type, inputs, expected):
    graph = {"1": node(class_type, **inputs), "7": node("BasicScheduler", steps=9)}
    assert sampling_steps(graph) == {"1": expected}


def test_progress_covers_all_samplers_and_is_whole_only_at_the_end(graph):
    graph["20"] = node("KSampler", steps=6, latent_image=["3", 0])
    meter = ProgressMeter(graph)
    assert meter.cached([]) == (0, 10)
    assert meter.step("3", 2, 4) == (2, 10)
    assert meter.executing("20") == (4, 10)
    assert meter.step("20", 3, 6) == (7, 10)
    assert meter.step("20", 1, 6) == (7, 10)
    assert meter.step("20", 6, 6) == (9, 10)
    assert meter.executing(None) == (9, 10)
    assert meter.finished() == (10, 10)


def test_cached_samplers_are_done_at_once_and_a_graph_without_any_still_ends(graph):
    graph["20"] = node("KSampler", steps=6, latent_image=["3", 0])
    assert ProgressMeter(graph).cached(["3", "404"]) == (4, 10)
    plain = ProgressMeter({"1": node()})
    assert (plain.executing("1"), plain.finished()) == ((0, 1), (1, 1))


numbers = st.integers(-5, 50) | st.floats()
calls = st.lists(
    st.tuples(st.just("step"), ids, numbers, numbers)
    | st.tuples(st.just("cached"), st.lists(ids))
    | st.tuples(st.just("executing"), ids | st.none())
    | st.tuples(st.just("finished"))
)


@given(graphs.filter(bool), calls)
def test_progress_never_falls_nor_passes_its_total(graph, script):
    graph = {**graph, "9": node("SaveImage", images=[next(iter(graph)), 0])}
    try:
        check_shape(graph)
    except InvalidInputError:
        return
    meter = ProgressMeter(graph)
    last, ended = meter.cached([]), False
    for name, *arguments in script:
        ended = ended or name == "finished"
        now = getattr(meter, name)(*arguments)
        assert last[0] <= now[0] <= now[1] == last[1]
        assert (now[0] == now[1]) == ended
        last = now
