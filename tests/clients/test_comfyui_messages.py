"""Everything recorded is understood, and nothing else can do harm."""

import json
import struct
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genonaut.clients.comfyui import (
    Cached,
    Executing,
    ExecutionError,
    Failed,
    Interrupted,
    Started,
    Status,
    Step,
)
from genonaut.clients.comfyui.history import parse_history
from genonaut.clients.comfyui.messages import parse_event, parse_preview
from genonaut.clients.comfyui.wording import clean, explain_rejection
from genonaut.core.errors import BackendUnavailableError
from tests.clients.scripted import TRANSCRIPTS, steps

JPEG = b"\xff\xd8\xff\xe0"
PNG = b"\x89PNG\r\n\x1a\n"

EVENT_TYPES = {
    "status": Status,
    "execution_start": Started,
    "execution_cached": Cached,
    "executing": Executing,
    "progress": Step,
    "execution_error": Failed,
    "execution_interrupted": Interrupted,
    "execution_success": type(None),
    "executed": type(None),
    "progress_state": type(None),
    "feature_flags": type(None),
}

CASES = {
    path.stem: json.loads(path.read_text())["steps"] for path in sorted(TRANSCRIPTS.glob("*.json"))
}
ALL = [step for case in CASES.values() for step in case]
HISTORIES = [
    step["response"]["json"]
    for step in ALL
    if step["kind"] == "http"
    and step["request"]["method"] == "GET"
    and step["request"]["path"].startswith("/history/")
]


@pytest.mark.parametrize("case", CASES)
def test_every_recorded_message_is_understood(case):
    said = [step["json"] for step in CASES[case] if step["kind"] == "ws_recv" and "json" in step]
    for message in said:
        event = parse_event(json.dumps(message))
        expected = EVENT_TYPES[message["type"]]
        if message["type"] == "executing" and "prompt_id" not in message["data"]:
            expected = type(None)  # on reconnecting: names a node but not whose
        assert type(event) is expected
        assert getattr(event, "prompt_id", None) in {None, message["data"].get("prompt_id")}


def test_every_recorded_history_answer_is_understood():
    assert len(HISTORIES) > 25
    for body in HISTORIES:
        for prompt_id in body:
            entry = parse_history(prompt_id, body)
            last = body[prompt_id]["status"]["messages"][-1][0]
            assert last == f"execution_{entry.outcome}"
            assert (entry.error is not None) == (entry.outcome == "error")
            assert entry.started_at <= entry.ended_at
        assert parse_history("nosuch", body) is None


def recorded_frames():
    for step in ALL:
        told = step.get("binary")
        if told and "image_magic_hex" in told:
            yield told


def test_every_recorded_frame_is_understood():
    seen = set()
    for told in recorded_frames():
        head = struct.pack(">I", told["event_type_u32be"])
        if told["event_type_u32be"] == 1:
            head += struct.pack(">I", told["image_type_u32be"])
        else:
            metadata = json.dumps(told["metadata"]).encode()
            head += struct.pack(">I", len(metadata)) + metadata
        preview = parse_preview(head + bytes.fromhex(told["image_magic_hex"]))
        assert (preview.format, preview.data) == ("jpeg", JPEG)
        assert preview.prompt_id == told.get("metadata", {}).get("prompt_id")
        seen.add(told["event_type_u32be"])
    assert seen == {1, 4}


def with_metadata(metadata, image, length=None):
    raw = metadata if isinstance(metadata, bytes) else json.dumps(metadata).encode()
    return struct.pack(">II", 4, len(raw) if length is None else length) + raw + image


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\0\0\0\1\0\0\0",
        struct.pack(">II", 1, 1),
        struct.pack(">II", 1, 1) + PNG,
        struct.pack(">II", 1, 3) + JPEG,
        struct.pack(">II", 3, 1) + b"3text",
        with_metadata({"image_type": "image/gif"}, b"GIF89a"),
        with_metadata({"image_type": ["image/png"]}, PNG),
        with_metadata([], PNG),
        with_metadata(b"{", PNG),
        with_metadata(b"\xff", PNG),
        with_metadata(b"[" * 100_000, PNG),
        with_metadata({"image_type": "image/png"}, PNG, length=2**32 - 1),
    ],
)
def test_malformed_frames_are_ignored(frame):
    assert parse_preview(frame) is None


def test_png_previews_are_read():
    assert parse_preview(struct.pack(">II", 1, 2) + PNG + b"rest").format == "png"
    preview = parse_preview(with_metadata({"image_type": "image/png", "prompt_id": 3}, PNG))
    assert (preview.format, preview.prompt_id) == ("png", None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=15,
)
fields = st.sampled_from(["prompt_id", "node", "nodes", "value", "max", "timestamp", "status"])
messages = st.fixed_dictionaries(
    {
        "type": st.sampled_from(sorted(EVENT_TYPES)),
        "data": st.dictionaries(fields, json_values) | json_values,
    }
)


@given(messages | json_values)
def test_any_json_message_is_survived(message):
    event = parse_event(json.dumps(message))
    assert event is None or isinstance(event, tuple(EVENT_TYPES.values()))


@given(st.text())
def test_any_text_message_is_survived(text):
    parse_event(text)


frames = st.builds(
    lambda kind, rest: struct.pack(">I", kind) + rest, st.integers(0, 5), st.binary()
)


