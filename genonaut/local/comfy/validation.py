"""Check a graph before it is queued, with the errors in ComfyUI's shapes."""

import traceback
from collections.abc import Mapping
from typing import Any

from genonaut.local.comfy.folders import Folders
from genonaut.local.comfy.node import InputSpec, NodeClass
from genonaut.local.comfy.nodes import Registry

Graph = dict[str, Any]
Reason = dict[str, Any]

_CONVERTERS: Mapping[str, Any] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
_LONG_LIST = 20


class RefusedError(Exception):
    """Carry the body of the 400 answer."""

    def __init__(
        self, kind: str, message: str, details: str = "", node_errors: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.body = {
            "error": {"type": kind, "message": message, "details": details, "extra_info": {}},
            "node_errors": node_errors or {},
        }


def validate(
    graph: Graph, nodes: Registry, folders: Folders, targets: list[str] | None
) -> tuple[list[str], dict[str, Any]]:
    """Check the graph and convert its numbers in place, as ComfyUI does.

    A graph that is no dict of dicts raises as it may, which is a 500. ``targets`` are the ids of
    the outputs wanted; None for all.

    Returns: ids of the valid outputs, and the errors of the others.
    Raises: RefusedError: nothing in the graph can run.
    """
    outputs = []
    for node_id, node in graph.items():
        if "class_type" not in node:
            raise RefusedError(
                "invalid_prompt",
                "Cannot execute because a node is missing the class_type property.",
                f"Node ID '#{node_id}'",
            )
        found = nodes.get(node["class_type"])
        if found is None:
            raise RefusedError(
                "invalid_prompt",
                f"Cannot execute because node {node['class_type']} does not exist.",
                f"Node ID '#{node_id}'",
            )
        if found.output_node and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        raise RefusedError("prompt_no_outputs", "Prompt has no outputs")

    check = _Check(graph, nodes, folders)
    good = [node_id for node_id in outputs if check.output(node_id)]
    if not good:
        raise RefusedError(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            node_errors=check.node_errors,
        )
    return good, check.node_errors


class _Check:
    """Walk one graph from its outputs to its roots, each node once."""

    def __init__(self, graph: Graph, nodes: Registry, folders: Folders) -> None:
        self.graph = graph
        self.nodes = nodes
        self.folders = folders
        self.results: dict[str, tuple[bool, list[Reason]]] = {}
        self.on_the_way: set[str] = set()
        self.node_errors: dict[str, Any] = {}

    def output(self, output_id: str) -> bool:
        """Check an output node with all it needs; note what is wrong under ``node_errors``."""
        try:
            valid = self.node(output_id)
        except Exception as error:  # noqa: BLE001 - a graph may break in any way; ComfyUI reports all
            valid = False
            reason = _reason(
                "exception_during_validation",
                "Exception when validating node",
                str(error),
                exception_type=type(error).__name__,
                traceback=traceback.format_tb(error.__traceback__),
            )
            self.results[output_id] = (False, [reason])
        if not valid:
            for node_id, (fine, reasons) in self.results.items():
                if not fine and reasons:
                    entry = {
                        "errors": reasons,
                        "dependent_outputs": [],
                        "class_type": self.graph[node_id]["class_type"],
                    }
                    self.node_errors.setdefault(node_id, entry)
                    self.node_errors[node_id]["dependent_outputs"].append(output_id)
        return valid

    def node(self, node_id: str) -> bool:
        if node_id in self.results:
            return self.results[node_id][0]
        if node_id in self.on_the_way:
            return False  # a cycle: refused without a reason, as recorded
        self.on_the_way.add(node_id)
        inputs = self.graph[node_id]["inputs"]
        kind = self.nodes[self.graph[node_id]["class_type"]]
        valid = True
        reasons: list[Reason] = []
        required = kind.required(self.folders)
        for name, spec in {**required, **kind.optional}.items():
            if name not in inputs:
                if name in required:
                    reasons.append(
                        _reason(
                            "required_input_missing",
                            "Required input is missing",
                            name,
                            input_name=name,
                        )
                    )
            elif isinstance(inputs[name], list):
                valid &= self.link(name, inputs[name], spec, reasons)
            else:
                self.value(kind, inputs, name, spec, reasons)
        if not reasons:
            complaint = kind.check(self.folders, inputs)
            if complaint:
                name = next(iter(kind.checks))
                reasons.append(
                    _reason(
                        "custom_validation_failed",
                        "Custom validation failed for node",
                        f"{name} - {complaint}",
                        input_name=name,
                    )
                )
        valid = valid and not reasons
        self.results[node_id] = (valid, reasons)
        return valid

    def link(self, name: str, value: list[Any], spec: InputSpec, reasons: list[Reason]) -> bool:
        """Check a link and, behind it, the node it comes from."""
        if len(value) != 2:
            reasons.append(
                _reason(
                    "bad_linked_input",
                    "Bad linked input, must be a length-2 list of [node_id, slot_index]",
                    name,
                    input_name=name,
                    input_config=spec,
                    received_value=value,
                )
            )
            return True
        source, slot = value
        received = self.nodes[self.graph[source]["class_type"]].outputs[slot]
        if received != spec[0] and spec[0] != "*":
            reasons.append(
                _reason(
                    "return_type_mismatch",
                    "Return type mismatch between linked nodes",
                    f"{name}, received_type({received}) mismatch input_type({spec[0]})",
                    input_name=name,
                    input_config=spec,
                    received_type=received,
                    linked_node=value,
                )
            )
            return True
        try:
            return self.node(source)
        except Exception as error:  # noqa: BLE001 - reported to the client, as ComfyUI does
            reason = _reason(
                "exception_during_inner_validation",
                "Exception when validating inner node",
                str(error),
                input_name=name,
                input_config=spec,
                exception_message=str(error),
                exception_type=type(error).__name__,
                traceback=traceback.format_tb(error.__traceback__),
                linked_node=value,
            )
            self.results[source] = (False, [reason])
            return False

    def value(
        self,
        kind: NodeClass,
        inputs: dict[str, Any],
        name: str,
        spec: InputSpec,
        reasons: list[Reason],
    ) -> None:
        """Convert and check a plain value."""
        wanted, options = spec[0], spec[1] if len(spec) > 1 else {}
        info: dict[str, Any] = {
            "input_name": name,
            "input_config": spec,
            "received_value": inputs[name],
        }
        if isinstance(wanted, str) and wanted in _CONVERTERS:
            try:
                inputs[name] = _CONVERTERS[wanted](inputs[name])
            except (TypeError, ValueError, OverflowError) as error:
                reasons.append(
                    _reason(
                        "invalid_input_type",
                        f"Failed to convert an input value to a {wanted} value",
                        f"{name}, {inputs[name]}, {error}",
                        **info,
                        exception_message=str(error),
                    )
                )
                return
        value = info["received_value"] = inputs[name]
        if name in kind.checks:
            return
        if "min" in options and value < options["min"]:
            message = f"Value {value} smaller than min of {options['min']}"
            reasons.append(_reason("value_smaller_than_min", message, name, **info))
        elif "max" in options and value > options["max"]:
            message = f"Value {value} bigger than max of {options['max']}"
            reasons.append(_reason("value_bigger_than_max", message, name, **info))
        elif isinstance(wanted, list) and value not in wanted:
            long = len(wanted) > _LONG_LIST
            choices = f"(list of length {len(wanted)})" if long else repr(wanted)
            info["input_config"] = None if long else spec
            details = f"{name}: '{value}' not in {choices}"
            reasons.append(_reason("value_not_in_list", "Value not in list", details, **info))


def _reason(kind: str, message: str, details: str, **extra_info: Any) -> Reason:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}
