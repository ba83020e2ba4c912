"""Make ComfyUI's texts fit to be shown to users: short, without server paths or file lists."""

import re
from typing import Any

_QUOTED_PATH = re.compile(r"(['\"`])(?:/|~/|[A-Za-z]:[\\/]|\\\\)[^'\"`\n]*\1")
_WINDOWS_PATH = re.compile(r"(?<!\w)(?:[A-Za-z]:[\\/]|\\\\\w)[^\s'\"<>|]*")
_POSIX_PATH = re.compile(r"(?<![\w/.<])~?/[\w.@+~-][\w.@+~/-]*")

_LONGEST = 4000
"""Texts can be megabytes; more than this is never looked at."""

_TELLING_DETAILS = frozenset(
    {"bad_linked_input", "custom_validation_failed", "invalid_input_type", "return_type_mismatch"}
)
"""Error types whose ``details`` say what is wrong and list no files."""


def clean(text: object, limit: int) -> str:
    """Give ``text`` without file system paths and control characters, ``limit`` long at most."""
    if not isinstance(text, str):
        return ""
    text = "".join(c if c.isprintable() or c.isspace() else " " for c in text[:_LONGEST])
    text = _QUOTED_PATH.sub(r"\1<path>\1", text)
    text = _POSIX_PATH.sub("<path>", _WINDOWS_PATH.sub("<path>", text)).strip()
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def explain_rejection(answer: object) -> str:
    """Say why a prompt was refused, from the body of a 400, or of a 200 with ``node_errors``."""
    answer = answer if isinstance(answer, dict) else {}
    by_node = answer.get("node_errors")
    reasons = _node_reasons(by_node) if isinstance(by_node, dict) else []
    if reasons:
        return "ComfyUI refused the workflow: " + "; ".join(reasons)
    error = answer.get("error")
    error = error if isinstance(error, dict) else {"message": error}
    if error.get("type") == "prompt_outputs_failed_validation":
        return "ComfyUI refused the workflow: its outputs cannot be computed (is there a cycle?)"
    parts = [clean(error.get("message"), 200), clean(error.get("details"), 100)]
    told = " ".join(dict.fromkeys(part for part in parts if part))
    return f"ComfyUI refused the workflow: {told or 'no reason was given'}"


def _node_reasons(by_node: dict[str, Any]) -> list[str]:
    """Name the first three mistakes of the first three nodes."""
    reasons: list[str] = []
    for node_id, told in list(by_node.items())[:3]:
        found = told if isinstance(told, dict) else {}
        where = f"{clean(found.get('class_type'), 60) or 'a node'} (node {clean(node_id, 20)})"
        errors = found.get("errors")
        errors = [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
        why = ", ".join(_reason(error) for error in errors[:3])
        reasons.append(f"{where}: {why or 'is not valid'}")
    return reasons


def _reason(error: dict[str, Any]) -> str:
    extra = error.get("extra_info")
    extra = extra if isinstance(extra, dict) else {}
    kind = error.get("type") if isinstance(error.get("type"), str) else ""
    name = clean(extra.get("input_name"), 60)
    if kind == "value_not_in_list":
        return f"{name} {clean(repr(extra.get('received_value')), 100)} is not available"
    message = clean(error.get("message"), 150) or "is not valid"
    if kind in _TELLING_DETAILS:
        return f"{message} ({clean(error.get('details'), 150)})"
    return f"{name}: {message}" if name else message