@given(st.binary() | frames)
def test_any_bytes_are_survived(frame):
    preview = parse_preview(frame)
    assert preview is None or preview.format in {"jpeg", "png"}


kinds = st.sampled_from(["execution_start", "execution_error", "execution_success", "other"])
details = st.dictionaries(
    st.sampled_from(["timestamp", "exception_message", "node_id", "exception_type"]), json_values
)
statuses = st.fixed_dictionaries(
    {"messages": st.lists(st.tuples(kinds, details).map(list) | json_values) | json_values},
    optional={"status_str": json_values},
)
entries = st.fixed_dictionaries({"outputs": st.just({}), "status": statuses | json_values})


@given(json_values | st.fixed_dictionaries({"p": entries | json_values}))
def test_any_history_is_an_entry_nothing_or_an_unavailable_backend(body):
    try:
        entry = parse_history("p", body)
    except BackendUnavailableError:
        return
    assert entry is None or entry.outcome in {"success", "error", "interrupted"}


@given(json_values | st.fixed_dictionaries({"error": json_values, "node_errors": json_values}))
def test_any_refusal_gets_a_short_explanation(body):
    assert 10 < len(explain_rejection(body)) < 3000


def history_of(prompt_id_prefix):
    for body in HISTORIES:
        for prompt_id, entry in body.items():
            if prompt_id.startswith(prompt_id_prefix):
                return parse_history(prompt_id, {prompt_id: entry})
    raise LookupError(prompt_id_prefix)


def test_an_interrupted_prompt_is_not_taken_for_a_failed_one():
    entry = history_of("ccbdbf00")
    assert (entry.outcome, entry.error) == ("interrupted", None)


def test_an_error_names_the_node_and_keeps_what_finished_before():
    entry = history_of("9b2e67cd")
    assert entry.error == ExecutionError(
        "2", "TranscriptRaise", "ValueError", "synthetic failure inside a node"
    )
    assert entry.outputs
    assert entry.started_at.tzinfo is UTC
    assert not entry.error.is_out_of_memory


@pytest.mark.parametrize("prompt_id", ["d5840ccd", "5b3a684d"])
def test_memory_exhaustion_is_told_apart(prompt_id):
    assert history_of(prompt_id).error.is_out_of_memory


def test_an_error_text_is_cut_and_shows_no_path():
    told = {
        "exception_type": "OSError",
        "exception_message": "cannot read '/srv/My Comfy/models/x.safetensors' " + "y" * 200_000,
    }
    status = {"messages": [["execution_error", told]]}
    error = parse_history("p", {"p": {"outputs": {}, "status": status}}).error
    assert error.message.startswith("cannot read '<path>' yyy")
    assert len(error.message) == 500


def test_an_entry_without_messages_is_judged_by_its_status():
    good = {"p": {"outputs": {}, "status": {"status_str": "success", "messages": []}}}
    entry = parse_history("p", good)
    assert (entry.outcome, entry.started_at, entry.ended_at) == ("success", None, None)
    bad = {"p": {"outputs": {}, "status": {"messages": None}}}
    assert parse_history("p", bad).outcome == "error"


def test_impossible_timestamps_are_left_out():
    message = {"type": "execution_start", "data": {"prompt_id": "p", "timestamp": 1e300}}
    assert parse_event(json.dumps(message)) == Started("p", None)
    message["data"]["timestamp"] = 1795465659369
    at = datetime(2026, 11, 23, 20, 27, 39, 369000, tzinfo=UTC)
    assert parse_event(json.dumps(message)) == Started("p", at)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("open /home/me/x.py now", "open <path> now"),
        (r"open C:\Comfy\x.py now", "open <path> now"),
        (r"on \\server\share\x.png", "on <path>"),
        ("in '~/my models/a b.ckpt'", "in '<path>'"),
        ("see https://example.org/a/b and 3/4 or and/or", None),
        ("\x1b[31mred\x00", "[31mred"),
        (None, ""),
    ],
)
def test_paths_and_control_characters_are_removed(text, shown):
    assert clean(text, 100) == (text if shown is None else shown)


def refusal(label):
    (step,) = [s for s in steps("04") if label in s.get("label", "")]
    return explain_rejection(step["response"]["json"])


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("unknown node class", "node NoSuchSampler does not exist. Node ID '#3'"),
        ("missing required", "KSampler (node 3): steps: Required input is missing"),
        ("checkpoint not", "(node 4): ckpt_name 'missing.safetensors' is not available"),
        ("bad enum", "KSampler (node 3): sampler_name 'nosuch' is not available"),
        ("several out", "steps: Value 0 smaller than min of 1, cfg: Value 1000.0 bigger than"),
        ("wrong type", "received_type(LATENT) mismatch input_type(MODEL)"),
        ("two outputs", "LoadImage (node 10): Custom validation failed for node (image - Invalid"),
        ("cycle", "is there a cycle?"),
        ("no output node", "Prompt has no outputs"),
        ('no "prompt" key', "No prompt provided"),
    ],
)
def test_a_refusal_is_told_in_words(label, told):
    assert told in refusal(label)


def test_no_refusal_shows_tracebacks_paths_or_the_servers_files():
    refusals = [s["response"] for s in ALL if s.get("response", {}).get("status") == 400]
    told = [explain_rejection(answer.get("json")) for answer in refusals]
    assert len(told) > 15
    for text in told:
        assert "random-sd15" not in text
        assert "execution.py" not in text
        assert len(text) < 500
