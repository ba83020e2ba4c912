"""Replay recorded requests against a server and compare the shapes of the answers."""

import io
import json
import re
import uuid
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from tests.support.simulator import wait_until

DATA = Path(__file__).parents[1] / "data" / "comfyui"
SLEEP_SCALE = 0.3
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_EXACT = {"type", "message", "class_type", "status_str", "completed", "exception_type", "node_type"}
_DOCUMENTATION = {"tooltip", "output_tooltips", "nodes_shortened"}
_HEADERS = ("etag", "last-modified", "accept-ranges", "content-range", "content-disposition")
_OVER_LIMIT = 101 << 20


def load(case: str) -> list[dict[str, Any]]:
    """Give the steps of a transcript, in the order in which they began."""
    steps = json.loads((DATA / f"{case}.json").read_text())["steps"]
    return sorted(steps, key=lambda step: step["t"])


class Adapter:
    """Translate recorded names, ids and seeds into ones that fit the server under test."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.tag = f"contract-{uuid.uuid4().hex[:8]}"
        self.seed = uuid.uuid4().int % 1_000_000
        self.replaced: dict[str, str] = {
            "random-sd15-tiny.safetensors": client.get("/models/checkpoints").json()[0],
            "random-sd15.safetensors": client.get("/models/checkpoints").json()[0],
            "random-lora.safetensors": (client.get("/models/loras").json() or [""])[0],
            "up1795465809": f"up{self.tag}",
            "http://127.0.0.1:8188": str(client.base_url).rstrip("/"),
        }
        known = client.get("/object_info").json()
        self.synthetic = "TranscriptSleep" in known

    def text(self, value: str) -> str:
        for found in _UUID.findall(value):
            self.replaced.setdefault(found, str(uuid.uuid4()))
        for old, new in self.replaced.items():
            value = value.replace(old, new)
        return value

    def value(self, value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {self.text(k): self.value(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, str):
            value = self.text(value)
            ours = key in ("filename_prefix", "subfolder") and value.startswith(("rec", "job-1"))
            return f"{self.tag}/{value}" if ours else value
        if key in ("seed", "color") and isinstance(value, int) and value > 0:
            return (value + self.seed) % 0xFFFFFF
        return value * SLEEP_SCALE if key == "seconds" else value


class Replay:
    """Send recorded requests; remember every difference between the answers."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.adapter = Adapter(client)
        self.differences: list[str] = []
        self.etag = ""
        self.posted: set[str] = set()

    def http(self, step: dict[str, Any]) -> httpx.Response:
        """Send one request, wait where the recording had waited, and compare."""
        request, recorded = step["request"], step["response"]
        send = self._prepared(request)
        if request["path"].startswith("/history/") and recorded.get("json"):
            wait_until(lambda: not self._in_queue(next(iter(recorded["json"]))))
            answer = self.client.send(self._build(send))
        else:
            answer = self.client.send(self._build(send))
        self.etag = answer.headers.get("etag", self.etag)
        if "prompt_id" in recorded.get("json", {}) and answer.status_code == 200:
            self.adapter.replaced[recorded["json"]["prompt_id"]] = answer.json()["prompt_id"]
            self.posted.add(recorded["json"]["prompt_id"])
            if recorded["json"]["prompt_id"].startswith("blocker"):
                # Until it runs, what is posted next could overtake it in the queue.
                wait_until(lambda: not self._is_pending(recorded["json"]["prompt_id"]))
        where = f"{request['method']} {request['path']} ({step.get('label', '')})"
        self._compare(where, recorded, answer)
        return answer

    def _in_queue(self, recorded_id: str) -> bool:
        running, pending = self._queue(recorded_id)
        return running or pending

    def _is_pending(self, recorded_id: str) -> bool:
        return self._queue(recorded_id)[1]

    def _queue(self, recorded_id: str) -> tuple[bool, bool]:
        queue = self.client.get("/queue").json()
        prompt_id = self.adapter.text(recorded_id)
        running, pending = (
            any(item[1] == prompt_id for item in queue[part])
            for part in ("queue_running", "queue_pending")
        )
        return running, pending

    def _build(self, send: dict[str, Any]) -> httpx.Request:
        return self.client.build_request(**send)

    def _prepared(self, request: dict[str, Any]) -> dict[str, Any]:
        send: dict[str, Any] = {
            "method": request["method"],
            "url": self.adapter.text(request["path"]),
        }
        if "params" in request:
            send["params"] = self.adapter.value(request["params"])
        headers = self.adapter.value(request.get("headers", {}))
        if "If-None-Match" in headers:
            headers["If-None-Match"] = self.etag
        send["headers"] = headers
        if "raw_body" in request:
            send["content"] = self.adapter.text(request["raw_body"])
        elif "json" in request:
            body = json.dumps(self.adapter.value(request["json"]))
            if "xxxxxxxx" in body:
                body = body.replace("xxxxxxxx", "x" * _OVER_LIMIT, 1)
            send["content"] = body
        if "multipart_files" in request:
            send["files"] = {
                name: (
                    self.adapter.text(file["filename"]),
                    _content(file["bytes"]),
                    file["content_type"],
                )
                for name, file in request["multipart_files"].items()
            }
        if "multipart_fields" in request:
            fields = self.adapter.value(request["multipart_fields"])
            send.setdefault("files", {}).update({k: (None, v) for k, v in fields.items()})
        return send

    def _compare(self, where: str, recorded: dict[str, Any], answer: httpx.Response) -> None:
        if answer.status_code != recorded["status"]:
            self.differences.append(f"{where}: {answer.status_code}, recorded {recorded['status']}")
            return
        headers = recorded["headers"]
        if answer.headers.get("content-type") != headers.get("content-type"):
            self.differences.append(f"{where}: content-type {answer.headers.get('content-type')}")
        for name in _HEADERS:
            if (name in headers) != (name in answer.headers):
                self.differences.append(f"{where}: header {name}: {answer.headers.get(name)}")
        if "json" in recorded:
            expected = self.adapter.value(recorded["json"])
            self.differences += shape_differences(expected, answer.json(), where)
        elif "text" in recorded and recorded["text"] != answer.text:
            self.differences.append(f"{where}: {answer.text[:80]!r}")


