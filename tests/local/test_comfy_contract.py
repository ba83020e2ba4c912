"""The simulator answers as the recorded ComfyUI did; with COMFYUI_TEST_URL, ComfyUI still does."""

from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from tests.support.simulator import wait_until
from tests.support.transcripts import Replay, load, shape_differences, token

HTTP_CASES = [
    "01_discovery_endpoints",
    "02_prompt_accepted",
    "03_duplicate_prompt_id",
    "04_validation_errors",
    "05_queue_views",
    "07_history",
    "08_view",
    "09_upload_image",
    "10_free",
    "16_node_errors",
    "20_outputs",
]
FOUND_CACHED = {
    "12_ws_cached_rerun": "11_ws_text_to_image",
    "15_ws_no_client_id": "14_ws_feature_flags",
}
"""Which graph a recording had run just before; the others found nothing of use."""
WS_CASES = [
    "11_ws_text_to_image",
    "12_ws_cached_rerun",
    "14_ws_feature_flags",
    "15_ws_no_client_id",
]

NOT_SPOKEN = {
    "/view_metadata/loras": "the simulator's models have no files, so no metadata",
    "/view_metadata/checkpoints": "the simulator's models have no files, so no metadata",
    "/users": "ComfyUI's own pages ask it; no client of ours does",
    "/internal/files/output": "ComfyUI's own pages ask it; no client of ours does",
}


def left_out(step: dict[str, Any], replay: Replay) -> str | None:
    """Say why a step cannot be replayed, or None."""
    request = step["request"]
    if "Transcript" in str(request.get("json")) and not replay.adapter.synthetic:
        return "needs the synthetic nodes, which this server does not have"
    if "after the file was deleted" in step.get("label", ""):
        return "the file was deleted on the server's disk, which HTTP cannot do"
    if "the file is not there" in step.get("label", ""):
        return "the file was deleted on the server's disk, which HTTP cannot do"
    prompt_id = unquote(request["path"].removeprefix("/history/"))
    if prompt_id in step["response"].get("json", {}) and prompt_id not in replay.posted:
        return "the transcript leaves out the POST of this prompt"
    return NOT_SPOKEN.get(request["path"])


@pytest.mark.parametrize("case", HTTP_CASES)
def test_answers_have_the_recorded_status_type_and_shape(comfyui: httpx.Client, case: str):
    replay = Replay(comfyui)
    for step in load(case):
        if step["kind"] != "http" or left_out(step, replay):
            continue
        answer = replay.http(step)
        posted = step["request"].get("json")
        if case == "08_view" and isinstance(posted, dict) and "prompt_id" in posted:
            _learn_temp_name(replay, answer.json()["prompt_id"])
    assert replay.differences == []


def _learn_temp_name(replay: Replay, prompt_id: str) -> None:
    history = wait_until(lambda: replay.client.get(f"/history/{prompt_id}").json())
    temp = history[prompt_id]["outputs"]["3"]["images"][0]["filename"]
    replay.adapter.replaced["ComfyUI_temp_qxitj_00001_.png"] = temp


@pytest.mark.parametrize("case", WS_CASES)
def test_messages_come_in_the_recorded_order(comfyui: httpx.Client, listen, case: str):
    replay = Replay(comfyui)
    _prepare_cache(replay, case)
    sockets: dict[str, Any] = {}
    expected: dict[str, list[str]] = {}
    for step in load(case):
        kind, name = step["kind"], step.get("socket")
        if kind in ("http", "ws_open", "ws_closed", "ws_send"):
            for other, tokens in expected.items():
                _caught_up(sockets[other], tokens)
        if kind == "ws_open":
            client_id = step["url"].partition("clientId=")[2] or None
            sockets[name] = listen(str(comfyui.base_url), client_id)
            expected[name] = []
        elif kind == "ws_send":
            sockets[name].send(step["text"])
        elif kind == "ws_recv":
            expected[name].append(token(step))
        elif kind == "http" and not _deleted_on_disk(step):
            replay.http(step)
    wait_until(lambda: all(len(sockets[n].messages) >= len(expected[n]) for n in sockets))
    assert {name: sockets[name].tokens() for name in sockets} == expected
    assert replay.differences == []


def _caught_up(socket: Any, tokens: list[str]) -> None:
    wait_until(lambda: len(socket.messages) >= len(tokens))


def _deleted_on_disk(step: dict[str, Any]) -> bool:
    return "the file is not there" in step.get("label", "")


def _prepare_cache(replay: Replay, case: str) -> None:
    """Leave the server's result cache as the recording found it."""
    graph: Any = {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": replay.adapter.seed},
        },
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    if case in FOUND_CACHED:
        posted = next(step for step in load(FOUND_CACHED[case]) if step["kind"] == "http")
        graph = replay.adapter.value(posted["request"]["json"]["prompt"])
    replay.client.post("/prompt", json={"prompt": graph}).raise_for_status()
    wait_until(lambda: not replay.client.get("/prompt").json()["exec_info"]["queue_remaining"], 60)


def test_an_error_names_node_and_exception_on_the_socket(comfyui: httpx.Client, listen):
    replay = Replay(comfyui)
    if not replay.adapter.synthetic:
        pytest.skip("needs the synthetic nodes, which this server does not have")
    steps = load("16_node_errors")
    recorded = next(
        s["json"]["data"] for s in steps if s.get("json", {}).get("type") == "execution_error"
    )
    socket = listen(str(comfyui.base_url), "err")
    replay.http(next(s for s in steps if s["kind"] == "http"))
    socket.wait_for("executing:None")
    (got,) = socket.of_type("execution_error")
    assert shape_differences(replay.adapter.value(recorded), got, "execution_error") == []
    assert [t for t in socket.tokens() if t != "progress_state"][-3:] == [
        "execution_error",
        "status:0:False",
        "executing:None",
    ]
