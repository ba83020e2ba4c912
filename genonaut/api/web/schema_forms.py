"""Make a form of a task's JSON Schema, and parameters of what was typed into it."""

import json
import re
from dataclasses import dataclass
from typing import Any

from genonaut.api.web.checking import FormError, whole
from genonaut.api.web.visitor import Form

_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?")


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter. ``kind`` is check, choice, choices, whole, number, text or json."""

    name: str
    kind: str
    help: str
    default: Any
    options: tuple[str, ...] = ()
    required: bool = False
    may_be_empty: bool = False
    least: float | None = None
    most: float | None = None

    def shown(self, value: Any) -> str:
        """Give a value as the form holds it."""
        if value is None:
            return ""
        if self.kind == "json":
            return json.dumps(value)
        return str(value)

    def read(self, form: Form) -> Any:
        """Give what was typed; None stands for nothing.

        Raises: ValueError: it is not of the kind.
        """
        text = form.get(f"param.{self.name}")
        if self.kind == "check":
            return bool(text)
        if self.kind == "choices":
            ticked = form.all(f"param.{self.name}")
            return ticked if ticked or self.default else None
        if not text:
            return None
        if self.kind == "whole":
            return _whole(text)
        if self.kind == "number":
            return _number(text)
        return _json(text) if self.kind == "json" else text


def fields(schema: dict[str, Any]) -> list[Field]:
    """Give a field for each parameter of an object's schema, in its order."""
    required = set(schema.get("required", ()))
    return [
        _field(name, part, schema.get("$defs", {}), required=name in required)
        for name, part in schema.get("properties", {}).items()
    ]


def read(wanted: list[Field], form: Form) -> dict[str, Any]:
    """Give the parameters; what was left empty is left out, so that its default holds.

    Raises: FormError: naming the fields that cannot be read.
    """
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    for field in wanted:
        try:
            value = field.read(form)
        except ValueError:
            errors[field.name] = "is not JSON" if field.kind == "json" else "is not a number"
            continue
        if value is not None or (field.may_be_empty and field.default is not None):
            found[field.name] = value
    if errors:
        raise FormError(errors)
    return found


def _whole(text: str) -> int:
    number = whole(text)
    if isinstance(number, str):
        raise ValueError("not a whole number")  # noqa: TRY004
    return number


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("not a number")
    return float(text)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _field(name: str, part: dict[str, Any], shared: dict[str, Any], *, required: bool) -> Field:
    told = {"help": part.get("description", ""), "default": part.get("default")}
    some, may_be_empty = _without_null(part, shared)
    options = _options(some)
    kind = "json"
    if options:
        kind = "choice"
    elif some.get("type") == "array":
        options = _options(_resolved(some.get("items", {}), shared))
        kind = "choices" if options else "json"
    elif "type" in some:
        kinds = {"boolean": "check", "integer": "whole", "number": "number", "string": "text"}
        kind = kinds.get(some["type"], "json")
    if kind == "check" and may_be_empty:
        kind = "json"
    return Field(
        name,
        kind,
        options=options,
        required=required,
        may_be_empty=may_be_empty,
        least=some.get("minimum", some.get("exclusiveMinimum")),
        most=some.get("maximum"),
        **told,
    )


def _without_null(part: dict[str, Any], shared: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Give what a value may be beside null, and whether it may be null."""
    part = _resolved(part, shared)
    ways = [_resolved(way, shared) for way in part.get("anyOf", ())]
    if not ways:
        return part, False
    some = [way for way in ways if way.get("type") != "null"]
    return (some[0] if len(some) == 1 else {}), len(some) < len(ways)


def _resolved(part: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in part:
        found: dict[str, Any] = shared.get(part["$ref"].rsplit("/", 1)[-1], {})
        return found
    return part


def _options(part: dict[str, Any]) -> tuple[str, ...]:
    found = part.get("enum") or ([part["const"]] if "const" in part else [])
    return tuple(found) if all(isinstance(one, str) for one in found) else ()