def _content(size: int) -> bytes:
    if size in (80, 82):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (size, 40, 90)).save(buffer, "PNG")
        return buffer.getvalue()
    return b"x" * size


def shape_differences(expected: Any, got: Any, where: str) -> list[str]:
    """Compare keys and types recursively; error types and messages exactly."""
    if isinstance(expected, dict) and isinstance(got, dict):
        keys, others = expected.keys() - _DOCUMENTATION, got.keys() - _DOCUMENTATION
        if keys != others:
            return [f"{where}: keys {sorted(keys ^ others)}"]
        found = []
        for key in keys:
            at = f"{where}.{key}"
            if key in _EXACT and isinstance(expected[key], str | bool):
                if expected[key] != got[key]:
                    found.append(f"{at}: {got[key]!r}, recorded {expected[key]!r}")
            else:
                found += shape_differences(expected[key], got[key], at)
        return found
    if isinstance(expected, list) and isinstance(got, list):
        if where.endswith(".errors"):  # in the order of a set
            expected, got = (sorted(errors, key=str) for errors in (expected, got))
        whole = [
            item for item in expected if not (isinstance(item, str) and "items in all]" in item)
        ]
        if bool(whole) != bool(got):
            return [f"{where}: {len(got)} items, recorded {len(expected)}"]
        pairs = (
            zip(whole, got, strict=False)
            if len(expected) == len(got)
            else zip(whole[:1], got, strict=False)
        )
        return [
            text
            for i, (a, b) in enumerate(pairs)
            for text in shape_differences(a, b, f"{where}[{i}]")
        ]
    kinds = [_kind(expected), _kind(got)]
    return [] if kinds[0] == kinds[1] else [f"{where}: {kinds[1]}, recorded {kinds[0]}"]


def _kind(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return type(value).__name__
    return "number" if isinstance(value, int | float) else type(value).__name__


def token(message: dict[str, Any]) -> str:
    """Reduce a message, recorded or received, to what its order must show."""
    if "binary" in message:
        binary = message["binary"]
        return f"binary:{binary['event_type_u32be']}:{binary['image']}"
    data = message["json"].get("data", {})
    kind: str = message["json"]["type"]
    if kind == "executing":
        return f"executing:{data['node']}"
    if kind == "progress":
        return f"progress:{data['value']}/{data['max']}"
    if kind == "execution_cached":
        return f"cached:{','.join(sorted(data['nodes']))}"
    if kind == "status":
        return f"status:{data['status']['exec_info']['queue_remaining']}:{'sid' in data}"
    return kind
